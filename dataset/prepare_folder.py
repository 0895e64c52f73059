"""Bring class folders of images into the CUB layout that the stages read.

    python dataset/prepare_folder.py photos --out dataset/mine
    python dataset/prepare_folder.py photos --out dataset/mine --masks masks       with ground truth
    python dataset/prepare_folder.py photos --out dataset/mine --boxes boxes.csv

    photos/<class>/<name>.jpg       torchvision's ImageFolder layout, with any folders in between
    masks/<class>/<name>.png        the same names with the suffix of any image
    boxes.csv                       <class>/<name>.jpg,xmin,ymin,xmax,ymax    a line for each box

    <out>/image/                    the images, linked
    <out>/segmentation/             the masks as PNG, 0 and 255
    <out>/train.txt, <out>/val.txt  <class>/<name>.jpg,<label>,<xmin> <ymin> <xmax> <ymax>

Labels count from 0, in the order of the class folders' names. Each class is split by --val and
--seed; identical files are on the same side. With --val 0 there is no val.txt.

Masks may be grey, coloured or indexed. Foreground is what exceeds 127; if nothing does, and with a
coloured palette, what is not 0. An image's box is that of its whole mask. Boxes are in pixels,
xmax and ymax exclusive. Masks and boxes refer to the stored pixels: an EXIF rotation is ignored.

<out> appears when all is done; nothing else is written. Then: bash demo.sh --data <out>
"""

import argparse
import csv
import hashlib
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import isfinite
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.errors  # noqa: F401  # it says how to install what is missing below

# isort: split
import cv2
import numpy as np
from links import link_file
from PIL import Image
from tqdm import tqdm

from utils.arguments import Parser, fraction, nonnegative_int
from utils.data.images import DAMAGED, BadImageError, is_rotated, read_image
from utils.data.lists import checked_name
from utils.errors import InputError, run, warn
from utils.outputs.files import write_png, write_text

# Those of ImageFolder.
SUFFIXES = {'.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp'}
NAMED = 3  # files in a message
GREY_LIMIT = 127

Box = tuple[float, float, float, float]


class Sample(NamedTuple):
    """An image to prepare, under the name that the lists will have."""

    source: Path
    name: str
    label: int
    mask: Path | None = None
    boxes: tuple[Box, ...] = ()


class Prepared(NamedTuple):
    """What the lists need of an image, and what is reported."""

    name: str
    label: int
    boxes: tuple[Box, ...]
    digest: bytes
    rotated: bool


class Problem(NamedTuple):
    """Why an image cannot be used."""

    name: str
    reason: str


# ---------------------------------------------------------------- what there is


def find_classes(folder: Path, least: int = 2) -> list[str]:
    """The class folders in the order of their names. Raises InputError for fewer than `least`: one
    class alone cannot be learned."""
    if not folder.is_dir():
        raise InputError(f'no folder {folder}: give the folder that has the class folders')
    classes = sorted(entry.name for entry in os.scandir(folder)
                     if entry.is_dir() and not entry.name.startswith('.'))
    if len(classes) < least:
        raise InputError(f'{folder} has {len(classes)} class folders: at least {least} are '
                         'needed, <class>/<name>.jpg in each')
    return classes


def find_images(folder: Path, classes: list[str]) -> tuple[list[Sample], Counter]:
    """The images below each class folder, sorted, and the suffixes of the other files."""
    samples, others = [], Counter()
    for label, name in enumerate(classes):
        files = files_below(folder / name)
        images = [file for file in files if file.suffix.lower() in SUFFIXES]
        others.update(file.suffix for file in files if file.suffix.lower() not in SUFFIXES)
        if not images:
            raise InputError(f'no image in {folder / name}: remove this folder, or add images '
                             f'({" ".join(sorted(SUFFIXES))})')
        samples += [Sample(file, file.relative_to(folder).as_posix(), label) for file in images]
    check_names(samples)
    return samples, others


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and below it, sorted; hidden ones are left out."""
    found = []
    for root, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith('.')]
        found += [Path(root, name) for name in names if not name.startswith('.')]
    return sorted(found)


def check_names(samples: Iterable[Sample]) -> None:
    """Refuse names that a list cannot hold, and names that differ in their suffix alone: their
    masks would be one file."""
    seen: dict[str, str] = {}
    for sample in samples:
        name = checked_name(sample.name, str(sample.source))
        if set(name) & set(',\n\r') or name != name.strip():
            raise InputError(f'{name!r} has a comma, a line break, or a space at an end, which the '
                             'image lists cannot hold: rename it')
        other = seen.setdefault(os.path.splitext(name)[0], name)
        if other != name:
            raise InputError(f'{other} and {name} would share a mask: rename one of them')


def add_masks(samples: list[Sample], folder: Path) -> tuple[list[Sample], list[Problem]]:
    """The samples that have a mask, with it, and those that have none."""
    if not folder.is_dir():
        raise InputError(f'no folder {folder}: check --masks')
    masks: dict[str, Path] = {}
    for file in files_below(folder):
        if file.suffix.lower() in SUFFIXES:
            stem = file.relative_to(folder).with_suffix('').as_posix()
            if masks.setdefault(stem, file) != file:
                raise InputError(f'{masks[stem]} and {file} are masks of one image: remove one')
    found = [(sample, masks.get(os.path.splitext(sample.name)[0])) for sample in samples]
    return ([sample._replace(mask=mask) for sample, mask in found if mask],
            [Problem(sample.name, 'no mask') for sample, mask in found if not mask])


def add_boxes(samples: list[Sample], path: Path) -> tuple[list[Sample], list[Problem]]:
    """The samples that have a box, with all theirs, and those that have none."""
    boxes: dict[str, list[Box]] = {sample.name: [] for sample in samples}
    for where, (name, *corners) in read_rows(path):
        if name not in boxes:
            raise InputError(f'{where}: no image {name[:80]!r}: use the path below the folder')
        boxes[name].append(checked_box(corners, where))
    if max((side for found in boxes.values() for box in found for side in box), default=2) <= 1:
        raise InputError(f'{path}: all boxes lie in 0 ... 1: give them in pixels')
    return ([sample._replace(boxes=tuple(boxes[sample.name])) for sample in samples
             if boxes[sample.name]],
            [Problem(name, 'no box') for name, found in boxes.items() if not found])


def read_rows(path: Path) -> Iterable[tuple[str, list[str]]]:
    """(file and line, fields) of a CSV file's rows; a header is skipped."""
    try:
        with open(path, encoding='utf-8-sig', errors='surrogateescape', newline='') as file:
            rows = csv.reader(file, strict=True)
            for row in rows:
                is_header = rows.line_num == 1 and row[1:] == ['xmin', 'ymin', 'xmax', 'ymax']
                if row and not is_header:
                    yield f'{path}, line {rows.line_num}', row
    except (OSError, csv.Error) as error:
        raise InputError(f'{path} cannot be read as CSV ({error}): check --boxes') from error


def checked_box(corners: list[str], where: str) -> Box:
    try:
        xmin, ymin, xmax, ymax = map(float, corners)
    except ValueError:
        raise InputError(f'{where}: expected name,xmin,ymin,xmax,ymax, found '
                         f'{",".join(corners)[:80]!r} after the name: correct the line') from None
    if not (isfinite(xmin + ymin + xmax + ymax) and xmin < xmax and ymin < ymax):
        raise InputError(f'{where}: the box {" ".join(corners)[:80]!r} has no area: '
                         'xmax > xmin and ymax > ymin, not width and height')
    return xmin, ymin, xmax, ymax


# ---------------------------------------------------------------- images and masks


def read_mask(path: Path) -> np.ndarray:
    """A mask of any kind -> bool H x W; the docstring above says what is foreground.

    Raises BadImageError for a file that cannot be decoded.
    """
    values = read_values(path)
    return values > (GREY_LIMIT if values.max() > GREY_LIMIT else 0)


def read_values(path: Path) -> np.ndarray:
    """An image's grey levels, the largest of its channels, or with a coloured palette whether the
    index is not 0; H x W."""
    read_image(path)  # refuses what is damaged or too large
    try:
        with Image.open(path) as image:
            colours = np.array(image.convert('RGB')) if image.mode == 'P' else None
            if colours is not None and (colours != colours[..., :1]).any():
                return np.minimum(np.array(image), 1)
            if image.mode not in ('1', 'L', 'I', 'I;16', 'F', 'RGB'):
                image = image.convert('RGB')
            values = np.array(image)
    except DAMAGED as error:
        raise BadImageError(f'{path} cannot be read as a mask: replace it') from error
    return values.max(2) if values.ndim == 3 else values


def mask_box(mask: np.ndarray) -> Box:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, x + width, y + height


def prepare_sample(sample: Sample, folder: Path, read_mask: Callable[[Path], np.ndarray],
                   place: Callable[[Path, Path], None]) -> Prepared | Problem:
    """Check an image and its ground truth, and place both in `folder`."""
    try:
        height, width = read_image(sample.source).shape[:2]
    except BadImageError:
        return Problem(sample.name, 'cannot be read')
    boxes = sample.boxes
    if any(box[0] >= width or box[1] >= height or min(box[2:]) <= 0 for box in boxes):
        return Problem(sample.name, 'box outside the image')
    if sample.mask:
        mask = checked_mask(sample.mask, (height, width), read_mask)
        if isinstance(mask, str):
            return Problem(sample.name, mask)
        boxes = (mask_box(mask),)
        png = Path(sample.name).with_suffix('.png')
        write_png(folder / 'segmentation' / png, mask)
    rotated, digest = is_rotated(sample.source), hashlib.sha256(sample.source.read_bytes()).digest()
    place(sample.source, folder / 'image' / sample.name)
    return Prepared(sample.name, sample.label, boxes, digest, rotated)


def checked_mask(path: Path, size: tuple[int, int], read_mask: Callable[[Path], np.ndarray]
                 ) -> np.ndarray | str:
    """The mask, bool H x W, or what is wrong with it."""
    try:
        mask = read_mask(path)
    except BadImageError:
        return 'mask that cannot be read'
    if mask.shape != size:
        return 'mask of another size than the image'
    return mask if mask.any() else 'mask without foreground'


# ---------------------------------------------------------------- split and lists


def split(images: list[Prepared], share: float, seed: int) -> tuple[list[Prepared], list[Prepared]]:
    """(train, val). Of each class about `share` is val: at least one image, if it has two, and
    never all. Identical files are on the same side, also those of several classes."""
    in_val: dict[bytes, bool] = {}
    for label in sorted({image.label for image in images}):
        copies = Counter(image.digest for image in images if image.label == label)
        count = copies.total()
        wanted = min(max(int(share * count + 0.5), 1), count - 1) if share else 0
        wanted -= sum(copies[digest] for digest in copies if in_val.get(digest))
        free = [digest for digest in copies if digest not in in_val]
        for index in np.random.default_rng([seed, label]).permutation(len(free)):
            digest = free[index]
            in_val[digest] = copies[digest] <= wanted
            wanted -= copies[digest] * in_val[digest]
    return ([image for image in images if not in_val[image.digest]],
            [image for image in images if in_val[image.digest]])


def list_line(image: Prepared) -> str:
    boxes = (' '.join(f'{side:.10g}' for side in box) for box in image.boxes)
    return ','.join([image.name, str(image.label), *boxes]) + '\n'


# ---------------------------------------------------------------- the whole


def prepare(samples: list[Sample], out: Path, val: float, seed: int, *,
            problems: Iterable[Problem] = (), skip_bad: bool = False,
            read_mask: Callable[[Path], np.ndarray] = read_mask,
            place: Callable[[Path, Path], None] = link_file) -> str:
    """Make the folder `out`; returns what is in it, in a line.

    Images with problems, and those of `problems`, are left out with `skip_bad`, else they raise
    InputError. `read_mask` and `place` say how masks are read and files are linked or moved.
    """
    build = out.with_name(f'.{out.name}.unfinished')
    shutil.rmtree(build, ignore_errors=True)  # a killed run's
    try:
        with ThreadPoolExecutor() as pool:
            work = partial(prepare_sample, folder=build, read_mask=read_mask, place=place)
            results = list(tqdm(pool.map(work, samples), out.name, len(samples), unit='img',
                                disable=None))
        images = [result for result in results if isinstance(result, Prepared)]
        report([*problems, *(result for result in results if isinstance(result, Problem))],
               skip_bad)
        check_classes({sample.label for sample in samples}, images)
        train, held_out = split(images, val, seed)
        write_text(build / 'train.txt', ''.join(map(list_line, train)))
        if held_out:
            write_text(build / 'val.txt', ''.join(map(list_line, held_out)))
        publish(build, out)
    finally:
        shutil.rmtree(build, ignore_errors=True)
    warn_about(images)
    masks = sum(bool(sample.mask) for sample in samples) and len(images)
    return (f'{len({image.label for image in images})} classes, {len(train)} training and '
            f'{len(held_out)} val images, {masks or "no"} masks')


def check_free(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f'{out} exists: delete it, or give another --out')


def publish(build: Path, out: Path) -> None:
    try:
        os.replace(build, out)
    except OSError as error:
        raise InputError(f'cannot make {out} ({error.strerror}): check the folder and its '
                         'rights') from error


def report(problems: list[Problem], skip_bad: bool) -> None:
    """Say what is wrong, one clause for each kind: an error, or with skip_bad a warning."""
    if not problems:
        return
    names: dict[str, list[str]] = {}
    for problem in problems:
        names.setdefault(problem.reason, []).append(problem.name)
    text = '; '.join(f'{len(found)} images: {reason} ({some(found)})'
                     for reason, found in names.items())
    if not skip_bad:
        raise InputError(f'{text}: correct this, or leave these images out with --skip_bad')
    warn(f'left out: {text}')


def check_classes(labels: set[int], images: list[Prepared]) -> None:
    if empty := labels - {image.label for image in images}:
        raise InputError(f'the classes {sorted(empty)} (from 0) have no usable image: remove their '
                         'folders, or add images')


def warn_about(images: list[Prepared]) -> None:
    """Warn about what is allowed, but may be a mistake."""
    counts = Counter(image.label for image in images)
    single = [image.name for image in images if counts[image.label] == 1]
    if single:
        warn(f'{len(single)} classes have a single image, which is in train.txt: {some(single)}')
    rotated = [image.name for image in images if image.rotated]
    if rotated:
        warn(f'{len(rotated)} images have an EXIF rotation, which is ignored; boxes and masks '
             f'refer to the stored pixels: {some(rotated)}')
    labels = {}
    for image in images:
        labels.setdefault(image.digest, set()).add(image.label)
    several = [image.name for image in images if len(labels[image.digest]) > 1]
    if several:
        warn(f'{len(several)} images are in several classes: {some(several)}')


def some(names: Iterable[str]) -> str:
    names = list(names)
    return ', '.join(names[:NAMED]) + (', ...' if len(names) > NAMED else '')


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('folder', type=Path, help='the folder that has the class folders')
    add('--out', type=Path, required=True, help='the data folder to make')
    truth = parser.add_mutually_exclusive_group()
    truth.add_argument('--masks', type=Path, metavar='DIR', help='ground-truth masks')
    truth.add_argument('--boxes', type=Path, metavar='CSV', help='ground-truth boxes')
    add('--val', type=fraction, default=0.3, help='the share of each class that is val')
    add('--seed', type=nonnegative_int, default=0, help='seed of the split')
    add('--skip_bad', action='store_true', help='leave out images that something is wrong with')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    out, folder = args.out.resolve(), args.folder.resolve()
    if out == folder or folder in out.parents:
        raise InputError(f'--out {args.out} lies in the folder of the images: give another')
    check_free(out)
    samples, others = find_images(folder, find_classes(folder))
    if others:
        warn(f'{others.total()} files are no images by their suffix, and ignored: {some(others)}')
    problems: list[Problem] = []
    if args.masks:
        samples, problems = add_masks(samples, args.masks)
    elif args.boxes:
        samples, problems = add_boxes(samples, args.boxes)
    print(f'{args.out}: ' + prepare(samples, out, args.val, args.seed, problems=problems,
                                    skip_bad=args.skip_bad))


if __name__ == '__main__':
    run(main)
