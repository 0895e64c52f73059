"""Reading and resizing of images: RGB, uint8, H x W x 3."""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.errors import InputError

MAX_PIXELS = 89_000_000  # more than any camera's; a header that claims more is an attack


class BadImageError(InputError):
    """An image file that exists but cannot be decoded; skipped with --skip_bad."""


def read_image(path: Path) -> np.ndarray:
    """An image file as RGB, uint8, H x W x 3.

    Grey and RGBA images become RGB (alpha is dropped), 16 bits become 8; pixels lie as they are
    stored: an EXIF orientation is ignored, since boxes and masks refer to the stored pixels.
    Raises InputError if the file does not exist, and BadImageError if it cannot be decoded.
    """
    image = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_upright_image(path: Path) -> np.ndarray:
    """As `read_image`, but turned as its EXIF orientation says: for pictures to look at."""
    return cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_stored_mask(path: Path) -> np.ndarray:
    """A stored pseudo mask, uint8, H x W x 2: 255 x CAM and 255 x Gaussian prior.

    Raises InputError if the file does not exist or cannot be decoded.
    """
    if not path.exists():
        raise InputError(f'no pseudo mask at {path}: run the cam stage\'s test.py, or check '
                         '--maskpath')
    try:
        return _decode(path, cv2.IMREAD_COLOR)[..., :2]
    except BadImageError as error:  # --skip_bad is for images, not for our own masks
        raise InputError(f'{path} is corrupted: recreate it with the cam stage\'s test.py '
                         '--resume') from error


def read_binary_mask(path: Path) -> np.ndarray:
    """A ground-truth mask, bool, H x W: foreground is what exceeds half of the range.

    Raises InputError as `read_stored_mask`, and for colours, as those of a VOC palette.
    """
    try:
        return _grey(_decode(path, cv2.IMREAD_COLOR), path) > 127
    except BadImageError as error:
        raise InputError(f'{path} is corrupted: replace this ground-truth mask, or move the '
                         'segmentation folder away') from error


def read_grey(path: Path) -> np.ndarray:
    """An image file as grey levels, uint8 or uint16, H x W, whatever its depth; errors as
    `read_image`, and InputError for colours or an alpha channel."""
    return _grey(_decode(path, cv2.IMREAD_UNCHANGED), path)


def _grey(image: np.ndarray, path: Path) -> np.ndarray:
    """H x W of H x W, or of H x W x 3 whose channels are equal."""
    if image.ndim == 2:
        return image
    if image.shape[2] != 3 or (image != image[..., :1]).any():
        raise InputError(f'{path} has colours or an alpha channel: write it as grey levels, one '
                         'channel, before any colour map or palette (masks: 0 and 255)')
    return image[..., 0]


def _decode(path: Path, flags: int) -> np.ndarray:
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise InputError(f'no image at {path}: check the list and the folder') from None
    except OSError as error:
        raise InputError(f'{path} cannot be read ({error.strerror}): check it') from error
    try:
        image = cv2.imdecode(data, flags) if _has_allowed_size(data.tobytes()) else None
    except cv2.error:
        image = None
    if image is None:
        raise BadImageError(f'{path} cannot be read as an image (corrupted, truncated, or of more '
                            f'than {MAX_PIXELS} pixels): replace it, or skip such images with '
                            '--skip_bad')
    return image


def _has_allowed_size(data: bytes) -> bool:
    """Whether the header claims no more than MAX_PIXELS; OpenCV's own limit can be bypassed."""
    try:
        with Image.open(io.BytesIO(data)) as header:  # decodes nothing yet
            return header.width * header.height <= MAX_PIXELS
    except Exception:  # Pillow's plug-ins raise anything on damaged headers, even struct.error
        return False


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with half-pixel centres and without antialiasing; size = (height, width)."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_nearest(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour as OpenCV's INTER_NEAREST; size = (height, width)."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST)
