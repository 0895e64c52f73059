"""Image lists: which images there are, their class, and their boxes where these are known.

An `ImageList` holds a million names in a few dozen megabytes, and worker processes share it.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, ParseError
from zlib import crc32

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import parse as parse_xml

from utils.errors import InputError

LONGEST_LINE = 4096
NO_BOXES = np.empty((0, 4))


class PackedNames:
    """An immutable sequence of strings in two arrays: no Python object a name."""

    def __init__(self, names: Iterable[str]):
        characters, ends = bytearray(), array('q')
        for name in names:
            characters += name.encode(errors='surrogateescape')
            ends.append(len(characters))
        self._bytes, self._ends = bytes(characters), np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return self._bytes[start:self._ends[index]].decode(errors='surrogateescape')

    def checksum(self) -> int:
        return crc32(self._ends.tobytes(), crc32(self._bytes))

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

    def checksum(self) -> int:
        """Of names and labels in their order: whether a list is still the same."""
        return crc32(self.labels.tobytes(), self.names.checksum())


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
        labels.append(checked_label(fields[1].strip(), classes, where))
        if len(fields) == 3:
            boxes.append(_checked_box(fields[2], where))
        if boxes and len(boxes) != len(names):
            raise InputError(f'{where}: some lines have a box and some have none: '
                             'give one to all or to none')
    if not names:
        raise InputError(f'{path} is empty: one line an image, `name,label,xmin ymin xmax ymax`')
    return ImageList(PackedNames(names), np.array(labels, dtype=np.int64),
                     np.array(boxes, dtype=np.float64)[:, None] if boxes else None)


def read_imagenet_list(path: Path, classes: int, boxes: Path | None = None,
                       wnids: Sequence[str] = (), leave_out: frozenset[str] = frozenset()
                       ) -> ImageList:
    """Read lines `name label`, but for the names to leave out.

    `boxes`: the folder of the images' XML files, where they are wanted and it exists; of the
    objects in them those count whose wnid is that of the image's label, `wnids[label]`.
    Raises InputError, with the line's number, for anything else.
    """
    labels = array('q')

    def names() -> Iterator[str]:
        for number, line in _lines(path):
            name, _, label = line.rpartition(' ')
            if name not in leave_out:
                where = f'{path}, line {number}'
                labels.append(checked_label(label, classes, where))
                yield checked_name(name, where)

    packed = PackedNames(names())
    if not packed:
        raise InputError(f'{path} is empty: one line an image, `name label`')
    labels = np.array(labels, dtype=np.int64)
    has_boxes = boxes is not None and boxes.is_dir()
    return ImageList(packed, labels, XmlBoxes(packed, labels, boxes, wnids) if has_boxes else None)


def read_wnids(path: Path) -> list[str]:
    """The classes' wnids, one a line; a class's index is the number of its line, from 0."""
    return [line for _, line in _lines(path)]


class XmlBoxes(Sequence):
    """The boxes of each image of a list, (K, 4) float64, read when they are asked for; an image
    without an XML file has none."""

    def __init__(self, names: PackedNames, labels: np.ndarray, folder: Path,
                 wnids: Sequence[str]):
        self._names, self._labels, self._folder, self._wnids = names, labels, folder, wnids

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> np.ndarray:
        name = PurePosixPath(self._names[index]).with_suffix('.xml').name
        path = self._folder / name
        return read_xml_boxes(path, self._wnids[self._labels[index]]) if path.exists() else NO_BOXES


def read_xml_boxes(path: Path, wnid: str) -> np.ndarray:
    """The boxes of the objects called `wnid` in a PASCAL VOC style XML file, (K, 4) float64.

    Raises InputError for a file that is missing, is no such XML, has a DTD, or has a
    box with no area.
    """
    boxes = [[found.findtext(f'bndbox/{side}', '') for side in ('xmin', 'ymin', 'xmax', 'ymax')]
             for found in read_xml_objects(path) if found.findtext('name') == wnid]
    return np.array([_checked_box(' '.join(box), str(path)) for box in boxes],
                    dtype=np.float64).reshape(-1, 4)


def read_xml_objects(path: Path) -> list[Element]:
    """The `object` elements of a PASCAL VOC style XML file; InputError as above."""
    try:
        return parse_xml(path, forbid_dtd=True).getroot().findall('object')
    except (OSError, ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise InputError(f'{path} is no XML with boxes ({error}): replace it') from error


def checked_name(name: str, where: str) -> str:
    """`name` if it is a relative path that stays in its folder, else InputError."""
    if (not name.strip('./') or name.startswith('/') or '\0' in name or '\\' in name
            or ('..' in name and '..' in name.split('/'))):
        raise InputError(f'{where}: the name {name[:80]!r} does not stay in the data folder: '
                         'use a path relative to the image folder')
    return name


def checked_label(text: str, classes: int, where: str) -> int:
    """The label in `text` if it is an integer in 0 ... classes-1, else InputError."""
    label = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
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
    try:
        file = open(path, encoding='utf-8-sig', errors='surrogateescape')  # noqa: SIM115
    except OSError as error:
        raise InputError(f'{path} cannot be read ({error.strerror}): check its rights') from error
    with file:
        lines = iter(lambda: file.readline(LONGEST_LINE + 1), '')
        for number, line in enumerate(lines, 1):
            if len(line) > LONGEST_LINE:
                raise InputError(f'{path}, line {number}: longer than {LONGEST_LINE} characters: '
                                 'this is no image list')
            if line := line.strip():
                yield number, line
