"""The ground truth that score maps are evaluated against: our lists', or the benchmark's.

The benchmark's files (Choe et al., CVPR 2020) are `image_ids.txt` (one id per line),
`class_labels.txt` (`id,label`), `image_sizes.txt` (`id,width,height`) and `localization.txt`
(`id,x0,y0,x1,y1`; OpenImages: `id,mask,ignored region`), several lines per image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data.images import read_binary_mask, read_size, resize_nearest
from utils.data.lists import ImageList, checked_label, checked_name, read_lines
from utils.errors import InputError


@dataclass(frozen=True)
class GroundTruth:
    """What is known of an image.

    Attributes:
        name: the path of the image relative to its folder.
        boxes: (K, 4) float64 x0, y0, x1, y1 in pixels of the image; None where not known.
        size: (height, width) of the image; None where there are no boxes.
        masks: the files of the objects' masks.
        ignored: the mask of the pixels that PxAP ignores; pixels of objects are never ignored.
        label: its class; None where not known.
    """

    name: str
    boxes: np.ndarray | None = None
    size: tuple[int, int] | None = None
    masks: tuple[Path, ...] = ()
    ignored: Path | None = None
    label: int | None = None

    @property
    def object_size(self) -> float:
        """The area of the largest box, clipped to the image, as a fraction of the image's; 0
        without a box."""
        height, width = self.size
        boxes = self.boxes.clip(0, [width, height] * 2)
        return float((boxes[:, 2:] - boxes[:, :2]).prod(1).max(initial=0) / (height * width))

    def read_masks(self, side: int) -> tuple[np.ndarray, np.ndarray] | None:
        """(foreground, ignored), bool side x side each, by nearest neighbour; None without masks.

        Raises InputError for a file that is missing or damaged.
        """
        if not self.masks:
            return None
        foreground = np.any([_read(path, side) for path in self.masks], axis=0)
        if self.ignored is None:
            return foreground, np.zeros_like(foreground)
        return foreground, _read(self.ignored, side) & ~foreground


def _read(path: Path, side: int) -> np.ndarray:
    return resize_nearest(read_binary_mask(path).astype(np.uint8), (side, side)) > 0


def from_image_list(images: ImageList) -> Iterator[GroundTruth]:
    """The ground truth of one of our lists. Where it has boxes, the images' sizes are read from
    their headers.

    Raises InputError for an image that is missing or damaged, and for a box outside its image.
    """
    for index in range(len(images)):
        name, mask = images.name(index), images.segmentation_path(index)
        boxes = size = None
        if images.boxes is not None:
            boxes, size = images.boxes[index], read_size(images.path(index))
            for box in boxes:
                _check_box(box, size, f'{images.source}, image {index + 1} ({name})')
        yield GroundTruth(name, boxes, size, (mask,) if mask else (),
                          label=int(images.labels[index]))


def _check_box(box: Sequence[float], size: tuple[int, int], place: str) -> None:
    """Refuse what no image can have. A box of one pixel has x0 = x1 in the benchmark's files."""
    (height, width), (x0, y0, x1, y1) = size, box
    text = ' '.join(f'{value:g}' for value in box)
    if x1 < x0 or y1 < y0:
        raise InputError(f'{place}: the box {text} ends before it begins: write x0 y0 x1 y1')
    if x0 >= width or y0 >= height or x1 < 0 or y1 < 0:
        raise InputError(f'{place}: the box {text} lies outside its image of {width} x {height} '
                         'pixels (width x height): correct the box or the size')


def check_scale(truths: Sequence[GroundTruth]) -> str | None:
    """A warning where boxes stick out of their images. Raises InputError where no box of the list
    reaches beyond the first pixel: fractions of the image's size, as YOLO has them."""
    boxed = [truth for truth in truths if truth.boxes is not None and len(truth.boxes)]
    if boxed and max(truth.boxes.max() for truth in boxed) <= 1:
        raise InputError('all boxes lie in 0 ... 1: they are fractions of the image (YOLO?); '
                         'multiply x by the width and y by the height')
    outside = [truth.name for truth in boxed if truth.boxes.min() < 0
               or (truth.boxes[:, 2:] > np.array(truth.size)[::-1]).any()]
    if not outside:
        return None
    return (f'boxes of {len(outside)} of {len(truths)} images stick out of their images, the first '
            f'is {outside[0]}: if these are many, check scale and sizes')


def read_benchmark(metadata: Path, masks: Path | None = None) -> list[GroundTruth]:
    """The ground truth in the benchmark's files, in the order of image_ids.txt.

    masks: the folder that the paths of masks in localization.txt start from (default: metadata).
    Raises InputError, with file and line, for anything that is not as the benchmark has it.
    """
    localization = _read_fields(metadata / 'localization.txt', (3, 5))
    has_masks = len(next(iter(localization.values()))[0][1]) == 2
    sizes = {} if has_masks else _read_fields(metadata / 'image_sizes.txt', (3,))
    labels = _read_labels(metadata / 'class_labels.txt')
    folder = masks or metadata
    truths = []
    for number, line in read_lines(metadata / 'image_ids.txt'):
        where = f'{metadata / "image_ids.txt"}, line {number}'
        name = checked_name(line, where)
        if name not in localization:
            raise InputError(f'{where}: {name} is not in localization.txt: add it there')
        if has_masks:
            truths.append(_with_masks(name, labels.get(name), localization[name], folder))
        elif name not in sizes:
            raise InputError(f'{where}: {name} is not in image_sizes.txt: add it there')
        else:
            truths.append(_with_boxes(name, labels.get(name), localization[name], sizes[name][0]))
    if not truths:
        raise InputError(f'{metadata / "image_ids.txt"} is empty: one image id a line')
    return truths


Line = tuple[str, list[str]]  # file and number, and the fields after the id


def _with_boxes(name: str, label: int | None, lines: list[Line], size: Line) -> GroundTruth:
    width, height = map(int, _numbers(size[1], size[0]))
    if min(width, height) < 1:
        raise InputError(f'{size[0]}: {name} has a size of {width} x {height}: correct the line')
    boxes = [_numbers(values, place) for place, values in lines]
    for (place, _), box in zip(lines, boxes, strict=True):
        _check_box(box, (height, width), place)
    return GroundTruth(name, np.array(boxes), (height, width), label=label)


def _with_masks(name: str, label: int | None, lines: list[Line], folder: Path) -> GroundTruth:
    masks = tuple(folder / checked_name(mask, place) for place, (mask, _) in lines)
    ignored = {folder / checked_name(region, place) for place, (_, region) in lines if region}
    if len(ignored) > 1:
        raise InputError(f'{lines[-1][0]}: {name} has a second ignored region: correct the line')
    return GroundTruth(name, masks=masks, ignored=next(iter(ignored), None), label=label)


def _read_labels(path: Path) -> dict[str, int]:
    """id -> label; empty without the file."""
    lines = _read_fields(path, (2,)) if path.is_file() else {}
    return {name: checked_label(values[0].strip(), 10**9, place)
            for name, ((place, values), *_) in lines.items()}


def _read_fields(path: Path, counts: tuple[int, ...]) -> dict[str, list[Line]]:
    """id -> its lines; all lines have one of `counts` fields."""
    result: dict[str, list[Line]] = {}
    found = None
    for number, line in read_lines(path):
        place, (name, *values) = f'{path}, line {number}', line.split(',')
        found = found or len(values) + 1
        if len(values) + 1 != found or found not in counts:
            expected = ' or '.join(map(str, counts if found not in counts else (found,)))
            raise InputError(f'{place}: expected {expected} fields, found {line[:80]!r}: '
                             'correct the line')
        result.setdefault(name, []).append((place, values))
    if not result:
        raise InputError(f'{path} is empty: at least one line an image')
    return result


def _numbers(values: list[str], place: str) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = [np.nan]
    if not np.isfinite(numbers).all():
        raise InputError(f'{place}: {",".join(values)[:80]!r} are not coordinates: correct the '
                         'line')
    return numbers
