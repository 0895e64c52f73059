"""Files of a large data set in a second place without a second copy."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from utils.errors import InputError
from utils.outputs.files import write_whole

# What os.link and os.symlink say where a file system or its rights do not allow them.
REFUSED = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP}


def link_file(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`; one that is there is kept.

    A hard link, which outlives the source's folder; on another file system a symbolic link;
    a copy where there is neither. Raises InputError where the target cannot be made.
    """
    if target.exists():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # a symbolic link that leads nowhere
        real = source.resolve(strict=True)  # os.link would link the link
        if not (_allowed(os.link, real, target) or _allowed(os.symlink, real, target)):
            with open(real, 'rb') as content:
                write_whole(target, lambda file: shutil.copyfileobj(content, file))
    except OSError as error:
        raise InputError(f'cannot link {source} to {target} ({error.strerror or error}): '
                         'check the folders, their rights and the free space') from error


def link_folder(source: Path, target: Path) -> None:
    """Make `target` a symbolic link to the folder `source`; one that is there is kept.

    Raises InputError where `target` is something else, or cannot be made.
    """
    try:
        if target.is_symlink() and not target.exists():
            target.unlink()
        if target.exists():
            if not target.samefile(source):
                raise InputError(f'{target} is there and is not {source}: move it away, or give '
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
