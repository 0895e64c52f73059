"""What the prepare_*.py scripts share: official data, links, output folders, lists, masks."""

import os
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from utils.arguments import Parser
from utils.errors import InputError, about

# What Windows, macOS and network drives put into folders.
SYSTEM = {'@eadir', '@recycle', '#recycle', '#snapshot', '$recycle.bin', '__macosx', 'lost+found',
          'system volume information', 'thumbs.db', 'desktop.ini'}


def add_source(parser: Parser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--download', action='store_true', help='fetch the archive, beside --out')
    source.add_argument('--source', type=Path, help='the archive, or the unpacked folder')


def download(url: str, path: Path, checksum: str | None = None) -> Path:
    """The file at `path`, downloaded unless it is there with this checksum."""
    import gdown

    with about(f'cannot download {url}: get it by hand, and give it as --source'):
        gdown.cached_download(url, str(path), hash=checksum)
    return path


def hidden_folder(out: Path) -> TemporaryDirectory:
    """A temporary folder on the file system of `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return TemporaryDirectory(prefix=f'.{out.name}.', dir=out.parent)


@contextmanager
def open_source(source: Path, out: Path, marker: str) -> Iterator[Path]:
    """Yield the folder of official data that has `marker`: `source` or a folder in it. `source` may
    be a zip or tar archive, which is unpacked beside `out` until the end."""
    with hidden_folder(out) as temporary:
        folder = source if source.is_dir() else Path(temporary)
        if not source.is_dir():
            with about(f'cannot unpack {source}: get it again'):
                unpack(source, folder)
        found = [*folder.glob(marker), *folder.glob(f'*/{marker}')]
        if not found:
            raise InputError(f'no {marker} in {source}: get the official data')
        yield found[0].parent


def unpack(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as members:
            members.extractall(folder)  # names stay in the folder, links become plain files
    else:
        with tarfile.open(archive) as members:
            members.extractall(folder, filter='data')


def link_file(source: Path, target: Path) -> None:
    """Link `target` to the file `source`; an existing target is kept.

    A hard link, which outlives the source's folder, or on another file system a symbolic link.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # a symbolic link that leads nowhere
    source = source.resolve(strict=True)
    try:
        os.link(source, target)
    except OSError:
        target.symlink_to(source)


def check_free(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f'{out} exists: move it away, or give another --out')


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `out` that takes its name at the end, which fails if `out` has
    files by then. After an error nothing is left of it."""
    with hidden_folder(out) as temporary:
        folder = Path(temporary, out.name)
        folder.mkdir()
        yield folder
        folder.replace(out)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or a system's (thumbnails, recycle bins)."""
    return name.startswith('.') or name.lower() in SYSTEM


def list_line(name: str, label: int, boxes: Iterable[Iterable[float]] = ()) -> str:
    """A line of a list in the CUB layout."""
    fields = (' '.join(f'{side:.10g}' for side in box) for box in boxes)
    return ','.join([name, str(label), *fields]) + '\n'


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The box (x0, y0, x1, y1) of a mask, uint8 H x W."""
    x, y, width, height = cv2.boundingRect(mask)
    return x, y, x + width, y + height


def stored_mask(foreground: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Masks, bool H x W -> the values of a file, uint8: 0 and 255, or with ignored pixels 0, 1 and
    255. One pixel at least is 0."""
    if not (ignored & ~foreground).any():
        return foreground * np.uint8(255)
    values = np.where(foreground, np.uint8(1), ignored * np.uint8(255))
    if values.all():
        values.flat[values.argmax()] = 0
    return values
