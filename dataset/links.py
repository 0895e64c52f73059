"""Links to the files of a large data set, to avoid a second copy."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from utils.errors import InputError
from utils.outputs.files import atomic_write

# The errors of os.link and os.symlink on file systems that do not support or allow links.
REFUSED = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP}


def link_file(source: Path, target: Path) -> None:
    """Link `target` to the file `source`; an existing target is kept.

    A hard link, which outlives the source's folder; on another file system a symbolic link; a copy
    if neither is possible. Raises InputError if the target cannot be made.
    """
    if target.exists():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # a symbolic link that leads nowhere
        real = source.resolve(strict=True)  # os.link would link the link
        if not (_allowed(os.link, real, target) or _allowed(os.symlink, real, target)):
            with open(real, 'rb') as content:
                atomic_write(target, lambda file: shutil.copyfileobj(content, file))
    except OSError as error:
        raise InputError(f'cannot link {source} to {target} ({error.strerror or error}): '
                         'check the folders, their rights and the free space') from error


def link_folder(source: Path, target: Path) -> None:
    """Make `target` a symbolic link to the folder `source`; an existing link is kept.

    Raises InputError if `target` is something else, or cannot be made.
    """
    try:
        if target.is_symlink() and not target.exists():
            target.unlink()
        if target.exists():
            if not target.samefile(source):
                raise InputError(f'{target} exists and is not {source}: move it away, or give '
                                 'another --out')
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.resolve(), target_is_directory=True)
    except OSError as error:
        raise InputError(f'cannot link {source} to {target} ({error.strerror or error}): '
                         'check the rights, or give --out the source folder') from error


def _allowed(make_link: Callable[[Path, Path], None], source: Path, target: Path) -> bool:
    try:
        make_link(source, target)
    except OSError as error:
        if error.errno in REFUSED:
            return False
        raise
    return True
