"""Image lists: which images there are, their classes, and their boxes where these are known."""

import os
import re
from array import array
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from posixpath import normpath
from xml.etree.ElementTree import Element, ParseError
from zlib import crc32

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import parse as parse_xml

from utils.errors import InputError, warn

MAX_LINE_LENGTH = 4096
NO_BOXES = np.empty((0, 4))
CUB_LINE = re.compile(r'\.\w+\s*,\s*[0-9]+\s*(,|$)')
KAGGLE_LINE = re.compile(r'^ImageId,|,n[0-9]{8} ')
KAGGLE_ADVICE = ('this is LOC_val_solution.csv or its like: dataset/prepare_imagenet.py makes the '
                 'lists from the folders and XML files')


@dataclass(frozen=True)
class ImageList:
    """The images of a list, in its order.

    Arguments:
        names: (N,) numpy str, the images' paths relative to `folder`. An array rather than a list,
            so that worker processes share its memory.
        labels: (N,) int64, from 0.
        boxes: for each image (K, 4) float64, xmin ymin xmax ymax in pixels of the original image;
            None if the list has no boxes.
        folder: the folder of the images.
        segmentation: the folder of the ground-truth masks; None if there are none.
        source: the list's file, for messages.
    """

    names: np.ndarray
    labels: np.ndarray
    boxes: Sequence[np.ndarray] | None
    folder: Path
    segmentation: Path | None = None
    source: Path = Path('list')

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return str(self.names[index])

    def path(self, index: int) -> Path:
        return self.folder / self.name(index)

    def mask_path(self, folder: Path, index: int) -> Path:
        """The file of the image's mask in a folder of masks: the same name, but PNG."""
        return folder / Path(self.name(index)).with_suffix('.png')

    def segmentation_path(self, index: int) -> Path | None:
        """The file of the image's ground-truth mask."""
        return self.segmentation and self.mask_path(self.segmentation, index)

    @property
    def class_names(self) -> list[str]:
        """The classes by their labels: the first folder of their images' names."""
        names = {label: name.rpartition('/')[0].partition('/')[0]
                 for label, name in zip(self.labels.tolist(), self.names.tolist(), strict=True)}
        return [names.get(label) or f'class {label}' for label in range(max(names) + 1)]

    def checksum(self) -> int:
        """A checksum of names and labels in their order."""
        return crc32(self.labels.tobytes(), crc32(self.names.tobytes()))


def list_path(datapath: Path, name: str) -> Path:
    """The file of the list called `name`: in the data folder, or a path that has a folder."""
    given = Path(name)
    return given if given.is_file() and given.name != name else datapath / name


def segmentation_folder(datapath: Path) -> Path | None:
    """The data folder's ground-truth masks; None if it has none."""
    folder = datapath / 'segmentation'
    return folder if folder.is_dir() else None


def read_cub_list(path: Path, classes: int, folder: Path = Path(),
                  segmentation: Path | None = None) -> ImageList:
    """Read lines `name,label,xmin ymin xmax ymax`, with a field for each box of the image; a list
    without boxes has `name,label`. Lines of equal name and label are one image with all their
    boxes, at the place of the first.

    Raises InputError, with the line's number, for anything else: a label outside 0 ... classes-1,
    a box without area, a name that leaves the data folder, lines with and without a box in one
    list, an image under two labels, two images that would share a mask.
    """
    names, labels, boxes, lines = [], array('q'), [], array('q')
    for number, line in read_lines(path):
        where = f'{path}, line {number}'
        name, label, *fields = _cub_fields(line, where)
        names.append(_image_name(name, where))
        labels.append(checked_label(label.strip(), classes, where))
        boxes.append([_checked_box(field, where) for field in fields])
        lines.append(number)
        if bool(fields) != bool(boxes[0]):
            raise InputError(f'{where}: some lines have a box and some have none: '
                             'give one to all or to none')
    if not names:
        raise InputError(f'{path} is empty: expected one line per image, '
                         '`name,label,xmin ymin xmax ymax`')
    names, labels, rows = _merge_rows(path, names, labels, lines)
    if rows:
        boxes = [[box for row in image for box in boxes[row]] for image in rows]
    return ImageList(names, labels, _as_arrays(boxes) if boxes[0] else None, folder, segmentation,
                     path)


def _as_arrays(boxes: list[list[tuple]]) -> Sequence[np.ndarray]:
    """(K, 4) for each image: where K is constant one array, whose memory processes share."""
    if len({len(found) for found in boxes}) == 1:
        return np.array(boxes, dtype=np.float64)
    return [np.array(found, dtype=np.float64) for found in boxes]


def _cub_fields(line: str, where: str) -> list[str]:
    fields = line.split(',')
    if len(fields) < 2 or KAGGLE_LINE.search(line):
        advice = (KAGGLE_ADVICE if len(fields) > 1 else 'correct the line' if len(line.split()) < 2
                  else 'separate name, label and boxes by commas')
        raise InputError(f'{where}: expected `name,label,xmin ymin xmax ymax`, '
                         f'found {line[:80]!r}: {advice}')
    return fields


def read_imagenet_list(path: Path, classes: int, folder: Path = Path(), *,
                       boxes: Path | None = None, wnids: Sequence[str] = (),
                       leave_out: frozenset[str] = frozenset(),
                       segmentation: Path | None = None) -> ImageList:
    """Read lines `name label`, except those whose name is in `leave_out`; equal lines are one
    image.

    `boxes`: the folder of the images' XML files, if boxes are needed. Of the objects in a file,
    those with the wnid of the image's label, `wnids[label]`, are kept.
    Raises InputError, with the line's number, for anything else.
    """
    names, labels, lines = [], array('q'), array('q')
    for number, line in read_lines(path):
        where = f'{path}, line {number}'
        name, label = _imagenet_fields(line, where)
        if name not in leave_out:
            names.append(_image_name(name, where))
            labels.append(checked_label(label, classes, where))
            lines.append(number)
    if not names:
        raise InputError(f'{path} is empty: expected one line per image, `name label`')
    names, labels, _ = _merge_rows(path, names, labels, lines)
    xml = XmlBoxes(names, labels, boxes, wnids) if boxes and boxes.is_dir() else None
    return ImageList(names, labels, xml, folder, segmentation, path)


def _imagenet_fields(line: str, where: str) -> list[str]:
    fields = line.rsplit(maxsplit=1)
    if ',' in line and (KAGGLE_LINE.search(line) or CUB_LINE.search(line)):
        raise InputError(f'{where}: expected `name label`, found {line[:80]!r}: '
                         + (KAGGLE_ADVICE if KAGGLE_LINE.search(line) else
                            'replace the comma by a space, or use the cub200 scripts'))
    if len(fields) < 2:
        raise InputError(f'{where}: expected `name label`, found {line[:80]!r}: correct the line')
    return fields


def _merge_rows(path: Path, names: list[str], labels: Sequence[int], lines: Sequence[int]
                ) -> tuple[np.ndarray, np.ndarray, list[list[int]] | None]:
    """Names, labels, and the rows of each image; None where each row is an image of its own."""
    all_names, all_labels = np.array(names), np.array(labels, dtype=np.int64)
    if len({hash(os.path.splitext(name)[0]) for name in names}) == len(names):
        return all_names, all_labels, None
    rows = _rows_of_images(path, names, labels, lines)
    if len(rows) < len(names):
        warn(f'{path}: {len(names)} lines are of {len(rows)} images; an image counts once, with '
             'the boxes of all its lines')
    first = [image[0] for image in rows]
    return all_names[first], all_labels[first], rows


def _rows_of_images(path: Path, names: list[str], labels: Sequence[int], lines: Sequence[int]
                    ) -> list[list[int]]:
    """The rows of each image, in the order of its first; `lines`: their numbers in the file.

    Raises InputError for an image under two labels, and for names that differ in their suffix
    alone: their masks would be one file.
    """
    images: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows = images.setdefault(os.path.splitext(name)[0], [])
        rows.append(row)
        first, where = rows[0], f'{path}, lines {lines[rows[0]]} and {lines[row]}'
        if name != names[first]:
            raise InputError(f'{where}: {name} and {names[first]} would share a mask: rename one '
                             'of them')
        if labels[row] != labels[first]:
            raise InputError(f'{where}: {name} has the labels {labels[first]} and {labels[row]}, '
                             'but an image has one class: delete one of the lines')
    return list(images.values())


def read_wnids(path: Path) -> list[str]:
    """The classes' wnids, one per line; a class's index is the number of its line, from 0."""
    return [line for _, line in read_lines(path)]


class XmlBoxes(Sequence):
    """The boxes of each image of a list, (K, 4) float64, read on access; an image without an XML
    file has none."""

    def __init__(self, names: np.ndarray, labels: np.ndarray, folder: Path,
                 wnids: Sequence[str]):
        self._names, self._labels, self._folder, self._wnids = names, labels, folder, wnids

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> np.ndarray:
        name = PurePosixPath(str(self._names[index])).with_suffix('.xml').name
        path = self._folder / name
        return read_xml_boxes(path, self._wnids[self._labels[index]]) if path.exists() else NO_BOXES


def read_xml_boxes(path: Path, wnid: str) -> np.ndarray:
    """The boxes of the objects called `wnid` in a PASCAL VOC style XML file, (K, 4) float64.

    Raises InputError if the file is missing, is not such XML, has a DTD, or has a box without
    area.
    """
    boxes = [[found.findtext(f'bndbox/{side}', '') for side in ('xmin', 'ymin', 'xmax', 'ymax')]
             for found in read_xml_objects(path) if found.findtext('name', '').strip() == wnid]
    return np.array([_checked_box(' '.join(box), str(path)) for box in boxes],
                    dtype=np.float64).reshape(-1, 4)


def read_xml_objects(path: Path) -> list[Element]:
    """The `object` elements of a PASCAL VOC style XML file; InputError as above."""
    try:
        return parse_xml(path, forbid_dtd=True).getroot().findall('object')
    except (OSError, ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise InputError(f'{path} is not a valid PASCAL VOC XML file ({error}): replace it'
                         ) from error


def _image_name(text: str, where: str) -> str:
    """The checked name; `./a.jpg` and `a.jpg` are one image."""
    name = checked_name(text.strip(), where)
    return normpath(name) if '//' in name or './' in name else name


def checked_name(name: str, where: str) -> str:
    """`name` if it is a relative path that stays in its folder, else InputError."""
    if '\\' in name:
        raise InputError(f'{where}: the name {name[:80]!r} has backslashes: write / instead')
    if (not name.strip('./') or name.startswith('/') or '\0' in name
            or ('..' in name and '..' in name.split('/'))):
        raise InputError(f'{where}: the name {name[:80]!r} does not stay in the data folder: '
                         'use a path relative to the image folder')
    return name


def checked_label(text: str, classes: int, where: str) -> int:
    """The label in `text` if it is an integer in 0 ... classes-1, else InputError."""
    label = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if not 0 <= label < classes:
        advice = ('if the labels count from 1, subtract 1, else correct --clsnum'
                  if label == classes else 'correct the line or --clsnum')
        raise InputError(f'{where}: the label {text[:80]!r} is not in 0 ... {classes - 1}: '
                         + advice)
    return label


def _checked_box(text: str, where: str) -> tuple[float, ...]:
    try:
        box = tuple(float(value) for value in text.split())
    except ValueError:
        box = ()
    if len(box) != 4 or not np.isfinite(box).all():
        raise InputError(f'{where}: expected a box `xmin ymin xmax ymax`, found {text[:80]!r}: '
                         'write four numbers with spaces between')
    if box[2] <= box[0] or box[3] <= box[1]:
        raise InputError(f'{where}: the box {text[:80]!r} has no area: xmax > xmin and ymax > ymin')
    return box


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and content of the lines that are not blank.

    Raises InputError for a file that is missing, cannot be read, or is UTF-16, and for overlong
    lines.
    """
    if not path.is_file():
        raise InputError(f'no list at {path}: check --datapath and --list')
    try:
        file = open(path, encoding='utf-8-sig', errors='surrogateescape')  # noqa: SIM115
    except OSError as error:
        raise InputError(f'{path} cannot be read ({error.strerror}): check its rights') from error
    with file:
        if file.buffer.peek(2)[:2] in (BOM_UTF16_LE, BOM_UTF16_BE):
            raise InputError(f'{path} is UTF-16, as PowerShell writes it: save it as UTF-8 '
                             '(Out-File -Encoding utf8)')
        lines = iter(lambda: file.readline(MAX_LINE_LENGTH + 1), '')
        for number, line in enumerate(lines, 1):
            if len(line) > MAX_LINE_LENGTH:
                raise InputError(f'{path}, line {number}: longer than {MAX_LINE_LENGTH} '
                                 'characters: this is not an image list')
            if line := line.strip():
                yield number, line
