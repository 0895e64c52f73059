"""Score maps of any method and their ground truth -> the table of utils/evaluation.py."""

import os
from collections.abc import Callable, Iterable
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from utils.errors import InputError, about, warn
from utils.evaluation import Evaluated, stack
from utils.images import is_suspicious, read_grey, read_header, read_true_mask
from utils.lists import ImageList, cub_images
from utils.metrics import BENCHMARK_SIDE, level_ious, pixel_counts

SIZE = (BENCHMARK_SIDE, BENCHMARK_SIDE)
BASELINES = ('whole image', 'centre box', 'centre Gaussian')
GAUSSIAN_WIDTH = 0.25  # standard deviation, of the map's side


def read_truth(path: str) -> ImageList:
    """A list in the CUB layout, with image/ and segmentation/ beside it. Raises InputError where it
    has neither boxes nor masks."""
    images = cub_images(Path(path).absolute().parent, Path(path).name, classes=10**9)
    if images.boxes is None and images.segmentation is None:
        raise InputError(f'{path} has no boxes, and there is no segmentation/ beside it: add '
                         'ground truth to evaluate against')
    return images


def find_maps(folder: str, images: ImageList) -> list[Path]:
    """The map of each image: NAME.npy or NAME.png, NAME with or without the image's suffix. Raises
    InputError where an image has no map, or two."""
    found = []
    for name in images.names.tolist():
        stems = {name, os.path.splitext(name)[0]}
        maps = [path for stem in stems for suffix in ('.npy', '.png')
                if (path := Path(folder, stem + suffix)).is_file()]
        if len(maps) != 1:
            raise InputError(f'{folder} has {len(maps)} maps of {name}: expected one, {name}.npy '
                             f'or {name}.png')
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


def baseline_map(baseline: str) -> np.ndarray:
    """What needs no training, as a score map, 224 x 224. The centre box has 1 - t of the image's
    sides at threshold t; the centre Gaussian is the benchmark's baseline."""
    if baseline == 'whole image':
        score_map = np.ones(SIZE)
        score_map[0, 0] = 0  # a constant map has no box
        return score_map
    offsets = np.abs((np.arange(BENCHMARK_SIDE) + 0.5) / BENCHMARK_SIDE - 0.5)
    if baseline == 'centre box':
        return -np.maximum(*np.meshgrid(offsets, offsets))
    return np.exp(-np.add.outer(offsets**2, offsets**2) / (2 * GAUSSIAN_WIDTH**2))


def measure_all(sources: Iterable[Path | str], images: ImageList, map_images: Callable, label: str
                ) -> Evaluated:
    """The table of the maps of all images. Warns of constant maps and inverted masks. Raises
    InputError for transposed maps.

    sources: for each image the file of its map, or the name of a baseline; map_images: as `map`.
    """
    count = len(images)
    masks = [images.mask_path(images.segmentation, index) if images.segmentation else None
             for index in range(count)]
    found = map_images(measure, sources, map(images.path, range(count)),
                       images.boxes or repeat(None), masks)
    rows, odd = zip(*tqdm(found, label, count, unit='img', disable=None), strict=True)
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
    return stack(rows)


def measure(source: Path | str, image: Path, boxes: np.ndarray | None, mask: Path | None
            ) -> tuple[Evaluated, tuple[bool, ...]]:
    """What the benchmark's metrics need of an image; and whether its map is constant, has the size
    of the turned image, or of the image, which is not square, and its mask is suspicious.
    boxes: (K, 4), x0 y0 x1 y1 in pixels of the image."""
    size, _ = read_header(image)
    score_map = read_score_map(source) if isinstance(source, Path) else baseline_map(source)
    constant, shape = not score_map.max() > score_map.min(), score_map.shape
    if shape != SIZE:
        score_map = cv2.resize(score_map, SIZE, interpolation=cv2.INTER_CUBIC)
    levels = None if boxes is None else level_ious(score_map, boxes, size)
    pixels, suspicious = None, False
    if mask:
        foreground, ignored = read_true_mask(mask, size)
        pixels = pixel_counts(score_map, foreground, ignored)
        suspicious = is_suspicious(foreground)
    turned, upright = shape == size[::-1] != size, shape == size != size[::-1]
    return (Evaluated(None, np.array(size), None, None, None, levels, pixels),
            (constant, turned, upright, suspicious))
