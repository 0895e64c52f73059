"""The ground truth that score maps are evaluated against: our lists', or the benchmark's.

The benchmark's files (Choe et al., CVPR 2020) are `image_ids.txt` (one id per line),
`class_labels.txt` (`id,label`), `image_sizes.txt` (`id,width,height`) and `localization.txt`
(`id,x0,y0,x1,y1`; OpenImages: `id,mask,ignored region`), several lines per image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from utils.data.images import MAX_PIXELS, read_binary_mask, resize_nearest
from utils.data.lists import ImageList, checked_name, read_lines
from utils.errors import InputError

FILES = ('image_ids.txt', 'class_labels.txt', 'image_sizes.txt', 'localization.txt')


@dataclass(frozen=True)
class GroundTruth:
    """What is known of an image.

    Attributes:
        name: the path of the image relative to its folder.
        boxes: (K, 4) float64 x0, y0, x1, y1 in pixels of the image; None where not known.
        size: (height, width) of the image; None where there are no boxes.
        masks: the files of the objects' masks.
        ignored: the mask of the pixels that PxAP ignores; pixels of objects are never ignored.
    """

    name: str
    boxes: np.ndarray | None = None
    size: tuple[int, int] | None = None
    masks: tuple[Path, ...] = ()
    ignored: Path | None = None

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

    Raises InputError for an image that is missing or damaged.
    """
    for index in range(len(images)):
        mask = images.segmentation_path(index)
        boxes = None if images.boxes is None else images.boxes[index]
        yield GroundTruth(images.name(index), boxes,
                          None if boxes is None else _size_of(images.path(index)),
                          (mask,) if mask else ())


def _size_of(path: Path) -> tuple[int, int]:
    """(height, width) of an image file, from its header."""
    try:
        with Image.open(path) as header:
            width, height = header.size
    except Exception as error:  # Pillow's plug-ins raise anything on damaged headers
        raise InputError(f'{path} cannot be read as an image: replace it') from error
    if width * height > MAX_PIXELS:
        raise InputError(f'{path} claims more than {MAX_PIXELS} pixels: replace it')
    return height, width


def read_benchmark(metadata: Path, masks: Path | None = None) -> list[GroundTruth]:
    """The ground truth in the benchmark's files, in the order of image_ids.txt.

    masks: the folder that the paths of masks in localization.txt start from (default: metadata).
    Raises InputError, with file and line, for anything that is not as the benchmark has it.
    """
    localization = _read_fields(metadata / 'localization.txt', (3, 5))
    has_masks = len(next(iter(localization.values()))[0][1]) == 2
    sizes = {} if has_masks else _read_fields(metadata / 'image_sizes.txt', (3,))
    folder = masks or metadata
    truths = []
    for number, line in read_lines(metadata / 'image_ids.txt'):
        where = f'{metadata / "image_ids.txt"}, line {number}'
        name = checked_name(line, where)
        if name not in localization:
            raise InputError(f'{where}: {name} is not in localization.txt: add it there')
        if has_masks:
            truths.append(_with_masks(name, localization[name], folder))
        elif name not in sizes:
            raise InputError(f'{where}: {name} is not in image_sizes.txt: add it there')
        else:
            place, values = sizes[name][0]
            width, height = _numbers(values, place)
            boxes = [_numbers(values, place) for place, values in localization[name]]
            truths.append(GroundTruth(name, np.array(boxes), (int(height), int(width))))
    if not truths:
        raise InputError(f'{metadata / "image_ids.txt"} is empty: one image id a line')
    return truths


def _with_masks(name: str, lines: list[tuple[str, list[str]]], folder: Path) -> GroundTruth:
    masks = tuple(folder / checked_name(mask, place) for place, (mask, _) in lines)
    ignored = {folder / checked_name(region, place) for place, (_, region) in lines if region}
    if len(ignored) > 1:
        raise InputError(f'{lines[-1][0]}: {name} has a second ignored region: correct the line')
    return GroundTruth(name, masks=masks, ignored=next(iter(ignored), None))


def _read_fields(path: Path, counts: tuple[int, ...]) -> dict[str, list[tuple[str, list[str]]]]:
    """id -> [(file and line, the other fields), ...]; all lines have one of `counts` fields."""
    result: dict[str, list[tuple[str, list[str]]]] = {}
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
    if not np.isfinite(numbers).all() or min(numbers) < 0:
        raise InputError(f'{place}: {",".join(values)[:80]!r} are not coordinates: correct the '
                         'line')
    return numbers
