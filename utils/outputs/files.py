"""Outputs: written under a temporary name and renamed, so that no file is ever half written."""

import contextlib
import json
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import cv2
import numpy as np

from utils.errors import InputError

try:
    from isal import isal_zlib
except ImportError:  # it has no wheel for this platform
    isal_zlib = None

STALE_AFTER_SECONDS = 3600  # seconds; an older temporary file is that of a run that was killed


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then give it its name.

    Raises InputError if the file cannot be written; `path` is then unchanged.
    """
    temporary = path.with_name(f'.{uuid4().hex}.tmp')  # not longer than a long name is
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, 'xb') as file:
            write(file)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f'cannot write {path} ({error.strerror or error}): '
                         'check the folder, its rights and the free space') from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def make_output_folder(path: Path) -> None:
    """Make the folder. Raises InputError if nothing can be written to it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'cannot make the output folder {path} ({error.strerror}): '
                         'choose another --savepath') from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f'the output folder {path} is read-only: choose another --savepath')


def remove_temporary_files(folder: Path) -> None:
    """Delete the temporary files that killed runs have left in the folder and below it. Those
    younger than an hour may belong to a process, here or on another machine, that is writing."""
    for root, _, names in os.walk(folder):
        for name in names:
            if name.startswith('.') and name.endswith('.tmp'):
                path = Path(root, name)
                with contextlib.suppress(OSError):
                    if time.time() - path.stat().st_mtime > STALE_AFTER_SECONDS:
                        path.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    atomic_write(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode(errors='surrogateescape'))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy."""
    atomic_write(path, lambda file: np.save(file, array, allow_pickle=False))


def write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=2) + '\n')


def keep_settings(path: Path, settings: dict) -> None:
    """Write the settings of a run that may continue. Raises InputError if the file has others."""
    try:
        if json.loads(path.read_text()) != settings:
            raise InputError(f'{path.parent} belongs to a run with other data or another '
                             'checkpoint: delete it, or give another --out')
    except (OSError, ValueError):
        write_json(path, settings)


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an RGB image, uint8 H x W x 3, grey levels, uint8 H x W, or a mask, bool H x W (as 0
    and 255), as PNG."""
    if image.dtype == bool:
        image = 255 * image.view(np.uint8)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    write_bytes(path, cv2.imencode('.png', image)[1])


def encode_png(image: np.ndarray) -> bytes:
    """A PNG, quickly, of an image in OpenCV's order of channels, uint8 H x W x 3.

    Each row is stored as its difference to the row above (PNG's filter Up), which suits smooth
    maps, and compressed by isal where it is installed; else OpenCV encodes. The pixels are equal.
    """
    if isal_zlib is None:
        # OpenCV's default strategy, RLE, takes the same time, but its files are 1.4 times as large.
        strategy = (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT)
        return cv2.imencode('.png', image, strategy)[1].tobytes()
    height, width = image.shape[:2]
    pixels = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).reshape(height, 3 * width)
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = 2  # the filter Up
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = ((b'IHDR', header), (b'IDAT', isal_zlib.compress(rows, 1)), (b'IEND', b''))
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(content)) + kind + content
        + struct.pack('>I', zlib.crc32(kind + content)) for kind, content in chunks)
