"""Reading, resizing and normalising images: one way for all stages.

Images are RGB, uint8, H x W x 3, until a whole batch is normalised at once.
"""

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.errors import InputError

MOST_PIXELS = 89_000_000  # a header that promises more is an attack
warnings.filterwarnings('ignore', module=r'PIL\.')  # what is wrong is said here, in one line
cv2.setNumThreads(0)  # loader workers and PyTorch share the cores already


class BadImageError(InputError):
    """An image file that is there, but cannot be decoded; --skip_bad leaves it out."""


def read_image(path: Path) -> np.ndarray:
    """An image file as RGB, uint8, H x W x 3.

    Grey and RGBA images become RGB (alpha is dropped), 16 bits become 8; pixels lie as they are
    stored: an EXIF orientation is ignored, since boxes and masks refer to the stored pixels.
    Raises InputError where there is no file, and BadImageError where it cannot be decoded.
    """
    image = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_stored_mask(path: Path) -> np.ndarray:
    """A stored pseudo mask, uint8, H x W x 2: 255 x CAM and 255 x Gaussian prior.

    Raises InputError where there is no file, or none that can be decoded.
    """
    if not path.exists():
        raise InputError(f'no pseudo mask at {path}: run the cam stage\'s test.py, or check '
                         '--maskpath')
    try:
        return _decode(path, cv2.IMREAD_COLOR)[..., :2]
    except BadImageError as error:  # masks are made, not found: none is left out
        raise InputError(f'{path} is damaged: make it anew with the cam stage\'s test.py '
                         '--resume') from error


def read_binary_mask(path: Path) -> np.ndarray:
    """A ground-truth mask, bool, H x W: foreground is what exceeds half of the range.

    Raises InputError as `read_stored_mask`.
    """
    try:
        return _decode(path, cv2.IMREAD_GRAYSCALE) > 127
    except BadImageError as error:
        raise InputError(f'{path} is damaged: replace this ground-truth mask, or move the '
                         'segmentation folder away') from error


def _decode(path: Path, flags: int) -> np.ndarray:
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise InputError(f'no image at {path}: check the list and the folder') from None
    except OSError as error:
        raise InputError(f'{path} cannot be read ({error.strerror}): check it') from error
    try:
        image = cv2.imdecode(data, flags) if _may_be_decoded(data.tobytes()) else None
    except cv2.error:
        image = None
    if image is None:
        raise BadImageError(f'{path} cannot be read as an image (damaged, cut off, or of more than '
                       f'{MOST_PIXELS} pixels): replace it, or leave such images out with '
                       '--skip_bad')
    return image


def _may_be_decoded(data: bytes) -> bool:
    """Whether the file promises no more than MOST_PIXELS, and a JPEG or a PNG has its end:
    decoders may fill what is missing with grey."""
    try:
        with Image.open(io.BytesIO(data)) as header:  # decodes nothing yet
            if header.width * header.height > MOST_PIXELS:
                return False
    except Exception:  # Pillow raises many kinds on damaged headers, and one on bombs
        return False
    if data.startswith(b'\xff\xd8'):
        return data.find(b'\xff\xd9', _first_scan(data)) > 0
    return not data.startswith(b'\x89PNG') or b'IEND' in data


def _first_scan(data: bytes) -> int:
    """Where a JPEG's pixels begin: its header may hold a preview with an end of its own."""
    place = 2
    while data[place:place + 1] == b'\xff' and data[place + 1:place + 2] != b'\xda':
        place += 2 + int.from_bytes(data[place + 2:place + 4], 'big')
    return place


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with half-pixel centres and without antialiasing; size = (height, width)."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_nearest(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour as OpenCV's INTER_NEAREST; size = (height, width)."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST)


def centre_crop(image: np.ndarray, crop: int) -> np.ndarray:
    """The central crop x crop pixels of an image of at least that size; 0 = the whole image."""
    if not crop:
        return image
    top, left = crop_offset(image.shape[0], crop), crop_offset(image.shape[1], crop)
    return image[top:top + crop, left:left + crop]


def crop_offset(size: int, crop: int) -> int:
    """Where a centre crop begins."""
    return (size - crop) // 2


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """A batch of bytes N x H x W x 3 -> float32 N x 3 x H x W, channels last in memory."""
    count, height, width, channels = images.shape
    # Along whole rows, not three values at a time: several times faster on the CPU.
    shift, scale = (torch.tensor(values, device=images.device).mul(255).repeat(width)
                    for values in (mean, std))
    rows = images.float().reshape(count * height, width * channels).sub_(shift).div_(scale)
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)
