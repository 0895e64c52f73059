"""Bring class folders of images into the CUB layout that the stages read.

    python dataset/prepare_folder.py photos --out dataset/mine
    python dataset/prepare_folder.py photos --out dataset/mine --masks masks       with ground truth
    python dataset/prepare_folder.py photos --out dataset/mine --boxes boxes.csv

    photos/<class>/<name>.jpg       torchvision's ImageFolder layout, with any folders in between
    masks/<class>/<name>.png        also <name>_mask.png, with any image's suffix, or in one folder
    boxes.csv                       <class>/<name>.jpg,xmin,ymin,xmax,ymax    a line for each box

    <out>/image/                    the images, linked
    <out>/segmentation/             the masks as PNG: 0 and 255; 0, 1 and 255 where 255 is ignored
    <out>/train.txt, <out>/val.txt  <class>/<name>.jpg,<label>,<xmin> <ymin> <xmax> <ymax>

Labels count from 0, in the order of the class folders' names. Each class is split by --val and
--seed; identical files are on the same side, in training if several classes have them. With --val 0
there is no val.txt. Links to folders are followed; hidden and system folders are left out.

Masks have two values, one of them 0, and 255 beside them where pixels are ignored; an image's box
is that of its whole mask. Boxes are in pixels, xmax and ymax exclusive; a table with a header may
have further columns. Masks and boxes refer to the stored pixels: an EXIF rotation is ignored.

<out> appears when all is done; nothing else is written. Then: bash demo.sh --data <out>
"""

import csv
import hashlib
import os
import re
import sys
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

import utils.errors  # noqa: F401  # it says how to install what is missing below

# isort: split
import numpy as np
from preparation import building, check_free, is_hidden, link_file, list_line, mask_box, stored_mask
from tqdm import tqdm

from utils.arguments import Parser, fraction, nonnegative_int
from utils.errors import InputError, run, warn
from utils.files import write_png, write_text
from utils.images import is_suspicious, read_image, read_true_mask
from utils.lists import check_scale, parse_box

# Those of ImageFolder, and .jfif, as some browsers save JPEG.
SUFFIXES = {'.jpg', '.jpeg', '.jfif', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp'}
MASK_SUFFIXES = SUFFIXES | {'.gif'}
MASK_WORD = re.compile(r'[_. -](mask|seg|segmentation|groundtruth|gt)\d*$', re.IGNORECASE)
# Names of folders that are above class folders.
NO_CLASSES = {'train', 'training', 'val', 'valid', 'validation', 'test', 'testing', 'image',
              'images', 'mask', 'masks', 'segmentation', 'segmentations', 'annotations', 'labels'}
# What a header calls the columns of a box.
CORNERS = {'xmin ymin xmax ymax', 'x0 y0 x1 y1', 'x1 y1 x2 y2'}


class Sample(NamedTuple):
    """An image under the name that the lists will have, and what is found out about it."""

    source: Path
    name: str
    label: int
    mask: Path | None = None
    boxes: Sequence[tuple[float, ...]] = ()
    size: tuple[int, int] = (0, 0)
    digest: bytes = b''
    is_suspicious: bool = False  # its mask
    problem: str = ''            # why the image cannot be used


def find_classes(folder: Path, least: int = 2) -> list[str]:
    """The names of the class folders, sorted. Raises InputError for fewer than `least`."""
    entries = sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name))
    classes = [entry.name for entry in entries if entry.is_dir()]
    above = [name for name in classes if name.lower() in NO_CLASSES]
    if len(above) > 1:
        raise InputError(f'{folder} has the folders {some(above)}, not classes: give the one that '
                         f'has the class folders, as {folder / above[0]}, and masks with --masks; '
                         'to keep a split, prepare each part with --val 0 and another --out')
    if len(classes) < least:
        raise InputError(f'{folder} has {len(classes)} class folders, not {least} or more')
    if loose := [entry.name for entry in entries if not entry.is_dir()]:
        warn(f'{len(loose)} files beside the class folders are left out: {some(loose)}')
    return classes


def find_images(folder: Path, classes: list[str]) -> tuple[list[Sample], list[str]]:
    """The images below each class folder, sorted, and the names of the other files."""
    samples, others = [], []
    for label, name in enumerate(classes):
        files = files_below(folder / name)
        images = [file for file in files if file.suffix.lower() in SUFFIXES]
        others += [file.name for file in files if file.suffix.lower() not in SUFFIXES]
        samples += [Sample(file, file.relative_to(folder).as_posix(), label) for file in images]
    if not samples:
        raise InputError(f'no image in the class folders of {folder}')
    check_names([sample.name for sample in samples])
    return samples, others


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and below it, sorted, without hidden ones; each folder once."""
    found, seen = [], set()
    for root, below, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        below[:] = [] if real in seen else [name for name in below if not is_hidden(name)]
        if real not in seen:
            found += [Path(root, name) for name in names if not is_hidden(name)]
        seen.add(real)
    return sorted(found)


def check_names(names: list[str]) -> None:
    """Refuse names that a list cannot hold, or that differ in a suffix or in "_mask" alone."""
    stems, seen = {os.path.splitext(name)[0] for name in names}, {}
    for name in names:
        if set(name) & set(',\n\r\\') or name != name.strip():
            raise InputError(f'{name!r}: no comma, backslash, line break or outer space: rename it')
        stem = os.path.splitext(name)[0]
        bare = MASK_WORD.sub('', stem)
        other = seen.setdefault(bare if bare in stems else stem, name)
        if other != name:
            raise InputError(f'{other} and {name} would share a mask: if one is the mask, move it '
                             'into another folder, and give that with --masks; else rename it')


def some(names: list[str]) -> str:
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')


def plain(name: str) -> str:
    """A file's name without its suffix, the accents composed (macOS decomposes them)."""
    return normalize('NFC', os.path.splitext(name)[0])


def index_names(samples: list[Sample]) -> dict[str, list[int]]:
    """{name without suffix: the indices of the images}, by the path and by the file name alone."""
    index = defaultdict(list)
    for position, sample in enumerate(samples):
        path = plain(sample.name)
        index[path].append(position)
        index[path.rpartition('/')[2]].append(position)
    return index


def add_masks(samples: list[Sample], folder: Path) -> list[Sample]:
    """The samples with their masks, which have the path of the image, or its file name where only
    one image has it."""
    index, masks = index_names(samples), defaultdict(list)
    files = files_below(folder)
    for file in files:
        stem = plain(file.relative_to(folder).as_posix())
        found = index.get(stem) or index.get(MASK_WORD.sub('', stem), [])
        if len(found) == 1 and file.suffix.lower() in MASK_SUFFIXES:
            masks[found[0]].append(file)
    if not masks:
        stem = plain(samples[0].name)
        raise InputError(f'no mask in {folder} fits an image: looked for {stem}.png, '
                         f'{stem}_mask.png and the like, found {some(list(map(str, files)))}')
    result = []
    for position, sample in enumerate(samples):
        found = masks[position]
        if len(found) == 1:
            result.append(sample._replace(mask=found[0]))
        else:
            result.append(sample._replace(problem=f'it has {len(found)} masks in {folder}'))
    return result


def add_boxes(samples: list[Sample], path: Path) -> list[Sample]:
    """The samples with all their boxes. A row names an image by its path, or by its file name where
    only one image has it."""
    index, boxes = index_names(samples), defaultdict(list)
    for where, name, box in read_boxes(path):
        found = index.get(plain(name), [])
        if len(found) != 1:
            raise InputError(f'{where}: {len(found) or "no"} images are called {name[:80]!r}: '
                             f'names are as {samples[0].name!r}')
        boxes[found[0]].append(box)
    return [sample._replace(boxes=boxes[position],
                            problem='' if boxes[position] else f'it has no box in {path}')
            for position, sample in enumerate(samples)]


def read_boxes(path: Path) -> Iterator[tuple[str, str, tuple[float, ...]]]:
    """(file and line, name, box) of the rows that are not empty; delimiters are , ; or tabs."""
    content = path.read_bytes()
    is_utf16 = content.startswith((b'\xff\xfe', b'\xfe\xff'))
    text = content.decode('utf-16' if is_utf16 else 'utf-8-sig', errors='replace')
    delimiter = max(',;\t', key=text.partition('\n')[0].count)
    rows, count = csv.reader(text.splitlines(), delimiter=delimiter), 5
    for row in rows:
        name, *sides = fields = [field.strip() for field in row] or ['']
        if ' '.join(sides[:4]).lower() in CORNERS:
            count = len(fields)
        elif any(fields):
            where = f'{path}, line {rows.line_num}'
            if len(fields) != count:
                raise InputError(f'{where}: expected name,xmin,ymin,xmax,ymax in pixels, found '
                                 f'{",".join(fields)[:80]!r}')
            yield where, name, parse_box(' '.join(sides[:4]).replace(',', '.'), where)


def prepare_sample(sample: Sample, folder: Path, read_mask: Callable) -> Sample:
    """Check an image and its ground truth, and put both in `folder`, if nothing is wrong."""
    if sample.problem:
        return sample
    try:
        size = read_image(sample.source).shape[:2]
        foreground, ignored = read_mask(sample.mask, size) if sample.mask else (None, None)
    except InputError as error:
        return sample._replace(problem=str(error))
    sample = sample._replace(size=size, digest=hashlib.sha256(sample.source.read_bytes()).digest())
    if sample.mask:
        if not foreground.any():
            return sample._replace(problem=f'{sample.mask} is a mask without foreground')
        sample = sample._replace(boxes=[mask_box(foreground.view(np.uint8))],
                                 is_suspicious=is_suspicious(foreground))
        write_png(folder / 'segmentation' / Path(sample.name).with_suffix('.png'),
                  stored_mask(foreground, ignored))
    link_file(sample.source, folder / 'image' / sample.name)
    return sample


def split(images: list[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(train, val). Of each class about `share` is val: at least one image, if it has two, and
    never all. Identical files are on the same side; those of several classes are in train."""
    classes_of, in_val = defaultdict(set), set()
    for image in images:
        classes_of[image.digest].add(image.label)
    for label in sorted(set.union(*classes_of.values())):
        copies = Counter(image.digest for image in images if image.label == label)
        count = copies.total()
        wanted = min(max(int(share * count + 0.5), 1), count - 1) if share else 0
        free = [digest for digest in copies if len(classes_of[digest]) == 1]
        for index in np.random.default_rng([seed, label]).permutation(len(free)):
            if copies[free[index]] <= wanted:
                in_val.add(free[index])
                wanted -= copies[free[index]]
    return ([image for image in images if image.digest not in in_val],
            [image for image in images if image.digest in in_val])


def prepare(samples: list[Sample], classes: Sequence[str], out: Path, args: Namespace,
            read_mask: Callable = read_true_mask) -> str:
    """Make the folder `out`; returns what is in it, in a line. `args`: those of `add_split`."""
    with building(out) as folder:
        with ThreadPoolExecutor() as pool:
            work = pool.map(partial(prepare_sample, folder=folder, read_mask=read_mask), samples)
            samples = list(tqdm(work, out.name, len(samples), unit='img', disable=None))
        images = checked(samples, classes, args.skip_bad)
        train, val = split(images, args.val, args.seed)
        for name, part in (('train.txt', train), ('val.txt', val)):
            if part:
                write_text(folder / name, ''.join(
                    list_line(image.name, image.label, image.boxes) for image in part))
    masks = sum(image.mask is not None for image in images)
    return (f'{len(classes)} classes, {len(train)} training and {len(val)} val images, '
            f'{masks or "no"} masks')


def checked(samples: list[Sample], classes: Sequence[str], skip_bad: bool) -> list[Sample]:
    """The samples without problems. Raises InputError for others unless `skip_bad`, for classes
    without images, and for boxes of another scale; warns about what may be a mistake."""
    images = [sample for sample in samples if not sample.problem]
    if bad := [sample for sample in samples if sample.problem]:
        text = f'{len(bad)} of {len(samples)} images cannot be used: ' + '; '.join(
            f'{sample.name}: {sample.problem}' for sample in bad[:3])
        if not skip_bad:
            raise InputError(f'{text}; correct this, or leave these images out with --skip_bad')
        warn(f'{text}; they are left out')
    labels = {image.label for image in images}
    empty = [name for label, name in enumerate(classes) if label not in labels]
    if empty:
        raise InputError(f'{len(empty)} of {len(classes)} classes have no usable image '
                         f'({some(empty)}): remove their folders, or add images')
    check_scale([np.array(image.boxes).reshape(-1, 4) for image in images],
                [image.size for image in images], [image.name for image in images], Path('--boxes'))
    suspicious = sum(image.is_suspicious for image in images)
    if suspicious > len(images) / 2:
        warn(f'{suspicious} of {len(images)} masks touch all four borders or cover over 95 %: are '
             'they inverted?')
    return images


def add_split(parser: Parser) -> None:
    add = parser.add_argument
    add('--val', type=fraction, default=0.3, help='the share of each class that is val')
    add('--seed', type=nonnegative_int, default=0, help='seed of the split')
    add('--skip_bad', action='store_true', help='leave out images that something is wrong with')


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('folder', type=Path, help='the folder that has the class folders')
    add('--out', type=Path, required=True, help='the data folder to make')
    truth = parser.add_mutually_exclusive_group()
    truth.add_argument('--masks', type=Path, metavar='DIR', help='ground-truth masks')
    truth.add_argument('--boxes', type=Path, metavar='CSV', help='ground-truth boxes')
    add_split(parser)
    args = parser.parse_args()
    out, folder = args.out.resolve(), args.folder.resolve()
    for path in filter(None, (args.out, args.masks)):
        if folder in (path.resolve(), *path.resolve().parents):
            raise InputError(f'{path} lies in {folder}, whose folders are classes: move it out')
    check_free(out)
    classes = find_classes(folder)
    samples, others = find_images(folder, classes)
    if others:
        warn(f'{len(others)} files are no images by their suffix, and ignored: {some(others)}')
    if args.masks:
        samples = add_masks(samples, args.masks)
    elif args.boxes:
        samples = add_boxes(samples, args.boxes)
    print(f'{args.out}: ' + prepare(samples, classes, out, args))


if __name__ == '__main__':
    run(main)
