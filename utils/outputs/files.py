"""Outputs: written under a temporary name and renamed, so that none is ever half there."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from utils.errors import InputError


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then give it its name.

    Raises InputError where the folder or the disk does not allow it; `path` is then as it was.
    """
    temporary = path.with_name(f'.{path.name}.{_writer()}.{threading.get_ident()}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, 'wb') as file:
            write(file)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f'cannot write {path} ({error.strerror or error}): '
                         'check the folder, its rights and the free space') from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def make_output_folder(path: Path) -> None:
    """Make the folder, or raise InputError where nothing could be written to it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'cannot make the output folder {path} ({error.strerror}): '
                         'choose another --savepath') from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f'the output folder {path} is read-only: choose another --savepath')
    _remove_leftovers(path)


def _remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of processes of this machine that were killed."""
    for temporary in folder.glob('.*.tmp'):
        host, _, process = temporary.suffixes[-3].rpartition('-') if (
            len(temporary.suffixes) > 2) else ('', '', '')
        if host == f'.{_host()}' and process.isdigit() and not _is_running(int(process)):
            with contextlib.suppress(OSError):
                temporary.unlink()


def _writer() -> str:
    return f'{_host()}-{os.getpid()}'


def _host() -> str:
    return socket.gethostname().replace('.', '_')


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode(errors='surrogateescape')))


def write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=2) + '\n')
