"""Image lists: which images there are, their classes, and their boxes where these are known.

The CUB-200-2011 layout of a data folder (`utils/imagenet.py` has the other):

    train.txt, val.txt              `name,label,xmin ymin xmax ymax`
    image/<class>/<name>.jpg
    segmentation/<class>/<name>.png ground-truth masks; optional
"""

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from posixpath import normpath
from zlib import crc32

import numpy as np

from utils.errors import InputError, about, warn
from utils.images import read_header

SAMPLE = 256  # images of a list whose headers are looked at, which takes some tenths of a second


@dataclass(frozen=True)
class ImageList:
    """The images of a list, in its order.

    Arguments:
        names: (N,) numpy str, the images' paths relative to `folder`. Worker processes share the
            memory of an array, not that of a list.
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

    Raises InputError for anything else: a label outside 0 ... classes-1, a box without area, a
    name that leaves the data folder, an image under two labels, two images that would share a
    mask; and for boxes of another scale than the images'.
    """
    path = list_path(datapath, name)
    names, labels, boxes = read_list(path, classes, 'name,label,xmin ymin xmax ymax',
                                     lambda line: line.split(','))
    return checked(ImageList(names, labels, boxes, datapath / 'image', source=path), datapath)


def list_path(datapath: Path, name: str) -> Path:
    """The file of the list called `name`: in the data folder, or a path that has a folder."""
    given = Path(name)
    return given if given.is_file() and given.name != name else datapath / name


def read_list(path: Path, classes: int, form: str, split: Callable[[str], list[str]]
              ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray] | None]:
    """The names, labels and boxes of the images of a list, whose lines are of a `form` that
    `split` takes apart into name, label and boxes. Raises InputError as `cub_images`."""
    names, labels, boxes, count = [], array('q'), {}, 0
    rows: dict[str, int] = {}  # by the name without its suffix, which masks are called by
    for number, line in read_lines(path):
        where = f'{path}, line {number}'
        name, *fields = split(line)
        if not fields:
            raise InputError(f'{where}: expected `{form}`, found {line[:80]!r}')
        name, label = image_name(name, where), checked_label(fields[0].strip(), classes, where)
        row = rows.setdefault(os.path.splitext(name)[0], len(names))
        if row == len(names):
            names.append(name)
            labels.append(label)
        if (name, label) != (names[row], labels[row]):
            raise InputError(f'{where}: {name} of class {label}, after {names[row]} of class '
                             f'{labels[row]}: an image has one class, and two images have no mask '
                             '(NAME.png) in common')
        if fields[1:]:
            boxes.setdefault(row, []).extend(parse_box(field, where) for field in fields[1:])
        count += 1
    if not names:
        raise InputError(f'{path} is empty: expected one line per image')
    if 0 < len(boxes) < len(names):
        first = next(name for row, name in enumerate(names) if row not in boxes)
        raise InputError(f'{path}: {len(names) - len(boxes)} of {len(names)} images have no box, '
                         f'the first is {first}: give a box to all or to none')
    if len(names) < count:
        warn(f'{path}: {count} lines are of {len(names)} images; an image counts once, with the '
             'boxes of all its lines')
    return np.array(names), np.array(labels), [
        np.array(boxes[row], np.float64) for row in range(len(names))] if boxes else None


def checked(images: ImageList, datapath: Path) -> ImageList:
    """The list with its folder of ground-truth masks. Looks at the headers of some images; warns of
    EXIF rotations. Raises InputError for an image without one, and as `check_scale`."""
    looked_at = images.sample(SAMPLE)
    headers = [read_header(images.path(index)) for index in looked_at]
    rotated = sum(orientation in range(2, 9) for _, orientation in headers)
    if rotated:
        warn(f'{images.source}: {rotated} of {len(headers)} images looked at have an EXIF rotation '
             'that is ignored here, but applied by tools/predict.py: boxes and masks must refer '
             'to the stored pixels; rotate the files (mogrify -auto-orient) before you draw boxes')
    if images.boxes is not None:
        check_scale([images.boxes[index] for index in looked_at], [size for size, _ in headers],
                    [images.name(index) for index in looked_at], images.source)
    masks = datapath / 'segmentation'
    return replace(images, segmentation=masks) if masks.is_dir() else images


def check_scale(boxes: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]],
                names: Sequence[str], source: Path) -> None:
    """Check the boxes of images, (K, 4) each, against their sizes (H, W).

    Raises InputError where all are fractions of the images, one lies outside its image, or many
    reach far beyond theirs. Warns of a few that do, and where none comes near the image's end.
    """
    owner = np.repeat(np.arange(len(boxes)), [len(found) for found in boxes])
    if not len(owner):
        return
    every = np.concatenate(list(boxes)).astype(float)
    size = np.array(sizes, float)[owner, ::-1]  # width, height
    start, end = every[:, :2] / size, every[:, 2:] / size
    outside = ((end <= 0) | (start >= 1)).any(1)
    beyond = ((end > 1.05) | (start < -0.05)).any(1)
    far = (f'{beyond.sum()} of {len(every)} boxes looked at reach far beyond their images, the '
           f'first is that of {names[owner[beyond.argmax()]]}')
    fault = ''
    if outside.any():
        row = outside.argmax()
        fault = (f'the box {" ".join(f"{side:g}" for side in every[row])} of {names[owner[row]]} '
                 f'lies outside its image of {size[row, 0]:g} x {size[row, 1]:g} pixels (width x '
                 'height)')
    elif every.max() <= 1:
        fault = ('all boxes lie in 0 ... 1: they are fractions of the image (YOLO?); multiply x by '
                 'the width and y by the height')
    elif beyond.sum() > max(2, len(every) / 10):
        fault = f'{far}: they have another scale, or are x y width height'
    if fault:
        raise InputError(f'{source}: {fault}')
    if beyond.any():
        warn(f'{source}: {far}')
    if len(every) >= 20 and end.max() < 0.6:
        warn(f'{source}: no box reaches beyond {100 * end.max():.0f} % of its image: do the boxes '
             'have the scale of smaller copies?')


def check_selection(images: ImageList, selection: ImageList | None) -> None:
    """Refuse to choose a threshold on images that are then tested, or that have no boxes."""
    if selection is None:
        return
    if selection.boxes is None:
        raise InputError(f'{selection.source} has no boxes: choose a list that has for --select')
    shared = set(selection.names.tolist()) & set(images.names.tolist())
    if shared and selection.folder == images.folder:
        raise InputError(f'--select: {len(shared)} images of {selection.source} are also tested, '
                         f'such as {min(shared)}: choose the threshold on other images')


def image_name(text: str, where: str) -> str:
    """The checked name; `./a.jpg` and `a.jpg` are one image."""
    name = checked_name(text.strip(), where)
    return normpath(name) if '//' in name or './' in name else name


def checked_name(name: str, where: str) -> str:
    """`name` if it is a relative path that stays in its folder, else InputError."""
    if ('\\' in name or not name.strip('./') or name.startswith('/')
            or ('..' in name and '..' in name.split('/'))):
        raise InputError(f'{where}: the name {name[:80]!r} does not stay in the data folder: use '
                         'a path relative to the image folder, with / and without backslashes')
    return name


def checked_label(text: str, classes: int, where: str) -> int:
    """The label in `text` if it is an integer in 0 ... classes-1, else InputError."""
    label = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if not 0 <= label < classes:
        raise InputError(f'{where}: the label {text[:80]!r} is not in 0 ... {classes - 1}: correct '
                         'it or --clsnum; if the labels count from 1, subtract 1')
    return label


def parse_box(text: str, where: str) -> tuple[float, ...]:
    """Four finite numbers with spaces between, xmin ymin xmax ymax; else InputError."""
    try:
        box = tuple(float(value) for value in text.split())
    except ValueError:
        box = ()
    if len(box) != 4 or not np.isfinite(box).all() or box[2] <= box[0] or box[3] <= box[1]:
        raise InputError(f'{where}: expected a box `xmin ymin xmax ymax`, four numbers with spaces '
                         f'between, xmax > xmin and ymax > ymin, found {text[:80]!r}')
    return box


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and content of the lines that are not blank. Raises InputError for a file
    that is missing, cannot be read, or is UTF-16."""
    with (about(f'no list at {path} (check --datapath and --list)'),
          open(path, encoding='utf-8-sig', errors='surrogateescape') as file):
        for number, line in enumerate(file, 1):
            if '\0' in line:
                raise InputError(f'{path}, line {number}: a NUL character: if the file is UTF-16, '
                                 'as PowerShell writes it, save it as UTF-8')
            if line := line.strip():
                yield number, line
