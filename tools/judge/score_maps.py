"""Score maps of any method, read from a folder."""

from pathlib import Path

import cv2
import numpy as np

from utils.data.images import BadImageError, read_grey
from utils.errors import InputError

KINDS = ('.npy', '.png')


def find_score_map(folder: Path, name: str) -> Path:
    """The map of the image `name`: `<name>.npy`, `<name>.png`, or the same without the image's own
    suffix. Raises InputError where there is none."""
    image = folder / name
    candidates = [image.with_name(stem + kind) for stem in (image.name, image.stem)
                  for kind in KINDS]
    for path in candidates:
        if path.is_file():
            return path
    raise InputError(f'no map of {name} in {folder}: expected {candidates[0].relative_to(folder)}, '
                     'or .png')


def read_score_map(path: Path, side: int) -> np.ndarray:
    """A map (.npy: any number type; PNG: 8 or 16 bits, one channel) -> float64 side x side, resized
    by cubic interpolation as the benchmark does; a map of that size stays as it is.

    Raises InputError for anything else, damaged files, and maps that are not 2-d; nothing in a file
    is executed.
    """
    score_map = _read_array(path) if path.suffix == '.npy' else _read_png(path)
    if score_map.shape == (side, side):
        return score_map
    return cv2.resize(score_map, (side, side), interpolation=cv2.INTER_CUBIC)


def _read_array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError,
            MemoryError) as error:
        raise InputError(f'{path} is not a valid .npy array: write it with numpy.save') from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in 'fiub':
        raise InputError(f'{path} does not contain an array of real numbers: write it with '
                         'numpy.save')
    array = array.squeeze()
    if array.ndim != 2:
        raise InputError(f'{path} has the shape {array.shape}: a score map is H x W')
    if np.isinf(array).any():
        raise InputError(f'{path} contains infinite values: a score map is finite')
    return array.astype(np.float64)


def _read_png(path: Path) -> np.ndarray:
    try:
        return read_grey(path).astype(np.float64)
    except BadImageError as error:
        raise InputError(f'{path} is damaged: write it again') from error
