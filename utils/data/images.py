"""Reading and resizing of images: RGB, uint8, H x W x 3."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from unicodedata import normalize

import cv2
import numpy as np
from PIL import Image

from utils.data.lists import ImageList
from utils.errors import InputError, warn

MAX_PIXELS = 256_000_000  # more than any camera's; a header that claims more is an attack
SMALL, PIXELS_PER_BYTE = 89_000_000, 1000  # pixels; more need a file of some size
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow refuses twice as many
# What Pillow's plug-ins raise on damaged headers.
DAMAGED = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError,
           AttributeError, AssertionError, RuntimeError, struct.error, Image.DecompressionBombError)
PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
ORIENTATION, TIFF_WIDTH, TIFF_HEIGHT = 0x0112, 0x0100, 0x0101  # tags
# Orientation -> cv2.flip's code that turns an upright image back, transposed before if above 4.
FLIPS = {2: 1, 3: -1, 4: 0, 6: 0, 7: -1, 8: 1}
ROTATION_SAMPLE = 256  # images
NO_FOREGROUND = ('no ground-truth mask has foreground, which is white (255): write masks of 0 and '
                 '1 as 255 * mask, VOC palettes as 255 * (index > 0), trimaps as '
                 '255 * (value == 1)')


class BadImageError(InputError):
    """An image file that exists but cannot be decoded; skipped with --skip_bad."""


def read_image(path: Path) -> np.ndarray:
    """An image file as RGB, uint8, H x W x 3.

    Grey and RGBA images become RGB (alpha is dropped), 16 bits become 8; pixels lie as they are
    stored: an EXIF orientation is ignored, since boxes and masks refer to the stored pixels.
    Raises InputError if the file does not exist, and BadImageError if it cannot be decoded.
    """
    image = _decode(path, cv2.IMREAD_COLOR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_upright_image(path: Path) -> np.ndarray:
    """As `read_image`, but turned as its EXIF orientation says: for pictures to look at."""
    return cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR, upright=True), cv2.COLOR_BGR2RGB)


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


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image file as stored, from its header; errors as `read_image`."""
    try:
        with explain_lack_of_memory(path), open(path, 'rb') as file:
            return _read_header(file, path)[0]
    except OSError as error:
        raise _unreadable(path, error) from error


def _decode(path: Path, flags: int, upright: bool = False) -> np.ndarray:
    with explain_lack_of_memory(path):
        try:
            data = np.fromfile(path, np.uint8)
        except OSError as error:
            raise _unreadable(path, error) from error
        (height, width), orientation = _read_header(io.BytesIO(data.tobytes()), path)
        if height * width > max(SMALL, PIXELS_PER_BYTE * len(data)):
            raise _damaged(path)  # or made to fill the memory
        try:
            image = cv2.imdecode(data, flags | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION))
        except cv2.error as error:
            if error.code == cv2.Error.StsNoMem:
                raise
            image = None
        if image is None:
            raise _damaged(path, 8 * height * width)
    return image if upright else _as_stored(image, orientation)


def _read_header(file: BinaryIO, path: Path) -> tuple[tuple[int, int], int]:
    """(height, width) as stored, and the orientation of a TIFF, which OpenCV always applies."""
    try:
        start, orientation = file.read(24), 1
        file.seek(0)
        if start.startswith(PNG_SIGNATURE):  # Pillow limits texts and colour profiles to 1 MiB
            width, height = struct.unpack('>II', start[16:])
        else:
            with Image.open(file) as image:  # decodes nothing yet
                width, height = image.size
                if image.format == 'TIFF':
                    orientation = image.tag_v2.get(ORIENTATION, 1)
                    width, height = image.tag_v2[TIFF_WIDTH], image.tag_v2[TIFF_HEIGHT]
    except DAMAGED as error:
        raise _damaged(path) from error
    if height * width > MAX_PIXELS:  # OpenCV's own limit can be bypassed
        raise BadImageError(f'{path} has {width} x {height} pixels, more than '
                            f'{MAX_PIXELS // 10**6} million: reduce it, or skip such images with '
                            '--skip_bad')
    return (height, width), orientation


def _as_stored(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in (5, 6, 7, 8):
        image = cv2.transpose(image)
    return cv2.flip(image, FLIPS[orientation]) if orientation in FLIPS else image


@contextmanager
def explain_lack_of_memory(path: Path) -> Iterator[None]:
    """Turn running out of memory into an InputError that is no BadImageError."""
    try:
        yield
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            raise
        raise InputError(f'out of memory while {path} is read: close other programs, or try a '
                         'smaller --num_workers or --batch_size') from error


def _damaged(path: Path, memory: int = 2**28) -> BadImageError:
    """The error of a file that cannot be decoded although `memory` bytes are free, which decoders
    do not tell from a damaged file."""
    np.empty(memory, np.uint8)
    return BadImageError(f'{path} cannot be read as an image (corrupted or truncated): replace it, '
                         'or skip such images with --skip_bad')


def _unreadable(path: Path, error: OSError) -> InputError:
    if not isinstance(error, FileNotFoundError):
        return InputError(f'{path} cannot be read ({error.strerror}): check it')
    similar = _similar(path)
    return InputError(f'no image at {path}: ' + (
        f'there is {similar}, whose name is spelled differently (upper case, or composed '
        'accents): write it so in the list' if similar else 'check the list and the folder'))


def _similar(path: Path) -> Path | None:
    """What stands where `path` or a folder of it is missing, under the same name but for case and
    Unicode form (macOS decomposes accents)."""
    missing = next((p for p in (*reversed(path.parents), path) if not p.exists()), path)

    def plain(name: str) -> str:
        return normalize('NFC', name).casefold()

    return next((entry for entry in missing.parent.iterdir()
                 if plain(entry.name) == plain(missing.name) and entry.name != missing.name), None)


def warn_of_rotations(images: ImageList) -> None:
    """Print a warning where images have an EXIF rotation. Of a long list, only 256 headers are
    read, evenly spread, which takes some tenths of a second."""
    step = -(-len(images) // ROTATION_SAMPLE)
    looked_at = range(0, len(images), step)
    rotated = sum(is_rotated(images.path(index)) for index in looked_at)
    if rotated:
        warn(f'{images.source}: {rotated} of {len(looked_at)} images'
             f'{" looked at" if step > 1 else ""} have an EXIF rotation, which is ignored here, '
             'but applied by tools/predict.py: boxes and masks must refer to the stored pixels; '
             'rotate the files themselves (mogrify -auto-orient) before you draw boxes')


def is_rotated(path: Path) -> bool:
    """Whether the EXIF data ask for another orientation than that of the stored pixels."""
    try:
        with Image.open(path) as image:
            return image.getexif().get(ORIENTATION, 1) in range(2, 9)
    except DAMAGED:  # reported when the image is read
        return False


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with half-pixel centres and without antialiasing; size = (height, width)."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_nearest(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour as OpenCV's INTER_NEAREST; size = (height, width)."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST)
