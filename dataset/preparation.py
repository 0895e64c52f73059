"""What the prepare_*.py scripts share: downloads, archives, links, lines of lists, stored masks."""

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import numpy as np

from utils.errors import InputError
from utils.files import atomic_write

# What Windows, macOS and network drives put into folders.
SYSTEM = {'@eadir', '@recycle', '#recycle', '#snapshot', '$recycle.bin', '__macosx', 'lost+found',
          'system volume information', 'thumbs.db', 'desktop.ini'}

Place = Callable[[Path, Path], None]  # links or moves a file


def download(url: str, path: Path, checksum: str | None = None) -> Path:
    """The file at `path`, downloaded unless it is there with this checksum."""
    import gdown

    try:
        gdown.cached_download(url, str(path), hash=checksum)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f'cannot download {url} ({reason}): get it by hand, and give it as '
                         '--source') from error
    return path


@contextmanager
def open_source(source: Path, out: Path) -> Iterator[tuple[Path, Place]]:
    """Yield a data folder, and the function that links or moves files out of it. `source`: the
    folder, or a zip or tar archive, which is unpacked beside `out`."""
    if source.is_dir():
        yield source, link_file
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f'.{out.name}.', dir=out.parent) as folder:
        unpack(source, Path(folder))
        try:
            yield Path(folder), move_file
        except InputError as error:  # name the archive, not the temporary folder
            raise InputError(str(error).replace(folder, str(source))) from error


def unpack(archive: Path, folder: Path) -> None:
    if not archive.is_file():
        raise InputError(f'no {archive}: give the archive or the unpacked folder')
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as members:
                members.extractall(folder)  # names stay in the folder, links become plain files
        else:
            with tarfile.open(archive) as members:
                members.extractall(folder, filter=only_files)
    except Exception as error:  # these modules raise a dozen kinds
        raise InputError(f'cannot unpack {archive} ({error}): get it again, and check the free '
                         'space') from error


def only_files(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """The filter `data` of tarfile, without links."""
    if member.issym() or member.islnk():
        raise tarfile.TarError(f'{member.name[:80]!r} is a link')
    return tarfile.data_filter(member, folder)


def find_root(folder: Path, marker: str, below: str) -> Path:
    """`folder`, or the folder `below` in it: the one that has `marker`."""
    for root in (folder, folder / below):
        if (root / marker).exists():
            return root
    raise InputError(f'no {marker} in {folder} or its {below}: this is not the official data')


def move_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)


def link_file(source: Path, target: Path) -> None:
    """Link `target` to the file `source`; an existing target is kept.

    A hard link, which outlives the source's folder; on another file system a symbolic link; a copy
    if neither is possible.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # a symbolic link that leads nowhere
    source = source.resolve(strict=True)  # os.link would link the link
    for make_link in (os.link, os.symlink):
        with suppress(OSError):  # the file system does not support it, or does not allow it
            make_link(source, target)
            return
    with open(source, 'rb') as content:
        atomic_write(target, lambda file: shutil.copyfileobj(content, file))


def link_folder(source: Path, target: Path) -> None:
    """Make `target` a symbolic link to the folder `source`; an existing one is kept. Raises
    InputError if `target` is something else."""
    if target.is_symlink() and not target.exists():
        target.unlink()
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.resolve(), target_is_directory=True)
    elif not target.samefile(source):
        raise InputError(f'{target} exists and is not {source}: move it away, or give another '
                         '--out')


def check_free(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f'{out} exists: move it away, or give another --out')


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `out` that takes its name at the end; after an error nothing is
    left of it. Raises InputError if `out` exists by then."""
    folder = out.with_name(f'.{out.name}.{uuid4().hex}')
    try:
        yield folder
        check_free(out)
        os.replace(folder, out)
    except InputError as error:
        raise InputError(str(error).replace(str(folder), str(out))) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or a system's (thumbnails, recycle bins)."""
    return name.startswith('.') or name.lower() in SYSTEM


def list_line(name: str, label: int, boxes: Iterable[Iterable[float]] = ()) -> str:
    """A line of a list in the CUB layout."""
    fields = (' '.join(f'{side:.10g}' for side in box) for box in boxes)
    return ','.join([name, str(label), *fields]) + '\n'


def stored_mask(foreground: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Masks, bool H x W -> the values of a file, uint8: 0 and 255, or with ignored pixels 0, 1 and
    255. One pixel at least is 0, without which 255 would be the foreground."""
    ignored = ignored & ~foreground
    if not ignored.any():
        return foreground * np.uint8(255)
    values = np.where(ignored, np.uint8(255), foreground.view(np.uint8))
    if values.all():
        values.flat[ignored.argmax()] = 0
    return values


def some(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    return ', '.join(names[:most]) + (', ...' if len(names) > most else '')
