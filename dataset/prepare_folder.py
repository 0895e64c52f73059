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
is that of its whole mask. Boxes are in pixels, xmax and ymax exclusive; the table may begin with a
line of these names. Masks and boxes refer to the stored pixels: an EXIF rotation is ignored.

<out> appears when all is done. Then: bash demo.sh --data <out>
"""

import hashlib
import os
import re
import sys
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

import numpy as np
from preparation import building, check_free, is_hidden, link_file, list_line, mask_box, stored_mask
from tqdm.contrib.concurrent import thread_map

from utils.arguments import Parser, fraction, nonnegative_int
from utils.errors import InputError, run, warn
from utils.files import write_png, write_text
from utils.images import is_suspicious, read_image, read_true_mask
from utils.lists import check_scale, parse_box, read_lines

# Those of ImageFolder, and .jfif, as some browsers save JPEG.
SUFFIXES = {'.jpg', '.jpeg', '.jfif', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp'}
# Names of folders that are above class folders.
NO_CLASSES = {'train', 'val', 'valid', 'validation', 'test', 'image', 'images', 'mask', 'masks',
              'segmentation', 'segmentations', 'annotations', 'labels'}


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
    classes = sorted(entry.name for entry in folder.iterdir()
                     if entry.is_dir() and not is_hidden(entry.name))
    above = [name for name in classes if name.lower() in NO_CLASSES]
    if len(above) > 1:
        raise InputError(f'{folder} has the folders {some(above)}, not classes: give the one that '
                         'has the class folders, and masks with --masks; to keep a split, prepare '
                         'each part with --val 0 and another --out')
    if len(classes) < least:
        raise InputError(f'{folder} has {len(classes)} class folders, not {least} or more')
    return classes


def find_images(folder: Path, classes: list[str]) -> tuple[list[Sample], list[str]]:
    """The images below each class folder, sorted, and the names of the other files. Raises
    InputError for names that a list cannot hold, or that differ in a suffix or "_mask" alone."""
    others = [path.name for path in sorted(folder.iterdir())
              if path.is_file() and not is_hidden(path.name)]
    samples, seen = [], {}
    for label, class_name in enumerate(classes):
        for file in files_below(folder / class_name):
            if file.suffix.lower() not in SUFFIXES:
                others.append(file.name)
                continue
            name = file.relative_to(folder).as_posix()
            if re.search(r'^\s|[,\\\n\r]|\s$', name):
                raise InputError(f'{name!r}: no comma, backslash, line break or outer space: '
                                 'rename it')
            other = seen.setdefault(stem(name).removesuffix('_mask'), name)
            if other != name:
                raise InputError(f'{other} and {name} would share a mask: rename one or, if it is '
                                 'the mask, move it into another folder, for --masks')
            samples.append(Sample(file, name, label))
    return samples, others


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and below it, sorted, without hidden ones; links are followed."""
    found = []
    for root, below, names in os.walk(folder, followlinks=True):
        below[:] = [name for name in below if not is_hidden(name)]
        found += [Path(root, name) for name in names if not is_hidden(name)]
    return sorted(found)


def stem(name: str) -> str:
    return normalize('NFC', os.path.splitext(name)[0])  # macOS decomposes accents


def some(names: list[str]) -> str:
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')


def add_truth(samples: list[Sample], masks: Path | None, boxes: Path | None) -> list[Sample]:
    """The samples with the masks of a folder, or with the boxes of a table."""
    if masks:
        files = [(file.relative_to(masks).as_posix(), file) for file in files_below(masks)
                 if file.suffix.lower() in SUFFIXES]
        return [sample._replace(mask=own[0]) if len(own) == 1
                else sample._replace(problem=f'it has {len(own)} masks in {masks}')
                for sample, own in match(samples, files)]
    if boxes:
        return [sample._replace(boxes=own, problem='' if own else f'it has no box in {boxes}')
                for sample, own in match(samples, read_boxes(boxes))]
    return samples


def match(samples: list[Sample], truth: Iterable[tuple[str, Any]]) -> list[tuple[Sample, list]]:
    """The samples, each with its own part of `truth`: what is called by its path or, where only one
    image has it, by its file name. Suffixes do not count."""
    pairs, owners, strangers = [(sample, []) for sample in samples], defaultdict(list), []
    for sample, own in pairs:
        path = stem(sample.name)
        owners[path].append(own)
        owners[path.rpartition('/')[2]].append(own)
    for name, value in truth:
        found = owners.get(stem(name)) or owners.get(stem(name).removesuffix('_mask'), [])
        if len(found) == 1:
            found[0].append(value)
        else:
            strangers.append(name)
    if strangers:
        warn(f'{len(strangers)} names fit no image, or several: {some(strangers)}')
    return pairs


def read_boxes(path: Path) -> Iterator[tuple[str, tuple[float, ...]]]:
    """(name, box) of each line."""
    for number, line in read_lines(path):
        name, *sides = (field.strip() for field in line.split(','))
        if sides != ['xmin', 'ymin', 'xmax', 'ymax']:
            yield name, parse_box(' '.join(sides), f'{path}, line {number}')


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
        work = partial(prepare_sample, folder=folder, read_mask=read_mask)
        samples = thread_map(work, samples, desc=out.name, unit='img', disable=None)
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
    if empty := [name for label, name in enumerate(classes) if label not in labels]:
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
        if path.resolve().is_relative_to(folder):
            raise InputError(f'{path} lies in {folder}, whose folders are classes: move it out')
    check_free(out)
    classes = find_classes(folder)
    samples, others = find_images(folder, classes)
    if others:
        warn(f'{len(others)} files are no images in class folders, and left out: {some(others)}')
    samples = add_truth(samples, args.masks, args.boxes)
    print(f'{args.out}: ' + prepare(samples, classes, out, args))


if __name__ == '__main__':
    run(main)
