"""Score maps of any method and their ground truth -> the table of utils/evaluation.py.

Ground truth is a list in the CUB layout, or a folder with the files of the WSOL benchmark (Choe et
al., CVPR 2020):

    image_ids.txt       id
    class_labels.txt    id,label
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
from utils.errors import InputError, about, warn
from utils.evaluation import Evaluated, stack
from utils.images import read_grey, read_header
from utils.metrics import BENCHMARK_SIDE, level_ious, pixel_counts
from utils.true_masks import is_suspicious, read_true_mask

SIZE = (BENCHMARK_SIDE, BENCHMARK_SIDE)
BASELINES = ('whole image', 'centre box', 'centre Gaussian', 'noise')
NOISE_SIDE = 28        # a CAM's at stride 8
GAUSSIAN_WIDTH = 0.25  # standard deviation, of the map's side
MAX_CLASSES = 10**9


class GroundTruth(NamedTuple):
    """What is known of an image; None where it is not.

    name: its path below the folder of the images; size: (height, width); boxes: (K, 4) x0, y0, x1,
    y1 in pixels of the image; masks: the files of its objects' masks; ignored: the masks of what
    PxAP ignores, unless it is an object's; image: its file.
    """

    name: str
    label: int
    size: tuple[int, int] | None
    boxes: np.ndarray | None
    masks: Sequence[Path] = ()
    ignored: Sequence[Path] = ()
    image: Path | None = None


def from_list(path: Path) -> list[GroundTruth]:
    """The ground truth of a list in the CUB layout, with image/ and segmentation/ beside it."""
    images = lists.cub_images(path.parent, str(path.absolute()), MAX_CLASSES)
    if images.boxes is None and not images.segmentation:
        raise InputError(f'{path} has no boxes, and there is no segmentation/ beside it: add '
                         'ground truth to evaluate against')
    truths = []
    for index, label in enumerate(images.labels.tolist()):
        image = images.path(index)
        boxes = None if images.boxes is None else images.boxes[index]
        masks = [images.mask_path(images.segmentation, index)] if images.segmentation else []
        truths.append(GroundTruth(images.name(index), label, read_header(image)[0], boxes, masks,
                                  image=image))
    return truths


def from_metadata(metadata: Path, masks: Path | None = None) -> list[GroundTruth]:
    """The ground truth in the benchmark's files, in the order of image_ids.txt.

    masks: the folder that the paths of masks start from (default: metadata).
    Raises InputError for lines that are not as the benchmark has them, and for boxes of another
    scale.
    """
    ids = list(read_table(metadata / 'image_ids.txt'))
    found = read_table(metadata / 'localization.txt', ids)
    labels, truths = read_table(metadata / 'class_labels.txt', ids), []
    with about(metadata):
        has_masks = len(found[ids[0]][0]) == 2
        sizes = {} if has_masks else read_table(metadata / 'image_sizes.txt', ids)
        for name in ids:
            label = int(labels[name][0][0])
            if has_masks:
                paths = [[(masks or metadata) / lists.checked_name(file, name) for file in files
                          if file] for files in zip(*found[name], strict=True)]
                truths.append(GroundTruth(name, label, None, None, *paths))
                continue
            width, height = map(int, sizes[name][0])
            x0, y0, x1, y1 = np.array(found[name], float).T
            if not ((x1 >= x0) & (y1 >= y0)).all():
                raise InputError(f'{metadata}: {name} has a box that ends before it begins: write '
                                 'x0,y0,x1,y1')
            truths.append(GroundTruth(name, label, (height, width), np.stack([x0, y0, x1, y1], 1)))
    if not has_masks:
        lists.check_scale([truth.boxes for truth in truths], [truth.size for truth in truths], ids,
                          metadata)
    return truths


def read_table(path: Path, ids: Sequence[str] = ()) -> dict[str, list[list[str]]]:
    """id -> the other fields of its lines. Raises InputError where lines of `ids` are missing."""
    with about(path):
        lines = np.loadtxt(path, str, delimiter=',', comments=None, ndmin=2, encoding='utf-8-sig')
    table: dict[str, list[list[str]]] = {}
    for name, *fields in lines.tolist():
        table.setdefault(lists.image_name(name, str(path)), []).append(fields)
    if missing := set(ids) - table.keys():
        raise InputError(f'{path} has no line of {len(missing)} images of image_ids.txt, such as '
                         f'{min(missing)}: add them')
    return table


def read_masks(truth: GroundTruth) -> tuple[np.ndarray, np.ndarray]:
    """(foreground, ignored) of an image, bool, of its size or that of its first mask."""
    foreground, ignored = read_true_mask(truth.masks[0], truth.size)
    for path in truth.masks[1:]:
        foreground = foreground | read_true_mask(path, foreground.shape)[0]
    for path in truth.ignored:
        ignored = ignored | read_true_mask(path, foreground.shape)[0]
    return foreground, ignored & ~foreground


def find_maps(folder: str, truths: Sequence[GroundTruth]) -> list[Path]:
    """The map of each image: NAME.npy or NAME.png, NAME with or without the image's suffix. Raises
    InputError where an image has no map, or two."""
    found = []
    for truth in truths:
        image = Path(folder, truth.name)
        names = {f'{stem}.{kind}' for stem in (image.name, image.stem) for kind in ('npy', 'png')}
        maps = [path for path in map(image.with_name, names) if path.is_file()]
        if len(maps) != 1:
            raise InputError(f'{folder} has {len(maps)} maps of {truth.name}: expected one, '
                             f'{truth.name}.npy or {truth.name}.png')
        found += maps
    return found


def read_score_map(path: Path) -> np.ndarray:
    """A map, float64 H x W, of .npy (any number type) or PNG (8 or 16 bits, one channel). Raises
    InputError for anything else; nothing in a file is executed."""
    if path.suffix == '.png':
        return read_grey(path).astype(np.float64)
    with about(path):
        array = np.load(path, allow_pickle=False).squeeze().astype(np.float64, casting='same_kind')
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
    Warns of constant maps and inverted masks. Raises InputError for transposed maps.
    """
    count = len(truths)
    sources = [source] * count if isinstance(source, str) else source
    rows, odd = zip(*tqdm(map_images(measure, sources, truths), label, count, unit='img',
                          disable=None), strict=True)
    flat, turned, upright, inverted = np.sum(odd, 0)
    if turned and not upright:
        raise InputError(f'{label}: {turned} of {count} maps have the size of their image turned '
                         'by 90 degrees, and none has its size: write H x W, not W x H')
    if flat:
        warn(f'{label}: {flat} of {count} maps are constant or have NaN, and count as 0 '
             'everywhere, without a box')
    if inverted > count / 2:
        warn(f'{inverted} of {count} ground-truth masks touch all four borders, or cover over '
             '95 %: are they inverted?')
    return stack(rows)._replace(hits=hits)


def measure(source: Path | str, truth: GroundTruth) -> tuple[Evaluated, list[bool]]:
    """What the benchmark's metrics need of an image, and whether its map is constant, and has the
    size of the turned image or of the image, which is not square, and its mask is suspicious."""
    is_file = isinstance(source, Path)
    score_map = read_score_map(source) if is_file else baseline_map(source, truth.name)
    height, width = truth.size or SIZE
    odd = [not score_map.max() > score_map.min(),
           height != width and score_map.shape == (width, height),
           height != width and score_map.shape == (height, width), False]
    score_map, levels, pixels = at_benchmark_size(score_map), None, None
    if truth.boxes is not None:
        levels = level_ious(score_map, truth.boxes, truth.size)
    if truth.masks:
        foreground, ignored = read_masks(truth)
        pixels, odd[-1] = pixel_counts(score_map, foreground, ignored), is_suspicious(foreground)
    return Evaluated(*[None] * 5, levels, pixels), odd
