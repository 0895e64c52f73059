"""Image lists: which images there are, their class, and their boxes where these are known.

An `ImageList` holds a million names in a few dozen megabytes, and worker processes share it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from utils.errors import InputError

LONGEST_LINE = 4096


class PackedNames:
    """An immutable sequence of strings in two arrays: no Python object a name."""

    def __init__(self, names: Iterable[str]):
        encoded = [name.encode() for name in names]
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._bytes = b''.join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return self._bytes[start:self._ends[index]].decode()

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class ImageList:
    """The images of a list, in its order.

    names: relative path of each image; labels: (N,) int64, from 0;
    boxes: for each image (K, 4) float64, xmin ymin xmax ymax in pixels of the original image;
    None where the list has none.
    """

    names: PackedNames
    labels: np.ndarray
    boxes: Sequence[np.ndarray] | None

    def __len__(self) -> int:
        return len(self.labels)


def read_cub_list(path: Path, classes: int) -> ImageList:
    """Read lines `name,label,xmin ymin xmax ymax`; a list without boxes has `name,label`.

    Raises InputError, with the line's number, for anything else: a label outside 0 ... classes-1,
    a box with no area, a name that leaves the data folder, a mixture of lines with and without.
    """
    names, labels, boxes = [], [], []
    for number, line in _lines(path):
        fields = line.split(',')
        where = f'{path}, line {number}'
        if len(fields) not in (2, 3):
            raise InputError(f'{where}: expected `name,label,xmin ymin xmax ymax`, '
                             f'found {line[:80]!r}: mend the line')
        names.append(checked_name(fields[0], where))
        labels.append(checked_label(fields[1], classes, where))
        if len(fields) == 3:
            boxes.append(_checked_box(fields[2], where))
        if boxes and len(boxes) != len(names):
            raise InputError(f'{where}: some lines have a box and some have none: '
                             'give one to all or to none')
    if not names:
        raise InputError(f'{path} is empty: one line an image, `name,label,xmin ymin xmax ymax`')
    return ImageList(PackedNames(names), np.array(labels, dtype=np.int64),
                     np.array(boxes, dtype=np.float64)[:, None] if boxes else None)


def checked_name(name: str, where: str) -> str:
    """`name` if it is a relative path that stays in its folder, else InputError."""
    path = PurePosixPath(name)
    if not name or '\0' in name or '\\' in name or path.is_absolute() or '..' in path.parts:
        raise InputError(f'{where}: the name {name[:80]!r} does not stay in the data folder: '
                         'use a path relative to the image folder')
    return name


def checked_label(text: str, classes: int, where: str) -> int:
    """The label in `text` if it is an integer in 0 ... classes-1, else InputError."""
    label = int(text) if text.isascii() and text.strip().isdigit() else -1
    if not 0 <= label < classes:
        raise InputError(f'{where}: the label {text[:80]!r} is not in 0 ... {classes - 1}: '
                         'mend the line or --clsnum')
    return label


def _checked_box(text: str, where: str) -> tuple[float, ...]:
    try:
        box = tuple(float(value) for value in text.split())
    except ValueError:
        box = ()
    if len(box) != 4 or not np.isfinite(box).all():
        raise InputError(f'{where}: expected a box `xmin ymin xmax ymax`, found {text[:80]!r}')
    if box[2] <= box[0] or box[3] <= box[1]:
        raise InputError(f'{where}: the box {text[:80]!r} has no area: xmax > xmin and ymax > ymin')
    return box


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and content of the lines that are not blank."""
    if not path.is_file():
        raise InputError(f'no list at {path}: check --datapath and --list')
    with open(path, encoding='utf-8', errors='surrogateescape') as file:
        for number, line in enumerate(file, 1):
            if len(line) > LONGEST_LINE:
                raise InputError(f'{path}, line {number}: longer than {LONGEST_LINE} characters: '
                                 'this is no image list')
            if line := line.strip():
                yield number, line
