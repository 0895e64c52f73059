"""Ground-truth masks: foreground and ignored pixels, or refused where no guess would be safe."""

from pathlib import Path

import numpy as np
from PIL import Image

from utils.errors import InputError, about
from utils.images import resize_nearest

VOID = 255  # beside class indices: pixels that count as nothing
ADVICE = ('write masks of 0 and 255: trimaps as 255 * (value == 1), class indices or instance '
          'numbers as 255 * (value == the one meant)')


def read_true_mask(path: Path, size: tuple[int, int] | None = None
                   ) -> tuple[np.ndarray, np.ndarray]:
    """A ground-truth mask -> (foreground, ignored), bool H x W each.

    Two values, one of them 0, are background and foreground. 255 beside one other value is
    ignored. An alpha channel over one colour is the mask. Masks with soft edges, from 0 to 255,
    are cut at half of the range.
    `size` = (H, W) of the image: a mask of the same shape and another scale is resized.
    Raises InputError for anything else, since no guess would be safe.
    """
    with about(f'the ground-truth mask {path}'), Image.open(path) as file:
        values = np.asarray(file)
        has_alpha = file.mode in ('LA', 'RGBA', 'PA')
        if file.mode == 'P':  # in a palette of greys, white may be the index 0
            colours = np.asarray(file.convert('RGB'))
            is_grey = (colours == colours[..., :1]).all()
            if is_grey and len(np.unique(colours)) == len(np.unique(values)):
                values = colours[..., 0]
    foreground, ignored = _parts(values, has_alpha, path)
    if size and foreground.shape != size:
        (height, width), (h, w) = size, foreground.shape
        if abs(width * h - w * height) > max(w, h, width, height):
            raise InputError(f'the mask {path} has {w} x {h} pixels (width x height), its image '
                             f'{width} x {height}: it is turned, or belongs to another image')
        foreground, ignored = (resize_nearest(part.view(np.uint8), size) > 0
                               for part in (foreground, ignored))
    return foreground, ignored


def _parts(values: np.ndarray, has_alpha: bool, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of a mask file, H x W or H x W x C -> (foreground, ignored)."""
    if has_alpha:
        values, alpha = values[..., :-1], values[..., -1]
        if (alpha != alpha[0, 0]).any():
            if (values != values[0, 0]).any():
                raise InputError(f'the mask {path} has colours and an alpha channel, and either '
                                 f'could be the mask: {ADVICE}')
            values = alpha
    if values.ndim == 3:  # each colour is a value; grey levels stay what they are
        is_grey = (values == values[..., :1]).all()
        values = values[..., 0] if is_grey else values.astype(np.int64) @ (
            256 ** np.arange(values.shape[2])[::-1])
    found, counts = np.unique(values, return_counts=True)
    nothing = np.zeros(values.shape, bool)
    if len(found) == 1 or (len(found) == 2 and found[0] == 0):
        return values != 0, nothing
    if len(found) == 3 and found[0] == 0 and found[2] == VOID:
        return values == found[1], values == VOID
    soft = counts[(found > 0) & (found < VOID)].sum()
    if (found[0], found[-1]) == (0, VOID) and found[1] < 128 <= found[-2] and soft < counts[-1]:
        return values > 127, nothing
    raise InputError(f'the mask {path} has the values {", ".join(map(str, found[:6]))}'
                     f'{", ..." if len(found) > 6 else ""}, not 0 and one other: {ADVICE}')


def is_suspicious(foreground: np.ndarray) -> bool:
    """Whether a true mask, bool H x W, touches all four borders or covers over 95 %: probably it
    is inverted, or of something else."""
    borders = (foreground[0], foreground[-1], foreground[:, 0], foreground[:, -1])
    return bool(all(border.any() for border in borders) or foreground.mean() > 0.95)
