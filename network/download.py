"""Downloads: resumable, verified by a checksum, and renamed to their final name when complete."""

import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from network.errors import InputError

CHUNK = 1 << 20


def download(url: str, path: Path, checksum: str) -> Path:
    """Fetch `url` to `path` and return `path`.

    `checksum` is `ALGORITHM:HEX`, for example `sha256:19c8e357`; HEX may be only the beginning.
    The download continues an earlier attempt's `<path>.part` where the server allows it. Of
    several processes one downloads, and the others wait.
    Raises InputError when the server cannot be reached or the checksum differs.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if not (path.is_file() and has_checksum(path, checksum)):
                _fetch_whole(url, path, checksum)
    except (http.client.HTTPException, OSError) as error:
        raise InputError(f'cannot download {url} ({error}): '
                         f'put the file at {path} by hand') from error
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait until no other process of this machine downloads the file."""
    name = path.with_name(path.name + '.lock')
    while True:
        with open(name, 'wb') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_open_file(lock, name):
                continue  # the process before has deleted it: nobody else would wait for this lock
            try:
                yield
            finally:
                name.unlink()
            return


def _is_open_file(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _fetch_whole(url: str, path: Path, checksum: str) -> None:
    part = path.with_name(path.name + '.part')
    _fetch(url, part)
    if not has_checksum(part, checksum):
        part.unlink()
        raise InputError(f'{url} does not have the checksum {checksum}: '
                         f'run again, or put the right file at {path} by hand')
    os.replace(part, path)


def has_checksum(path: Path, checksum: str) -> bool:
    """Whether the file's digest begins as `checksum` (`ALGORITHM:HEX`) says."""
    algorithm, expected = checksum.split(':')
    return digest(path, algorithm).startswith(expected)


def digest(path: Path, algorithm: str = 'sha256') -> str:
    """The digest of a file, in hexadecimal."""
    found = hashlib.new(algorithm)
    with open(path, 'rb') as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _fetch(url: str, part: Path) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={'Range': f'bytes={done}-'} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # no bytes are left to download
            return
        raise
    with response:
        resumed = response.status == 206
        total = done * resumed + int(response.headers.get('Content-Length', 0))
        with (
            open(part, 'ab' if resumed else 'wb') as file,
            tqdm(total=total or None, initial=done * resumed, unit='B', unit_scale=True,
                 desc=part.stem) as bar,
        ):
            while chunk := response.read(CHUNK):
                bar.update(file.write(chunk))
    if total and part.stat().st_size != total:
        raise OSError(f'the connection broke after {part.stat().st_size} of {total} bytes: '
                      'the next run continues there')
