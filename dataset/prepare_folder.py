"""Bring class folders of images into the CUB layout that the stages read.

    python dataset/prepare_folder.py photos --out dataset/mine
    python dataset/prepare_folder.py photos --out dataset/mine --masks masks       with ground truth
    python dataset/prepare_folder.py photos --out dataset/mine --boxes boxes.csv

    photos/<class>/<name>.jpg       torchvision's ImageFolder layout, with any folders in between
    masks/<class>/<name>.png        the same names, also <name>_mask.png, with any image's suffix,
                                    or all in one folder
    boxes.csv                       <class>/<name>.jpg,xmin,ymin,xmax,ymax    a line for each box

    <out>/image/                    the images, linked
    <out>/segmentation/             the masks as PNG: 0 and 255; 0, 1 and 255 where 255 is ignored
    <out>/train.txt, <out>/val.txt  <class>/<name>.jpg,<label>,<xmin> <ymin> <xmax> <ymax>

Labels count from 0, in the order of the class folders' names. Each class is split by --val and
--seed; identical files are on the same side, in training if several classes have them. With --val 0
there is no val.txt. Links to folders are followed; hidden folders and those of systems
(@eaDir, __MACOSX, ...) are left out.

Masks have two values, one of them 0, and 255 beside them where pixels are ignored; an image's box
is that of its whole mask. Boxes are in pixels, xmax and ymax exclusive; a header may name other
columns and another order. Masks and boxes refer to the stored pixels: an EXIF rotation is ignored.

<out> appears when all is done; nothing else is written. Then: bash demo.sh --data <out>
"""

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

import utils.errors  # noqa: F401  # it says how to install what is missing below

# isort: split
import cv2
import numpy as np
from csv_boxes import Box, read_boxes
from preparation import (
    Place,
    building,
    check_free,
    is_hidden,
    link_file,
    list_line,
    some,
    stored_mask,
)
from tqdm import tqdm

from utils.arguments import Parser, fraction, nonnegative_int
from utils.errors import InputError, run, warn
from utils.files import write_png, write_text
from utils.images import is_suspicious, read_header, read_image, read_true_mask
from utils.lists import check_scale, checked_name

# Those of ImageFolder, and .jfif, as some browsers save JPEG.
SUFFIXES = {'.jpg', '.jpeg', '.jfif', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp'}
MASK_SUFFIXES = SUFFIXES | {'.gif'}
MASK_WORD = re.compile(r'[_. -](mask|seg|segmentation|groundtruth|gt)\d*$', re.IGNORECASE)
SPLITS = {'train', 'training', 'val', 'valid', 'validation', 'test', 'testing'}
PARTS = {'image', 'images', 'img', 'imgs', 'jpegimages', 'mask', 'masks', 'segmentation',
         'segmentations', 'segmentationclass', 'annotations', 'labels'}

OUTSIDE = 'box outside the image'

ReadMask = Callable[[Path, tuple[int, int]], tuple[np.ndarray, np.ndarray]]


class Sample(NamedTuple):
    """An image under the name that the lists will have, and what is found out about it."""

    source: Path
    name: str
    label: int
    mask: Path | None = None
    boxes: tuple[Box, ...] = ()
    size: tuple[int, int] = (0, 0)
    digest: bytes = b''
    is_rotated: bool = False
    is_suspicious: bool = False  # its mask
    problem: str = ''            # why the image cannot be used
    detail: str = ''


def find_classes(folder: Path, least: int = 2) -> list[str]:
    """The class folders in the order of their names. Raises InputError for fewer than `least`, as
    one class alone cannot be learned, and for folders that are no classes."""
    if not folder.is_dir():
        raise InputError(f'no folder {folder}: give the folder that has the class folders')
    entries = sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name))
    classes = [entry.name for entry in entries if entry.is_dir()]
    loose = [entry.name for entry in entries if not entry.is_dir()]
    parts, splits = ([name for name in classes if name.lower() in names]
                     for names in (PARTS, SPLITS))
    if len(splits) > 1 or (len(splits) == len(classes) == 1):
        raise InputError(f'{folder} has folders of a split ({", ".join(splits)}), not of classes: '
                         f'prepare {folder / splits[0]}, of which --val takes a share; or, to keep '
                         'the split, each folder with --val 0 and an --out of its own')
    if len(parts) > 1:
        raise InputError(f'{folder} has the folders {", ".join(parts)}, not classes: give the one '
                         'that has the class folders, and masks with --masks')
    if len(classes) < least:
        below = [name for name in classes if any(map(Path.is_dir, (folder / name).iterdir()))]
        raise InputError(f'{folder} has {len(classes)} class folders: at least {least} are '
                         'needed, <class>/<name>.jpg in each'
                         + (f'; is it {folder / below[0]}?' if below else ''))
    if loose:
        warn(f'{len(loose)} files beside the class folders are left out: {some(loose)}')
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
    if all(sample.name.count('/') > 1 for sample in samples):
        warn(f'all images lie in folders below those of {folder}: the classes are '
             f'{some(classes)}; if they are meant to be {Path(samples[0].name).parts[1]}, ..., '
             'give the folder that has these')
    return samples, others


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and below it, sorted. Links to folders are followed, each folder once;
    hidden and system files and folders are left out."""
    found, seen = [], set()
    for root, below, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        below[:] = [] if real in seen else [name for name in below if not is_hidden(name)]
        if real not in seen:
            found += [Path(root, name) for name in names if not is_hidden(name)]
        seen.add(real)
    return sorted(found)


def check_names(samples: Iterable[Sample]) -> None:
    """Refuse names that a list cannot hold, names that differ in their suffix alone, whose masks
    would be one file, and masks among the images."""
    seen: dict[str, str] = {}
    for sample in samples:
        name = checked_name(sample.name, str(sample.source))
        if set(name) & set(',\n\r') or name != name.strip():
            raise InputError(f'{name!r} has a comma, a line break, or a space at an end, which the '
                             'image lists cannot hold: rename it')
        other = seen.setdefault(os.path.splitext(name)[0], name)
        if other != name:
            raise InputError(f'{other} and {name} would share a mask: if one is the mask, move it '
                             'into another folder, and give that with --masks; else rename it')
    masks = [name for stem, name in seen.items() if MASK_WORD.sub('', stem) in seen.keys() - {stem}]
    if len(masks) > len(seen) / 4:
        raise InputError(f'{len(masks)} images are named as masks of others ({some(masks)}): move '
                         'them into another folder, and give that with --masks')


def add_masks(samples: list[Sample], folder: Path) -> list[Sample]:
    """The samples with their masks, which are found by the path of the image, or if none is, by the
    file names alone."""
    if not folder.is_dir():
        raise InputError(f'no folder {folder}: check --masks')
    files = [file for file in files_below(folder) if file.suffix.lower() in MASK_SUFFIXES]
    stems = [plain(sample.name) for sample in samples]
    masks = assign_masks(stems, {file: file.relative_to(folder).as_posix() for file in files})
    names = [stem.rpartition('/')[2] for stem in stems]
    if not any(masks) and len(set(names)) == len(names):
        masks = assign_masks(names, {file: file.name for file in files})
    if not any(masks):
        raise InputError(f'no mask in {folder} fits an image: looked for {stems[0]}.png (or '
                         f'{stems[0]}_mask.png, or another suffix) and the like, found '
                         + (some(file.relative_to(folder).as_posix() for file in files) or 'none'))
    return [sample._replace(mask=mask) if mask else
            sample._replace(problem='no mask', detail=f'looked for {folder}/{stem}.png')
            for sample, stem, mask in zip(samples, stems, masks, strict=True)]


def plain(name: str) -> str:
    """A file's name without the suffix of an image, its accents composed (macOS does not)."""
    stem, suffix = os.path.splitext(name)
    return normalize('NFC', stem if suffix.lower() in MASK_SUFFIXES else name)


def assign_masks(stems: list[str], files: dict[Path, str]) -> list[Path | None]:
    """The mask of each image; `files`: the masks' names. Raises InputError for two of one image."""
    known, found = set(stems), {}
    for file, name in files.items():
        stem = plain(name)
        forms = (stem, plain(stem), MASK_WORD.sub('', stem), MASK_WORD.sub('', plain(stem)))
        stem = next((form for form in forms if form in known), None)
        if found.setdefault(stem, file) != file and stem:
            raise InputError(f'{found[stem]} and {file} are masks of one image: remove one, or '
                             'merge them')
    return [found.get(stem) for stem in stems]


def add_boxes(samples: list[Sample], folder: Path, path: Path) -> list[Sample]:
    """The samples with all their boxes. A row names an image by its path below the folder, or with
    the folder in front, or by its file name where only one image has it."""
    boxes: dict[str, list[Box]] = {plain(sample.name): [] for sample in samples}
    called: dict[str, list[str]] = {}
    for stem in boxes:
        called.setdefault(stem.rpartition('/')[2], []).append(stem)
    parents = [normalize('NFC', Path(*folder.parts[k:]).as_posix()) + '/'
               for k in range(len(folder.parts))]
    for where, name, box in read_boxes(path):
        stem = plain(name.replace('\\', '/').removeprefix('./'))
        forms = [stem, *map(stem.removeprefix, parents)]
        found = [form for form in forms if form in boxes][:1] or called.get(stem, [])
        if len(found) != 1:
            count = f'{len(found)} images are called' if found else 'no image'
            raise InputError(f'{where}: {count} {name[:80]!r} in {folder}: names are as '
                             f'{samples[0].name!r}')
        boxes[found[0]] += [box] if box else []
    found = [tuple(boxes[plain(sample.name)]) for sample in samples]
    return [sample._replace(boxes=boxes, problem='' if boxes else 'no box')
            for sample, boxes in zip(samples, found, strict=True)]


def mask_box(mask: np.ndarray) -> Box:
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return x, y, x + width, y + height


def prepare_sample(sample: Sample, folder: Path, read_mask: ReadMask, place: Place) -> Sample:
    """Check an image and its ground truth, and place both in `folder`, if nothing is wrong."""
    if sample.problem:
        return sample
    try:
        size = read_image(sample.source).shape[:2]
    except InputError:
        return sample._replace(problem='cannot be read')
    sample = sample._replace(size=size, is_rotated=read_header(sample.source)[1] in range(2, 9),
                             digest=hashlib.sha256(sample.source.read_bytes()).digest())
    if any(box[0] >= size[1] or box[1] >= size[0] or min(box[2:]) <= 0 for box in sample.boxes):
        return sample._replace(problem=OUTSIDE)
    if sample.mask:
        try:
            foreground, ignored = read_mask(sample.mask, size)
        except InputError as error:
            return sample._replace(problem='mask that cannot be used', detail=str(error))
        if not foreground.any():
            return sample._replace(problem='mask without foreground')
        sample = sample._replace(boxes=(mask_box(foreground),),
                                 is_suspicious=is_suspicious(foreground))
        write_png(folder / 'segmentation' / Path(sample.name).with_suffix('.png'),
                  stored_mask(foreground, ignored))
    place(sample.source, folder / 'image' / sample.name)
    return sample


def split(images: list[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(train, val). Of each class about `share` is val: at least one image, if it has two, and
    never all. Identical files are on the same side; those of several classes are in train."""
    classes_of, in_val = labels_by_digest(images), set()
    for label in sorted({image.label for image in images}):
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


def labels_by_digest(images: list[Sample]) -> dict[bytes, set[int]]:
    labels: dict[bytes, set[int]] = {}
    for image in images:
        labels.setdefault(image.digest, set()).add(image.label)
    return labels


def prepare(samples: list[Sample], classes: Sequence[str], out: Path, val: float, seed: int, *,
            skip_bad: bool = False, read_mask: ReadMask = read_true_mask,
            place: Place = link_file) -> str:
    """Make the folder `out`; returns what is in it, in a line.

    Images with problems are left out with `skip_bad`, else they raise InputError. `read_mask` and
    `place` say how masks are read and files are linked or moved.
    """
    with building(out) as folder:
        with ThreadPoolExecutor() as pool:
            work = partial(prepare_sample, folder=folder, read_mask=read_mask, place=place)
            samples = list(tqdm(pool.map(work, samples), out.name, len(samples), unit='img',
                                disable=None))
        report([sample for sample in samples if sample.problem], len(samples), skip_bad)
        images = [sample for sample in samples if not sample.problem]
        check_images(images, classes)
        train, held_out = split(images, val, seed)
        for name, part in (('train.txt', train), ('val.txt', held_out)):
            if part:
                write_text(folder / name, ''.join(
                    list_line(image.name, image.label, image.boxes) for image in part))
    masks = sum(image.mask is not None for image in images)
    return (f'{len(classes)} classes, {len(train)} training and {len(held_out)} val images, '
            f'{masks or "no"} masks')


def report(bad: list[Sample], count: int, skip_bad: bool) -> None:
    """Say what is wrong, one clause for each kind: an error, or with skip_bad a warning."""
    kinds: dict[str, list[Sample]] = {}
    for sample in bad:
        kinds.setdefault(sample.problem, []).append(sample)
    text = '; '.join(f'{len(found)} images: {problem} ({some(image.name for image in found)})'
                     + (f': {found[0].detail}' if found[0].detail else '')
                     for problem, found in kinds.items())
    if len(kinds.get(OUTSIDE, ())) > max(2, count / 10):
        raise InputError(f'{text}: these boxes have another scale, or are of other images')
    if bad and not skip_bad:
        raise InputError(f'{text}: correct this, or leave these images out with --skip_bad')
    if bad:
        warn(f'left out: {text}')


def check_images(images: list[Sample], classes: Sequence[str]) -> None:
    """Refuse classes without images and boxes of another scale; warn about what may be a
    mistake."""
    counts = Counter(image.label for image in images)
    if empty := [name for label, name in enumerate(classes) if not counts[label]]:
        raise InputError(f'{len(empty)} of {len(classes)} classes have no usable image '
                         f'({some(empty)}): remove their folders, or add images')
    check_scale([np.array(image.boxes).reshape(-1, 4) for image in images],
                [image.size for image in images], [image.name for image in images], Path('--boxes'))
    classes_of = labels_by_digest(images)
    findings = {
        'are the only one of their class, and in train.txt':
            [image for image in images if counts[image.label] == 1],
        'have an EXIF rotation, which is ignored; boxes and masks refer to the stored pixels':
            [image for image in images if image.is_rotated],
        'are in several classes, and all in train.txt':
            [image for image in images if len(classes_of[image.digest]) > 1]}
    suspicious = [image for image in images if image.is_suspicious]
    if len(suspicious) > len(images) / 2:
        findings['have masks that touch all four borders or cover over 95 % (inverted?)'
                 ] = suspicious
    for text, found in findings.items():
        if found:
            warn(f'{len(found)} images {text}: {some(image.name for image in found)}')


def main() -> None:
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
    args = parser.parse_args()
    out, folder = args.out.resolve(), args.folder.resolve()
    for option, path in (('out', out), ('masks', args.masks and args.masks.resolve())):
        if path and (path == folder or folder in path.parents):
            raise InputError(f'--{option} {path} lies in the folder of the images: '
                             + ('give another' if option == 'out' else 'move it out of there'))
    check_free(out)
    classes = find_classes(folder)
    samples, others = find_images(folder, classes)
    if others:
        warn(f'{others.total()} files are no images by their suffix, and ignored: {some(others)}')
    if args.masks:
        samples = add_masks(samples, args.masks)
    elif args.boxes:
        samples = add_boxes(samples, folder, args.boxes)
    print(f'{args.out}: ' + prepare(samples, classes, out, args.val, args.seed,
                                    skip_bad=args.skip_bad))


if __name__ == '__main__':
    run(main)
