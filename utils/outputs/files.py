"""Outputs: written under a temporary name and renamed, so that no file is ever half written."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import cv2
import numpy as np

from utils.errors import InputError

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


def write_text(path: Path, text: str) -> None:
    atomic_write(path, lambda file: file.write(text.encode(errors='surrogateescape')))


def write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=2) + '\n')


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an RGB image, uint8 H x W x 3, or grey levels, uint8 H x W, as PNG."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    content = cv2.imencode('.png', image)[1]
    atomic_write(path, lambda file: file.write(content))
