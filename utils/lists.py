"""Image lists: which images there are, their classes, and their boxes where these are known.

The CUB-200-2011 layout of a data folder:

    train.txt, val.txt              `name,label,xmin ymin xmax ymax`
    image/<class>/<name>.jpg
    segmentation/<class>/<name>.png ground-truth masks; optional

The ImageNet-1K layout:

    train.txt, val.txt              `name label`; train names with their folder
    train/<wnid>/<name>.JPEG        val/<name>.JPEG
    box/<name>.xml                  boxes of the val images, PASCAL VOC style; optional
    segmentation/                   ground-truth masks; optional
    wnids.txt                       the classes, one per line, if they are not ImageNet-1K's
"""

import os
from array import array
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from posixpath import normpath
from xml.etree.ElementTree import ParseError
from zlib import crc32

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import parse as parse_xml

from utils.errors import InputError, warn
from utils.images import BadImageError, read_header

WNIDS = Path(__file__).resolve().parents[1] / 'dataset' / 'imagenet_wnids.txt'
WRONG_LABEL = 'ILSVRC2012_val_00033202.JPEG'  # left out where images are localized
SAMPLE = 256  # images of a list whose headers are looked at, which takes some tenths of a second


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

    @property
    def class_names(self) -> list[str]:
        """The classes by their labels: the first folder of their images' names."""
        names = {label: name.rpartition('/')[0].partition('/')[0]
                 for label, name in zip(self.labels.tolist(), self.names.tolist(), strict=True)}
        return [names.get(label) or f'class {label}' for label in range(max(names) + 1)]

    def checksum(self) -> int:
        """A checksum of names and labels in their order."""
        return crc32(self.labels.tobytes(), crc32(self.names.tobytes()))

    def sample(self, count: int) -> range:
        """At most `count` indices, evenly spread over the list, which is often sorted by class."""
        return range(0, len(self), -(-len(self) // count))


def cub_images(datapath: Path, name: str, classes: int) -> ImageList:
    """The images of a list in the CUB layout, a file in the data folder or a path. A line is
    `name,label`, with a further field for each box of the image, or with none in the whole list.
    Lines of equal name and label are one image with all their boxes.

    Raises InputError, with the line's number, for anything else: a label outside 0 ... classes-1,
    a box without area, a name that leaves the data folder, an image under two labels, two images
    that would share a mask; and for boxes of another scale than the images'.
    """
    def fields(line: str, where: str) -> list[str]:
        if ',' not in line:
            raise InputError(f'{where}: expected `name,label,xmin ymin xmax ymax`, found '
                             f'{line[:80]!r}: separate name, label and boxes by commas')
        return line.split(',')

    path = list_path(datapath, name)
    names, labels, rows = read_list(path, fields, classes)
    boxes: Sequence[np.ndarray] | None = None
    if rows[0]:
        boxes = [np.array(row, dtype=np.float64) for row in rows]
        if len({len(row) for row in rows}) == 1:
            boxes = np.array(boxes)  # one array, whose memory worker processes share
    return _checked(ImageList(names, labels, boxes, datapath / 'image', source=path), datapath)


def imagenet_images(datapath: Path, name: str, classes: int, split: str = 'train',
                    boxes: bool = False) -> ImageList:
    """The images of a list in the ImageNet layout, of lines `name label`; `split`: the folder of
    the images. With `boxes` (for localization) those of the XML files, without the one image whose
    label is known to be wrong. Raises InputError as `cub_images`."""
    def fields(line: str, where: str) -> list[str]:
        found = line.rsplit(maxsplit=1)
        if len(found) < 2 or ',' in line:
            raise InputError(f'{where}: expected `name label`, found {line[:80]!r}: correct the '
                             'line, or use the cub200 scripts for lists with commas')
        return found

    path, own, xml = list_path(datapath, name), datapath / 'wnids.txt', None
    wnids = [line for _, line in read_lines(own if own.is_file() else WNIDS)] if boxes else []
    names, labels, _ = read_list(path, fields, min(classes, len(wnids)) if boxes else classes,
                                 leave_out=WRONG_LABEL if boxes else None)
    if boxes and (datapath / 'box').is_dir():
        xml = XmlBoxes(names, [wnids[label] for label in labels], datapath / 'box')
    return _checked(ImageList(names, labels, xml, datapath / split, source=path), datapath)


def list_path(datapath: Path, name: str) -> Path:
    """The file of the list called `name`: in the data folder, or a path that has a folder."""
    given = Path(name)
    return given if given.is_file() and given.name != name else datapath / name


def read_list(path: Path, fields_of: Callable[[str, str], list[str]], classes: int,
              leave_out: str | None = None) -> tuple[np.ndarray, np.ndarray, list[list[tuple]]]:
    """The names, labels and boxes of the images of a list, whose lines `fields_of` splits into
    name, label and boxes. Raises InputError as `cub_images`."""
    names, labels, boxes, lines = [], array('q'), [], array('q')
    images: dict[str, int] = {}  # masks are called by the name without its suffix
    count = 0
    for number, line in read_lines(path):
        where = f'{path}, line {number}'
        name, text, *fields = fields_of(line, where)
        if name == leave_out:
            continue
        name, label = image_name(name, where), checked_label(text.strip(), classes, where)
        count += 1
        row = images.setdefault(os.path.splitext(name)[0], len(names))
        if row == len(names):
            names.append(name)
            labels.append(label)
            boxes.append([])
            lines.append(number)
        where_both = f'{path}, lines {lines[row]} and {number}'
        if name != names[row]:
            raise InputError(f'{where_both}: {name} and {names[row]} would share a mask: rename '
                             'one of them')
        if label != labels[row]:
            raise InputError(f'{where_both}: {name} has the labels {labels[row]} and {label}, but '
                             'an image has one class: delete one of the lines')
        boxes[row] += [parse_box(field, where) for field in fields]
        if bool(fields) != bool(boxes[0]):
            raise InputError(f'{where}: some lines have a box and some have none: give one to '
                             'all or to none')
    if not names:
        raise InputError(f'{path} is empty: expected one line per image')
    if len(names) < count:
        warn(f'{path}: {count} lines are of {len(names)} images; an image counts once, with the '
             'boxes of all its lines')
    return np.array(names), np.array(labels, np.int64), boxes


def _checked(images: ImageList, datapath: Path) -> ImageList:
    """The list with its folder of ground-truth masks, some of its files looked at."""
    segmentation = datapath / 'segmentation'
    if segmentation.is_dir():
        images = replace(images, segmentation=segmentation)
    check_files(images)
    return images


def check_files(images: ImageList) -> None:
    """Look at the headers of some images: warn of EXIF rotations, and check the boxes' scale.
    Raises InputError for a missing image, and as `check_scale`."""
    sizes, rotated = {}, 0
    for index in images.sample(SAMPLE):
        with suppress(BadImageError):  # reported, or skipped, when it is read
            sizes[index], orientation = read_header(images.path(index))
            rotated += orientation in range(2, 9)
    if rotated:
        warn(f'{images.source}: {rotated} of {len(sizes)} images looked at have an EXIF rotation, '
             'which is ignored here, but applied by tools/predict.py: boxes and masks must refer '
             'to the stored pixels; rotate the files (mogrify -auto-orient) before you draw boxes')
    if images.boxes is not None:
        check_scale([images.boxes[index] for index in sizes], list(sizes.values()),
                    [images.name(index) for index in sizes], images.source)


def check_scale(boxes: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]],
                names: Sequence[str], source: Path) -> None:
    """Check the boxes of images, (K, 4) each, against their sizes (H, W).

    Raises InputError where all are fractions of the images, one lies outside its image, or many
    reach far beyond theirs. Warns of a few that do, and where none comes near the image's end.
    """
    reach, beyond = [], []
    for found, (height, width), name in zip(boxes, sizes, names, strict=True):
        for box in found:
            if box[2] <= 0 or box[3] <= 0 or box[0] >= width or box[1] >= height:
                raise InputError(f'{source}: the box {" ".join(f"{value:g}" for value in box)} of '
                                 f'{name} lies outside its image of {width} x {height} pixels '
                                 '(width x height): boxes are in pixels of the stored image')
            reach.append(max(box[2] / width, box[3] / height))
            if reach[-1] > 1.05 or min(box[0] / width, box[1] / height) < -0.05:
                beyond.append(name)
    if reach and max(float(np.max(found, initial=0)) for found in boxes) <= 1:
        raise InputError(f'{source}: all boxes lie in 0 ... 1: they are fractions of the image '
                         '(YOLO?); multiply x by the width and y by the height')
    if len(beyond) > max(2, len(reach) / 10):
        raise InputError(f'{source}: {len(beyond)} of {len(reach)} boxes reach far beyond their '
                         f'images, the first is that of {beyond[0]}: they have another scale, or '
                         'are x y width height')
    if beyond:
        warn(f'{source}: {len(beyond)} of {len(reach)} boxes looked at reach far beyond their '
             f'images, the first is that of {beyond[0]}')
    if len(reach) >= 20 and max(reach) < 0.6:
        warn(f'{source}: no box reaches beyond {100 * max(reach):.0f} % of its image: do the boxes '
             'have the scale of smaller copies?')


@dataclass(frozen=True)
class XmlBoxes(Sequence):
    """The boxes of each image of a list, (K, 4) float64, read on access; an image without an XML
    file has none. Of the objects in a file, those with the wnid of the image's label count."""

    names: Sequence[str]
    wnids: Sequence[str]
    folder: Path

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        path = self.folder / PurePosixPath(str(self.names[index])).with_suffix('.xml').name
        objects = read_xml_objects(path) if path.exists() else []
        boxes = [box for wnid, box in objects if wnid == self.wnids[index]]
        return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def read_xml_objects(path: Path) -> list[tuple[str, tuple[float, ...]]]:
    """(wnid, box) of the objects in a PASCAL VOC style XML file. Raises InputError if the file is
    missing, is not such XML, has a DTD, or has a box without area."""
    try:
        objects = parse_xml(path, forbid_dtd=True).getroot().findall('object')
    except (OSError, ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise InputError(f'{path} is not a valid PASCAL VOC XML file ({error}): replace it'
                         ) from error
    return [(found.findtext('name', '').strip(), parse_box(' '.join(
        found.findtext(f'bndbox/{side}', '') for side in ('xmin', 'ymin', 'xmax', 'ymax')),
        str(path))) for found in objects]


def image_name(text: str, where: str) -> str:
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


def parse_box(text: str, where: str) -> tuple[float, ...]:
    """Four finite numbers with spaces between, xmin ymin xmax ymax; else InputError."""
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

    Raises InputError for a file that is missing, cannot be read, or is UTF-16.
    """
    try:
        file = open(path, encoding='utf-8-sig', errors='surrogateescape')  # noqa: SIM115
    except OSError as error:
        raise InputError(f'no list at {path} ({error.strerror}): check --datapath and --list'
                         ) from error
    with file:
        if file.buffer.peek(2)[:2] in (BOM_UTF16_LE, BOM_UTF16_BE):
            raise InputError(f'{path} is UTF-16, as PowerShell writes it: save it as UTF-8 '
                             '(Out-File -Encoding utf8)')
        for number, line in enumerate(file, 1):
            if line := line.strip():
                yield number, line
