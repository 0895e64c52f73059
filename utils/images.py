"""Reading and resizing of images, RGB, uint8, H x W x 3, and of masks."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.errors import InputError, about

Image.MAX_IMAGE_PIXELS = 128_000_000  # Pillow refuses twice as many, more than any camera's
ORIENTATION = 0x0112  # EXIF
VOID = 255  # beside class indices: pixels that count as nothing
ADVICE = ('write masks of 0 and 255: trimaps as 255 * (value == 1), class indices or instance '
          'numbers as 255 * (value == the one meant)')


def read_image(path: Path) -> np.ndarray:
    """An image file as RGB, uint8, H x W x 3.

    Grey and RGBA images become RGB (alpha is dropped), 16 bits become 8; pixels lie as they are
    stored: an EXIF orientation is ignored, since boxes and masks refer to the stored pixels.
    Raises InputError if the file does not exist or cannot be decoded.
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
    except InputError as error:
        raise InputError(f'the pseudo mask {path} is missing or damaged: make it with the cam '
                         "stage's test.py --resume, or check --maskpath") from error


def read_grey(path: Path) -> np.ndarray:
    """An image file of one channel, uint8 or uint16, H x W; errors as `read_image`, and InputError
    for colours or an alpha channel."""
    image = _decode(path, cv2.IMREAD_UNCHANGED)
    if image.ndim == 3 and (image.shape[2] != 3 or (image != image[..., :1]).any()):
        raise InputError(f'{path} has colours or an alpha channel: write grey levels, one channel')
    return image if image.ndim == 2 else image[..., 0]


def read_header(path: Path) -> tuple[tuple[int, int], int]:
    """(height, width) of an image file as stored, and its EXIF orientation (1: upright); errors as
    `read_image`."""
    if not path.is_file():
        raise InputError(f'no image at {path}: check the list and the folder (names are '
                         'case-sensitive)')
    try:
        with Image.open(path) as image:  # decodes nothing yet
            orientation = image.getexif().get(ORIENTATION, 1)
            if image.format == 'TIFF' and orientation != 1:
                raise ValueError('OpenCV turns a TIFF with an orientation: rotate its pixels')
            return image.size[::-1], orientation
    except Exception as error:  # Pillow's plug-ins raise any on damaged headers
        raise _damaged(path, error) from error


def _decode(path: Path, flags: int) -> np.ndarray:
    read_header(path)  # its limit on pixels
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise
        raise _damaged(path, error.err) from error
    if image is None:
        raise _damaged(path, 'corrupted or truncated')
    return image


def _damaged(path: Path, reason: object) -> InputError:
    return InputError(f'{path} cannot be read as an image ({reason}): replace it, or leave it out')


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with half-pixel centres and without antialiasing; size = (height, width)."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_nearest(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour as OpenCV's INTER_NEAREST; size = (height, width)."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST)


# ---------------------------------------------------------------- ground-truth masks


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
