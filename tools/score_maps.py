"""Score maps of any method and their ground truth -> the table of utils/evaluation.py.

Ground truth is a list in the CUB layout, or a folder with the files of the WSOL benchmark (Choe et
al., CVPR 2020):

    image_ids.txt       id
    class_labels.txt    id,label                  optional
    image_sizes.txt     id,width,height           not needed with masks
    localization.txt    id,x0,y0,x1,y1            a line for each box
                        id,mask,ignored region    OpenImages: a line for each mask
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import cv2
import numpy as np
from tqdm import tqdm

from utils import lists
from utils.errors import InputError, warn
from utils.evaluation import Evaluated, stack
from utils.images import BadImageError, is_suspicious, read_grey, read_header, read_true_mask
from utils.metrics import BENCHMARK_SIDE, level_ious, pixel_counts

SIZE = (BENCHMARK_SIDE, BENCHMARK_SIDE)
BASELINES = ('whole image', 'centre box', 'centre Gaussian', 'noise')
NOISE_SIDE = 28        # a CAM's at stride 8
GAUSSIAN_WIDTH = 0.25  # standard deviation, of the map's side
MAX_CLASSES = 10**9


class GroundTruth(NamedTuple):
    """What is known of an image; None where it is not.

    name: its path below the folder of the images; size: (height, width); boxes: (K, 4) x0, y0, x1,
    y1 in pixels of the image; masks: the files of its objects' masks; ignored: the mask of what
    PxAP ignores, unless it is an object's; image: its file.
    """

    name: str
    label: int | None
    size: tuple[int, int] | None
    boxes: np.ndarray | None
    masks: tuple[Path, ...] = ()
    ignored: Path | None = None
    image: Path | None = None


def from_list(path: Path) -> list[GroundTruth]:
    """The ground truth of a list in the CUB layout, with image/ and segmentation/ beside it."""
    images = lists.cub_images(path.parent, str(path.absolute()), MAX_CLASSES)
    if images.boxes is None and not images.segmentation:
        raise InputError(f'{path} has no boxes, and there is no segmentation/ beside it: add '
                         'ground truth to evaluate against')
    sizes = [read_header(images.path(index))[0] for index in range(len(images))]
    if images.boxes is not None and len(images) > lists.SAMPLE:  # cub_images checks a sample
        lists.check_scale(images.boxes, sizes, images.names.tolist(), path)
    truths = []
    for index, (size, label) in enumerate(zip(sizes, images.labels.tolist(), strict=True)):
        boxes = None if images.boxes is None else images.boxes[index]
        masks = (images.mask_path(images.segmentation, index),) if images.segmentation else ()
        truths.append(GroundTruth(images.name(index), label, size, boxes, masks,
                                  image=images.path(index)))
    return truths


def from_metadata(metadata: Path, masks: Path | None = None) -> list[GroundTruth]:
    """The ground truth in the benchmark's files, in the order of image_ids.txt.

    masks: the folder that the paths of masks start from (default: metadata).
    Raises InputError for anything that is not as the benchmark has it.
    """
    if not (metadata / 'image_ids.txt').is_file():
        raise InputError(f'no {metadata / "image_ids.txt"}: give the folder of a split, such as '
                         'metadata/CUB/test')
    ids = read_table(metadata / 'image_ids.txt', (0,))
    found = read_table(metadata / 'localization.txt', (2, 4))
    has_masks = len(next(iter(found.values()))[0]) == 2
    counts = {} if has_masks else {'image_sizes.txt': 2}
    if (metadata / 'class_labels.txt').is_file():
        counts['class_labels.txt'] = 1
    tables = {file: read_table(metadata / file, (count,)) for file, count in counts.items()}
    for file, table in {'image_ids.txt': ids, 'localization.txt': found, **tables}.items():
        for name in ids:
            lines = len(table.get(name, ()))
            if lines == 0 or (lines > 1 and table is not found):
                raise InputError(f'{metadata / file} has {lines} lines of {name}: correct it')
    truths = []
    for name in ids:
        one = {file: numbers(metadata / file, table[name], int)[0].tolist()
               for file, table in tables.items()}
        truth = GroundTruth(name, one.get('class_labels.txt', [None])[0], None, None)
        if has_masks:
            truths.append(with_masks(truth, found[name], masks or metadata))
        else:
            boxes = numbers(metadata / 'localization.txt', found[name], float)
            truths.append(truth._replace(size=tuple(one['image_sizes.txt'][::-1]), boxes=boxes))
            if not (boxes[:, 2:] >= boxes[:, :2]).all() or min(truths[-1].size) < 1:
                raise InputError(f'{metadata}: {name} has a box that ends before it begins, or no '
                                 'size: write x0,y0,x1,y1 and width,height')
    if not has_masks:
        lists.check_scale([truth.boxes for truth in truths], [truth.size for truth in truths],
                          list(ids), metadata)
    return truths


def read_table(path: Path, counts: tuple[int, ...]) -> dict[str, list[list[str]]]:
    """id -> the other fields of its lines; in all lines their number is the same of `counts`."""
    result: dict[str, list[list[str]]] = {}
    for number, text in lists.read_lines(path):
        name, *values = text.split(',')
        if len(values) not in counts:
            raise InputError(f'{path}, line {number}: expected {" or ".join(map(str, counts))} '
                             f'fields after the id, found {text[:80]!r}: correct the line')
        counts = (len(values),)
        result.setdefault(lists.image_name(name, str(path)), []).append(values)
    if not result:
        raise InputError(f'{path} is empty: it needs a line for each image')
    return result


def numbers(path: Path, lines: list[list[str]], kind: type) -> np.ndarray:
    try:
        return np.array(lines).astype(kind)
    except ValueError as error:
        raise InputError(f'{path}: {error}: correct the line') from error


def with_masks(truth: GroundTruth, lines: list[list[str]], folder: Path) -> GroundTruth:
    masks, regions = ([folder / lists.checked_name(name, truth.name) for name in names if name]
                      for names in zip(*lines, strict=True))
    if len(set(regions)) > 1:
        raise InputError(f'{truth.name} has a second ignored region: correct localization.txt')
    return truth._replace(masks=tuple(masks), ignored=regions[0] if regions else None)


def read_masks(truth: GroundTruth) -> tuple[np.ndarray, np.ndarray]:
    """(foreground, ignored) of an image, bool, of its size or that of its first mask."""
    foreground, ignored = read_true_mask(truth.masks[0], truth.size)
    for path in truth.masks[1:]:
        foreground = foreground | read_true_mask(path, foreground.shape)[0]
    if truth.ignored:
        ignored = ignored | read_true_mask(truth.ignored, foreground.shape)[0]
    return foreground, ignored & ~foreground


def find_maps(folder: Path, truths: Sequence[GroundTruth]) -> list[Path]:
    """The map of each image: NAME.npy or NAME.png, NAME with or without the image's suffix. Raises
    InputError where images have no map, or two."""
    found, missing = [], []
    for truth in truths:
        image = folder / truth.name
        names = dict.fromkeys(f'{stem}.{kind}' for stem in (image.name, image.stem)
                              for kind in ('npy', 'png'))
        maps = [path for path in map(image.with_name, names) if path.is_file()]
        if len(maps) > 1:
            raise InputError(f'{truth.name} has two maps, {maps[0]} and {maps[1]}: move one away')
        found += maps
        missing += [] if maps else [truth.name]
    if missing:
        raise InputError(f'{folder} has no map of {len(missing)} of {len(truths)} images, the '
                         f'first is {missing[0]}: expected {missing[0]}.npy or {missing[0]}.png')
    return found


def read_score_map(path: Path) -> np.ndarray:
    """A map, float64 H x W, of .npy (any number type) or PNG (8 or 16 bits, one channel). Raises
    InputError for anything else; nothing in a file is executed."""
    if path.suffix == '.png':
        try:
            return read_grey(path).astype(np.float64)
        except BadImageError as error:  # its message is about images
            raise InputError(f'{path} is damaged: write it again') from error
    try:
        array = np.load(path, allow_pickle=False)
        array = array.squeeze().astype(np.float64, casting='same_kind')
    except Exception as error:  # numpy raises a dozen kinds on damaged files
        raise InputError(f'{path} has no array of real numbers ({str(error)[:80]}): write it with '
                         'numpy.save') from error
    if array.ndim != 2 or np.isinf(array).any():
        raise InputError(f'{path}, an array of shape {array.shape}, is no map: a score map is '
                         'H x W, without infinite values')
    return array


def at_benchmark_size(score_map: np.ndarray) -> np.ndarray:
    """The map resized to 224 x 224 by cubic interpolation, as the benchmark does."""
    return score_map if score_map.shape == SIZE else cv2.resize(
        score_map, SIZE, interpolation=cv2.INTER_CUBIC)


def baseline_map(baseline: str, name: str) -> np.ndarray:
    """What needs no training, as a score map, 224 x 224.

    - whole image: one pixel is lower, so that the box is the image's at every threshold.
    - centre box: at threshold t, the box has 1 - t of the image's sides.
    - centre Gaussian: the benchmark's baseline.
    - noise: uniform, by the image's name, enlarged as a CAM is.
    """
    if baseline == 'noise':
        noise = np.random.default_rng(crc32(name.encode())).random((NOISE_SIDE, NOISE_SIDE))
        return at_benchmark_size(noise)
    if baseline == 'whole image':
        score_map = np.ones(SIZE)
        score_map[0, 0] = 0
        return score_map
    offsets = np.abs((np.arange(BENCHMARK_SIDE) + 0.5) / BENCHMARK_SIDE - 0.5)
    if baseline == 'centre box':
        return -np.maximum(*np.meshgrid(offsets, offsets))
    return np.exp(-np.add.outer(offsets**2, offsets**2) / (2 * GAUSSIAN_WIDTH**2))


def measure_all(source: list[Path] | str, truths: Sequence[GroundTruth], map_images: Callable,
                label: str, hits: np.ndarray | None = None) -> Evaluated:
    """The table of the maps of all images, computed by `map_images`, as `map`.

    source: the files of the maps, or the name of a baseline; hits: (N, 2) bool, the classifier's.
    Warns of maps and masks that are probably wrong. Raises InputError for transposed maps.
    """
    count = len(truths)
    sources = [source] * count if isinstance(source, str) else source
    measured = tqdm(map_images(measure, range(count), sources, truths), label, count, unit='img',
                    disable=None)
    rows, odd = zip(*measured, strict=True)
    flat, turned, upright, full = np.array(odd).sum(0)
    if turned and not upright:
        raise InputError(f'{label}: {turned} of {count} maps have the size of their image turned '
                         'by 90 degrees, and none has its size: write H x W, not W x H')
    if flat:
        warn(f'{label}: {flat} of {count} maps are constant or have NaN, and count as 0 '
             'everywhere, without a box')
    if full > count / 2:
        warn(f'{full} of {count} ground-truth masks touch all four borders, or cover over 95 %: '
             'are they inverted?')
    return stack(rows)._replace(hits=hits)


def measure(index: int, source: Path | str, truth: GroundTruth
            ) -> tuple[Evaluated, tuple[bool, bool, bool, bool]]:
    """An image's row, and whether its map is constant, has the size of the turned image or of the
    image, which is not square, and whether its mask is suspicious."""
    is_file = isinstance(source, Path)
    score_map = read_score_map(source) if is_file else baseline_map(source, truth.name)
    height, width = truth.size or SIZE
    shapes = [height != width and score_map.shape == size
              for size in ((width, height), (height, width))]
    score_map, levels, pixels, full = at_benchmark_size(score_map), None, None, False
    if truth.boxes is not None:
        levels = level_ious(score_map, truth.boxes, truth.size)
    if truth.masks:
        foreground, ignored = read_masks(truth)
        pixels, full = pixel_counts(score_map, foreground, ignored), is_suspicious(foreground)
    row = Evaluated(np.int64(index), np.array((height, width)), None, None, None, levels, pixels)
    return row, (not score_map.max() > score_map.min(), *shapes, full)
