"""Reading and resizing of images: RGB, uint8, H x W x 3."""

import struct
from pathlib import Path
from unicodedata import normalize

import cv2
import numpy as np
from PIL import Image

from utils.errors import InputError

MAX_PIXELS = 256_000_000  # more than any camera's
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# What Pillow's plug-ins raise on damaged headers.
DAMAGED = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError,
           AttributeError, AssertionError, RuntimeError, struct.error, Image.DecompressionBombError)
ORIENTATION = 0x0112  # EXIF
VOID = 255            # beside class indices: pixels that count as nothing
MASK_ADVICE = ('write masks of 0 and 255: trimaps as 255 * (value == 1), class indices or instance '
               'numbers as 255 * (value == the one meant)')


class BadImageError(InputError):
    """An image file that exists but cannot be decoded; skipped with --skip_bad."""


def read_image(path: Path) -> np.ndarray:
    """An image file as RGB, uint8, H x W x 3.

    Grey and RGBA images become RGB (alpha is dropped), 16 bits become 8; pixels lie as they are
    stored: an EXIF orientation is ignored, since boxes and masks refer to the stored pixels.
    Raises InputError if the file does not exist, and BadImageError if it cannot be decoded.
    """
    return cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION),
                        cv2.COLOR_BGR2RGB)


def read_upright_image(path: Path) -> np.ndarray:
    """As `read_image`, but turned as its EXIF orientation says: for pictures to look at."""
    return cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_stored_mask(path: Path) -> np.ndarray:
    """A stored pseudo mask, uint8, H x W x 2: 255 x CAM and 255 x Gaussian prior.

    Raises InputError if the file does not exist or cannot be decoded.
    """
    try:
        return _decode(path, cv2.IMREAD_COLOR)[..., :2]
    except InputError as error:  # --skip_bad is for images, not for our own masks
        state = 'is corrupted' if path.exists() else 'does not exist'
        raise InputError(f'the pseudo mask {path} {state}: make it with the cam stage\'s test.py '
                         '--resume, or check --maskpath') from error


def read_grey(path: Path) -> np.ndarray:
    """An image file of one channel, uint8 or uint16, H x W; errors as `read_image`, and InputError
    for colours or an alpha channel."""
    image = _decode(path, cv2.IMREAD_UNCHANGED)
    if image.ndim == 3 and (image.shape[2] != 3 or (image != image[..., :1]).any()):
        raise InputError(f'{path} has colours or an alpha channel: write grey levels, one channel')
    return image if image.ndim == 2 else image[..., 0]


def read_true_mask(path: Path, size: tuple[int, int] | None = None
                   ) -> tuple[np.ndarray, np.ndarray]:
    """A ground-truth mask -> (foreground, ignored), bool H x W each.

    Two values, one of them 0, are background and foreground. 255 beside one other value is
    ignored. An alpha channel over one colour is the mask. Masks with soft edges, from 0 to 255,
    are cut at half of the range.
    `size` = (H, W) of the image: a mask of the same shape and another scale is resized.
    Raises InputError for anything else, since no guess would be safe.
    """
    try:
        with Image.open(path) as file:
            values = np.asarray(file)
            has_alpha = file.mode in ('LA', 'RGBA', 'PA')
            if file.mode == 'P':  # in a palette of greys, white may be the index 0
                colours = np.asarray(file.convert('RGB'))
                is_grey = (colours == colours[..., :1]).all()
                if is_grey and len(np.unique(colours)) == len(np.unique(values)):
                    values = colours[..., 0]
    except DAMAGED as error:
        raise InputError(f'the ground-truth mask {path} '
                         f'{"is damaged" if path.exists() else "does not exist"}: replace it, or '
                         'move the folder of masks away') from error
    foreground, ignored = mask_of_values(values, has_alpha, path)
    if size and foreground.shape != size:
        (height, width), (h, w) = size, foreground.shape
        if abs(width * h - w * height) > max(w, h, width, height):
            raise InputError(f'the mask {path} has {w} x {h} pixels (width x height), its image '
                             f'{width} x {height}: it is turned, or belongs to another image')
        foreground, ignored = (resize_nearest(part.view(np.uint8), size) > 0
                               for part in (foreground, ignored))
    return foreground, ignored


def mask_of_values(values: np.ndarray, has_alpha: bool, path: Path
                   ) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of a mask file, H x W or H x W x C -> (foreground, ignored), as
    `read_true_mask`."""
    if has_alpha:
        values, alpha = values[..., :-1], values[..., -1]
        if (alpha != alpha[0, 0]).any():
            if (values != values[0, 0]).any():
                raise InputError(f'the mask {path} has colours and an alpha channel, and either '
                                 f'could be the mask: {MASK_ADVICE}')
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
                     f'{", ..." if len(found) > 6 else ""}, not 0 and one other: {MASK_ADVICE}')


def is_suspicious(foreground: np.ndarray) -> bool:
    """Whether a true mask, bool H x W, touches all four borders or covers over 95 %: probably it
    is inverted, or of something else."""
    borders = (foreground[0], foreground[-1], foreground[:, 0], foreground[:, -1])
    return bool(all(border.any() for border in borders) or foreground.mean() > 0.95)


def read_header(path: Path) -> tuple[tuple[int, int], int]:
    """(height, width) of an image file as stored, and its EXIF orientation (1: upright); errors as
    `read_image`."""
    try:
        with Image.open(path) as image:  # decodes nothing yet
            size, orientation = image.size[::-1], image.getexif().get(ORIENTATION, 1)
            if image.format == 'TIFF' and orientation != 1:  # OpenCV always turns it
                raise BadImageError(f'{path} is a TIFF with an orientation: rotate its pixels '
                                    '(mogrify -auto-orient)')
    except FileNotFoundError as error:
        raise _missing(path) from error
    except DAMAGED as error:
        raise _damaged(path) from error
    if size[0] * size[1] > MAX_PIXELS:
        raise BadImageError(f'{path} has {size[1]} x {size[0]} pixels, more than '
                            f'{MAX_PIXELS // 10**6} million: reduce it, or skip such images with '
                            '--skip_bad')
    return size, orientation


def _decode(path: Path, flags: int) -> np.ndarray:
    read_header(path)  # its limit on pixels
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise
        image = None
    if image is None:
        raise _damaged(path)
    return image


def _damaged(path: Path) -> BadImageError:
    return BadImageError(f'{path} cannot be read as an image (corrupted or truncated): replace it, '
                         'or skip such images with --skip_bad')


def _missing(path: Path) -> InputError:
    """The error of a file that does not exist; names one that is spelled alike: upper case, or
    accents in another Unicode form (macOS decomposes them)."""
    missing = next((p for p in (*reversed(path.parents), path) if not p.exists()), path)

    def plain(name: str) -> str:
        return normalize('NFC', name).casefold()

    similar = [entry for entry in missing.parent.iterdir() if entry.name != missing.name
               and plain(entry.name) == plain(missing.name)]
    return InputError(f'no image at {path}: ' + (
        f'there is {similar[0]}, whose name is spelled differently (upper case, or composed '
        'accents): write it so in the list' if similar else 'check the list and the folder'))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with half-pixel centres and without antialiasing; size = (height, width)."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_nearest(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour as OpenCV's INTER_NEAREST; size = (height, width)."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST)
