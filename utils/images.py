"""Reading and resizing of images: RGB, uint8, H x W x 3."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.errors import InputError

Image.MAX_IMAGE_PIXELS = 128_000_000  # Pillow refuses twice as many, more than any camera's
ORIENTATION = 0x0112  # EXIF


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


def _damaged(path: Path, reason: object) -> BadImageError:
    return BadImageError(f'{path} cannot be read as an image ({reason}): replace it, or skip such '
                         'images with --skip_bad')


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with half-pixel centres and without antialiasing; size = (height, width)."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_nearest(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour as OpenCV's INTER_NEAREST; size = (height, width)."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST)
