"""Outputs: written under a temporary name and renamed, so that no file is ever half written."""

import contextlib
import csv
import io
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import cv2
import numpy as np

from utils.errors import InputError

try:
    from isal import isal_zlib
except ImportError:  # it has no wheel for this platform
    isal_zlib = None
PNG_HEADER = 33  # bytes of the signature and the chunk IHDR
STAMP = b'tEXtstamp\0'


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then give it its name.

    Raises InputError if the file cannot be written; `path` is then unchanged.
    """
    temporary = path.with_name(f'.{uuid4().hex}.tmp')
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


def write_bytes(path: Path, content: bytes) -> None:
    atomic_write(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode(errors='surrogateescape'))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy."""
    atomic_write(path, lambda file: np.save(file, array, allow_pickle=False))


def write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=2) + '\n')


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if the file does not exist or holds something else."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_csv(path: Path, header: tuple, rows: Iterable[Iterable]) -> None:
    """Write a header and rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows([header, *rows])
    write_text(path, text.getvalue())


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an RGB image, uint8 H x W x 3, grey levels, uint8 H x W, or a mask, bool H x W (as 0
    and 255), as PNG."""
    if image.dtype == bool:
        image = 255 * image.view(np.uint8)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    write_bytes(path, cv2.imencode('.png', image)[1])


def encode_png(image: np.ndarray, stamp: str) -> bytes:
    """A PNG, quickly, of an image in OpenCV's order of channels, uint8 H x W x 3, with a text.

    Each row is stored as its difference to the row above (PNG's filter Up), which suits smooth
    maps, and compressed by isal, five times as fast as OpenCV does it.
    """
    height, width = image.shape[:2]
    pixels = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).reshape(height, 3 * width)
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = 2  # the filter Up
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
    compressed = isal_zlib.compress(rows, 1) if isal_zlib else zlib.compress(rows, 1)
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = (b'IHDR' + header, STAMP + stamp.encode('latin-1', 'replace'), b'IDAT' + compressed,
              b'IEND')
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(chunk) - 4) + chunk + struct.pack('>I', zlib.crc32(chunk))
        for chunk in chunks)


def read_stamp(path: Path) -> str | None:
    """The text that `encode_png` has written into a file; None without one."""
    try:
        with open(path, 'rb') as file:
            start = file.read(PNG_HEADER + 512)[PNG_HEADER:]
    except OSError:
        return None
    if start[4:4 + len(STAMP)] != STAMP:
        return None
    return start[4 + len(STAMP):8 + struct.unpack('>I', start[:4])[0]].decode('latin-1')


def source_of(path: Path) -> str:
    """What tells whether a file has been replaced: its size and modification time in ns."""
    status = path.stat()
    return f'{status.st_size}-{status.st_mtime_ns}'


def keep_settings(path: Path, settings: dict) -> None:
    """Write the settings of a run that may continue. Raises InputError if the file has others."""
    recorded = read_json(path)
    differing = [f'{name} {recorded.get(name)} instead of {value}'
                 for name, value in settings.items() if recorded.get(name) != value]
    if recorded and differing:
        raise InputError(f'{path.parent} belongs to another run ({"; ".join(differing)}): give '
                         'the same settings, or another --out')
    write_json(path, settings)
