#!/usr/bin/env python
"""Write a small data set in the shape of CUB-200-2011 or ImageNet: seeded, nothing to download.

    python dataset/make_mini.py                                        # drawn birds
    python dataset/make_mini.py --layout imagenet                      # in ImageNet's layout
    python dataset/make_mini.py --cutouts DIR --backgrounds DIR        # your own photographs

Every image is one object (in the ImageNet layout a third have two) composited over a cluttered
background, so its mask is exact. --layout cub:

    <out>/image/<class>/<name>.jpg
    <out>/segmentation/<class>/<name>.png   object mask, one channel, 0 or 255
    <out>/train.txt, <out>/val.txt          <class>/<name>.jpg,<label>,<xmin> <ymin> <xmax> <ymax>

--layout imagenet, where the classes are the first of the 1,000 in imagenet_wnids.txt:

    <out>/train/<wnid>/<wnid>_<n>.JPEG, <out>/val/ILSVRC2012_val_<number>.JPEG
    <out>/box/ILSVRC2012_val_<number>.xml   the boxes of a val image, one for each object
    <out>/segmentation/<wnid>/<wnid>_<n>.png, <out>/segmentation/ILSVRC2012_val_<number>.png
    <out>/train.txt, <out>/val.txt          <wnid>/<name>.JPEG <label>, <name>.JPEG <label>

Both: <out>/mini.json, the arguments the set was made with. Labels count from 0; a box is
x, y, x + w, y + h of the bounding rectangle of the object's visible part, in pixels.

Drawn birds share one body plan and random poses; their head (colours, crest, beak) tells the
class, and their plumage, which varies from bird to bird, leans towards its colours. A classifier
can get by with the head alone, which is what makes localization from image labels hard. With
photographs, one RGBA PNG cut-out is one class. Training and validation images never share a
background.

The same arguments give the same bytes, and what an image shows does not depend on how many others
are made. A set made with other arguments is replaced once the new one is complete (it is built in
<out>.tmp); a folder without mini.json is never replaced.
"""
from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

import cv2
import numpy as np
from draw_birds import SPECIES_LIMIT, draw_background, draw_bird, make_species, mix, trim
from numpy.random import Generator, default_rng
from tqdm import tqdm

from utils.arguments import Parser, nonnegative_int, positive_int
from utils.data.lists import read_wnids
from utils.errors import InputError, run
from utils.outputs.files import atomic_write, write_json, write_text

FORMAT_VERSION = 2
WNIDS = Path(__file__).with_name('imagenet_wnids.txt')
MARKER = 'mini.json'
DEFAULT_FOLDERS = {'cub': 'mini', 'imagenet': 'mini-imagenet'}
SPLITS = ('train', 'val')
# First numbers after the seed in a random stream; an image's stream has its split (0 or 1) there.
SPECIES_STREAM, CUTOUT_STREAM, PHOTO_STREAM, SCENE_STREAM, PAIR_STREAM, ORDER_STREAM = range(2, 8)
DRAWN_BACKGROUNDS = 24  # per split
TRAIN_SHARE = 0.7  # of the background photographs
BIRD_SCALE, SCENE_SCALE = 1.6, 2  # size of the canvas of a drawing, in frames
PAIR_SHARE = {'cub': 0, 'imagenet': 1 / 3}  # of the images have two objects
OBJECT_SCALE = {1: (0.45, 0.95), 2: (0.3, 0.5)}  # of the frame, by the number of objects
MAX_OVERLAP = 0.1  # of two objects' boxes, as a share of the smaller one
PLACEMENTS = 20  # tried before an object is left out
MIN_SIZE = 32
IMAGENET_CLASSES = 1000

# ---------------------------------------------------------------- sources


Box = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax


class Source(Protocol):
    """Where objects and backgrounds come from."""

    names: list[str]  # one per class, usable as folder names

    def cutout(self, label: int, rng: Generator) -> np.ndarray:
        """An object of the class: (h, w, 4) uint8 premultiplied BGRA."""

    def background(self, split: int, rng: Generator) -> np.ndarray:
        """A background of the split: (h, w, 3) uint8 BGR."""


class DrawnSource:
    """Birds and landscapes that this script draws."""

    def __init__(self, classes: int, size: int, seed: int) -> None:
        if classes > SPECIES_LIMIT:
            raise InputError(f'--classes {classes}: only {SPECIES_LIMIT} birds can be drawn; ask '
                             'for fewer or give --cutouts and --backgrounds')
        self.species = [make_species(label, default_rng([seed, SPECIES_STREAM, label]))
                        for label in range(classes)]
        self.names = [species.name for species in self.species]
        self.bird_px = round(BIRD_SCALE * size)
        self.draw_pooled = lru_cache(lambda split, k: draw_background(
            SCENE_SCALE * size, default_rng([seed, SCENE_STREAM, split, k])))

    def cutout(self, label: int, rng: Generator) -> np.ndarray:
        return draw_bird(self.species[label], self.bird_px, rng)

    def background(self, split: int, rng: Generator) -> np.ndarray:
        return self.draw_pooled(split, int(rng.integers(DRAWN_BACKGROUNDS)))


class PhotoSource:
    """Cut-outs (RGBA PNG, one per class) and background photographs from two folders."""

    def __init__(self, cutouts: Path, backgrounds: Path, classes: int, seed: int) -> None:
        files = list_images(cutouts, '--cutouts', {'.png'}, classes)
        chosen = default_rng([seed, CUTOUT_STREAM]).permutation(len(files))[:classes]
        self.cutouts = [load_cutout(files[k]) for k in chosen]
        self.names = [re.sub(r'[^\w-]+', '_', files[k].stem) for k in chosen]
        photos = list_images(backgrounds, '--backgrounds', {'.jpg', '.jpeg', '.png'}, 2)
        order = default_rng([seed, PHOTO_STREAM]).permutation(len(photos))
        cut = min(max(1, round(TRAIN_SHARE * len(photos))), len(photos) - 1)
        self.photos = [[photos[k] for k in part] for part in (order[:cut], order[cut:])]
        self.load = lru_cache(64)(load_photo)

    def cutout(self, label: int, rng: Generator) -> np.ndarray:
        return self.cutouts[label]

    def background(self, split: int, rng: Generator) -> np.ndarray:
        """Parts of two photographs, merged: few photographs give many backgrounds."""
        chosen = rng.integers(len(self.photos[split]), size=2)
        return merge(*(random_part(self.load(self.photos[split][k]), rng) for k in chosen), rng)


def list_images(folder: Path, option: str, suffixes: set[str], least: int) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f'{option} {folder}: no such folder; give a folder of images')
    files = sorted(p for p in folder.rglob('*') if p.suffix.lower() in suffixes)
    if len(files) < least:
        kinds = '/'.join(sorted(suffixes))
        raise InputError(f'{option} {folder}: {len(files)} {kinds} files where at least {least} '
                         'are needed; add some, or ask for fewer classes')
    return files


def load_photo(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f'{path}: not a readable image; repair or remove it')
    return image


def load_cutout(path: Path) -> np.ndarray:
    """Read an RGBA PNG, trimmed to its object: (h, w, 4) uint8 premultiplied BGRA."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 4:
        raise InputError(f'{path}: not an 8-bit RGBA PNG; convert or remove it')
    alpha = image[..., 3:]
    if alpha.min() > 127 or alpha.max() <= 127:
        missing = 'transparent' if alpha.min() > 127 else 'opaque'
        raise InputError(f'{path}: no {missing} pixels, so no object to cut out; remove it')
    image[..., :3] = np.round(image[..., :3] * (alpha / 255))
    return trim(image)


# ---------------------------------------------------------------- composition


def jitter(image: np.ndarray, strength: float, rng: Generator) -> np.ndarray:
    """Vary hue, saturation, brightness, contrast and direction of light.

    image: float32 in 0..1, BGR or premultiplied BGRA. All of it is linear in colour and alpha,
    which is what keeps premultiplied colours right.
    """
    hue, saturation = rng.normal(0, 0.25 * strength), rng.uniform(1 - strength, 1 + strength)
    contrast, pivot = 1 + rng.uniform(-0.5, 0.5) * strength, 0.45
    gains = rng.uniform(1 - 0.8 * strength, 1 + 0.3 * strength) * rng.normal(1, 0.08 * strength, 3)
    turn, _ = cv2.Rodrigues(np.full(3, hue / np.sqrt(3)))  # about the grey axis
    colour = mix(np.full((3, 3), 1 / 3), turn, saturation) * gains[:, None] * contrast
    matrix = np.column_stack([colour, np.full(3, pivot * (1 - contrast))]).astype(np.float32)
    result = image.copy()
    # On BGR, cv2.transform takes the last column as an offset, that is alpha = 1.
    result[..., :3] = cv2.transform(image, matrix) * light_ramp(image.shape, strength, rng)
    result[..., :3] = np.clip(result[..., :3], 0, image[..., 3:] if image.shape[2] == 4 else 1)
    return result


def light_ramp(shape: tuple[int, ...], strength: float, rng: Generator) -> np.ndarray:
    """Brightness (h, w, 1) float32 that changes linearly in a random direction, 1 on average."""
    angle = rng.uniform(0, 2 * np.pi)
    x, y = (np.linspace(-1, 1, n, dtype=np.float32) for n in (shape[1], shape[0]))
    ramp = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y[:, None]
    return (1 + np.float32(0.5 * strength * rng.random()) * ramp)[..., None]


def random_frame(size: int, rng: Generator) -> tuple[int, int]:
    """(width, height) between 4:3 and 3:4, the longer side being size."""
    ratio = np.exp(rng.uniform(-1, 1) * np.log(4 / 3))
    return round(size * min(1, ratio)), round(size * min(1, 1 / ratio))


def crop_background(background: np.ndarray, frame: tuple[int, int], rng: Generator) -> np.ndarray:
    """Cut a random part of a (h, w, 3) uint8 image to the frame: float32 BGR in 0..1."""
    height, width = background.shape[:2]
    scale = min(width / frame[0], height / frame[1]) * rng.uniform(0.45, 1)
    w, h = (max(1, int(side * scale)) for side in frame)
    x, y = rng.integers(width - w + 1), rng.integers(height - h + 1)
    crop = background[y:y + h, x:x + w]
    if rng.random() < 0.5:
        crop = cv2.flip(crop, 1)
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    return cv2.resize(crop, frame, interpolation=method) / np.float32(255)


def random_part(image: np.ndarray, rng: Generator) -> np.ndarray:
    """A part of a (h, w, 3) image, turned by a multiple of 90 degrees and flipped at random. It is
    small enough to cut up flowers or fruit, which are objects to a class-agnostic segmenter."""
    h, w = (max(1, int(side * rng.uniform(0.35, 0.7))) for side in image.shape[:2])
    y, x = (rng.integers(side - part + 1) for side, part in zip(image.shape, (h, w), strict=False))
    part = np.rot90(image[y:y + h, x:x + w], rng.integers(4))
    return np.ascontiguousarray(part[:, ::-1] if rng.random() < 0.5 else part)


def merge(first: np.ndarray, second: np.ndarray, rng: Generator) -> np.ndarray:
    """Two (h, w, 3) uint8 images side by side, across a border that is sharp or soft; the size of
    the first."""
    height, width = first.shape[:2]
    second = crop_background(second, (width, height), rng)
    angle, sharpness = rng.uniform(0, 2 * np.pi), rng.choice([1, 4, 16])
    x, y = (np.linspace(-1, 1, n, dtype=np.float32) for n in (width, height))
    ramp = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y[:, None]
    share = 1 / (1 + np.exp(-sharpness * (ramp - rng.uniform(-0.5, 0.5))))[..., None]
    return np.round(first * share + 255 * second * (1 - share)).astype(np.uint8)


def object_outline(cutout: np.ndarray) -> np.ndarray:
    """Pixels (N, 2) on the contours of a BGRA object."""
    parts, _ = cv2.findContours((cutout[..., 3] > 127).astype(np.uint8), cv2.RETR_EXTERNAL,
                                cv2.CHAIN_APPROX_SIMPLE)
    return np.concatenate(parts)[:, 0]


def random_placement(outline: np.ndarray, frame: tuple[int, int], scales: tuple[float, float],
                     rng: Generator) -> np.ndarray:
    """(2, 3) affine map that flips, turns, scales and moves the object fully inside the frame."""
    flip, angle = rng.choice([-1.0, 1.0]), np.radians(rng.uniform(-30, 30))
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s], [s, c]]) * (flip, 1)
    corners = outline @ turn.T
    extent = np.ptp(corners, axis=0) + 1
    scale = rng.uniform(*scales) * (np.array(frame) / extent).min()
    corner = rng.uniform(0, 1, 2) * (frame - extent * scale) - (corners.min(0) - 0.5) * scale
    return np.column_stack([turn * scale, corner - 0.5])


def free_placement(cutout: np.ndarray, frame: tuple[int, int], taken: list[Box],
                   scales: tuple[float, float], rng: Generator) -> np.ndarray | None:
    """A random placement whose box hardly overlaps those that are taken; None if none is found."""
    outline = object_outline(cutout)
    for _ in range(PLACEMENTS):
        placement = random_placement(outline, frame, scales, rng)
        points = outline @ placement[:, :2].T + placement[:, 2]
        box = (*points.min(0), *points.max(0))
        if all(overlap(box, other) <= MAX_OVERLAP for other in taken):
            return placement
    return None


def overlap(a: Box, b: Box) -> float:
    """Intersection of two boxes as a share of the smaller one."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller


def mask_box(mask: np.ndarray) -> Box:
    """x, y, x + w, y + h of the bounding rectangle of a (h, w) uint8 mask."""
    x, y, w, h = cv2.boundingRect(mask)
    return x, y, x + w, y + h


def warp_cutout(cutout: np.ndarray, placement: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """Resample a premultiplied BGRA object into the frame: (h, w, 4) float32 in 0..1."""
    scale = np.sqrt(abs(np.linalg.det(placement[:, :2])))
    image = cutout
    if scale < 0.7:  # bilinear sampling alone would alias
        size = [max(1, round(1.4 * scale * side)) for side in (cutout.shape[1], cutout.shape[0])]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    step = np.array([cutout.shape[1] / image.shape[1], cutout.shape[0] / image.shape[0]])
    linear = placement[:, :2] * step
    shift = placement[:, 2] + placement[:, :2] @ ((step - 1) / 2)  # pixel centres
    layer = cv2.warpAffine(image, np.column_stack([linear, shift]), frame, flags=cv2.INTER_LINEAR)
    return layer / np.float32(255)


def paste(image: np.ndarray, cutout: np.ndarray, placement: np.ndarray,
          rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Composite an object into a float32 BGR image: (new image, its mask (h, w) uint8 0 or 255)."""
    layer = warp_cutout(cutout, placement, (image.shape[1], image.shape[0]))
    layer = cv2.GaussianBlur(layer, None, rng.uniform(0.3, 0.7))  # soft edge
    layer = jitter(layer, 0.3, rng)
    alpha = layer[..., 3:]
    return image * (1 - alpha) + layer[..., :3], (alpha[..., 0] > 0.5).astype(np.uint8) * 255


def expose(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Mild blur and sensor noise over the whole image -> uint8 BGR."""
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, None, rng.uniform(0.2, 0.8))
    image = image + rng.uniform(0, 0.02) * rng.standard_normal(image.shape, np.float32)
    return np.clip(np.round(image * 255), 0, 255).astype(np.uint8)


def compose(cutouts: list[np.ndarray], background: np.ndarray, size: int,
            rng: Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """One image of the objects: (h, w, 3) uint8 BGR and a (h, w) uint8 mask, 0 or 255, of each.

    An object that finds no place beside the others is left out.
    """
    frame = random_frame(size, rng)
    image, masks = jitter(crop_background(background, frame, rng), 0.4, rng), []
    for cutout in cutouts:
        placement = free_placement(cutout, frame, [mask_box(mask) for mask in masks],
                                   OBJECT_SCALE[len(cutouts)], rng)
        if placement is not None:
            image, mask = paste(image, cutout, placement, rng)
            masks = [*(cv2.subtract(hidden, mask) for hidden in masks), mask]
    return expose(image, rng), masks


class Sample(NamedTuple):
    split: int
    label: int
    index: int
    image: np.ndarray  # (h, w, 3) uint8 BGR
    masks: list[np.ndarray]  # of each object's visible part: (h, w) uint8, 0 or 255


def make_samples(source: Source, counts: tuple[int, int], size: int, seed: int,
                 pair_share: float) -> Iterator[Sample]:
    """All images, each from its own random stream; counts = images per class in each split."""
    for split, count in enumerate(counts):
        for label in range(len(source.names)):
            for index in range(count):
                pair = default_rng([seed, PAIR_STREAM, split, label, index]).random() < pair_share
                rng = default_rng([seed, split, label, index])
                background = source.background(split, rng)
                cutouts = [source.cutout(label, rng) for _ in range(1 + pair)]
                yield Sample(split, label, index, *compose(cutouts, background, size, rng))


# ---------------------------------------------------------------- layouts


def write_cub(folder: Path, samples: Iterator[Sample], names: list[str]) -> None:
    """Write images and masks as they come, the lists last."""
    lists: list[list[str]] = [[] for _ in SPLITS]
    for sample in samples:
        name = f'{sample.label + 1:03d}_{SPLITS[sample.split]}_{sample.index:04d}'
        path = f'{sample.label + 1:03d}.{names[sample.label]}/{name}'
        write_image(folder / 'image' / f'{path}.jpg', sample.image)
        mask, = sample.masks
        write_image(folder / 'segmentation' / f'{path}.png', mask)
        box = '{} {} {} {}'.format(*mask_box(mask))
        lists[sample.split].append(f'{path}.jpg,{sample.label},{box}\n')
    for split, lines in zip(SPLITS, lists, strict=True):
        write_text(folder / f'{split}.txt', ''.join(lines))


def write_imagenet(folder: Path, samples: Iterator[Sample], wnids: list[str],
                   val_numbers: np.ndarray) -> None:
    """Write images, masks and boxes as they come, the lists last.

    val_numbers: (classes, images per class), the numbers of the val images from 1.
    """
    lists: list[list[str]] = [[] for _ in SPLITS]
    for sample in samples:
        wnid, split = wnids[sample.label], SPLITS[sample.split]
        if split == 'train':
            name = f'{wnid}/{wnid}_{sample.index + 1}'
        else:
            name = f'ILSVRC2012_val_{val_numbers[sample.label, sample.index]:08d}'
            write_text(folder / 'box' / f'{name}.xml', describe_boxes(name, wnid, sample))
        write_image(folder / split / f'{name}.JPEG', sample.image)
        write_image(folder / 'segmentation' / f'{name}.png', np.maximum.reduce(sample.masks))
        lists[sample.split].append(f'{name}.JPEG {sample.label}\n')
    train_lines, val_lines = lists
    write_text(folder / 'train.txt', ''.join(train_lines))
    write_text(folder / 'val.txt', ''.join(sorted(val_lines)))


def shuffled_numbers(classes: int, count: int, seed: int) -> np.ndarray:
    """The numbers 1 ... classes * count in random order: (classes, count)."""
    order = default_rng([seed, ORDER_STREAM]).permutation(classes * count)
    return order.reshape(classes, count) + 1


def describe_boxes(name: str, wnid: str, sample: Sample) -> str:
    """The XML of an image's boxes, element by element as in the ILSVRC CLS-LOC release."""
    height, width, depth = sample.image.shape
    root = ElementTree.Element('annotation')
    add_texts(root, folder='val', filename=name)
    add_texts(ElementTree.SubElement(root, 'source'), database='ILSVRC_2012')
    add_texts(ElementTree.SubElement(root, 'size'), width=width, height=height, depth=depth)
    add_texts(root, segmented=0)
    for mask in sample.masks:
        entry = ElementTree.SubElement(root, 'object')
        add_texts(entry, name=wnid, pose='Unspecified', truncated=0, difficult=0)
        corners = zip(('xmin', 'ymin', 'xmax', 'ymax'), mask_box(mask), strict=True)
        add_texts(ElementTree.SubElement(entry, 'bndbox'), **dict(corners))
    ElementTree.indent(root, '\t')
    return ElementTree.tostring(root, encoding='unicode') + '\n'


def add_texts(parent: ElementTree.Element, **texts: object) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = str(text)


def write_image(path: Path, image: np.ndarray) -> None:
    quality = [] if path.suffix == '.png' else [cv2.IMWRITE_JPEG_QUALITY, 90]
    atomic_write(path, lambda file: file.write(cv2.imencode(path.suffix, image, quality)[1]))


# ---------------------------------------------------------------- replacing a set


def read_marker(folder: Path) -> dict | None:
    """What the set in a folder was made with; None if there is nothing, {} if it is unfinished."""
    if not folder.exists():
        return None
    try:
        return json.loads((folder / MARKER).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        if folder.is_dir() and not any(folder.iterdir()):
            return {}
        raise InputError(f'{folder}: exists and is not a mini set (no {MARKER}); move it away or '
                         'give another --out') from None


def discard(folder: Path) -> None:
    """Delete a set; if this is interrupted, what remains is still marked as an unfinished one."""
    write_json(folder / MARKER, {})
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()
    shutil.rmtree(folder)


# ---------------------------------------------------------------- command line


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('--layout', choices=list(DEFAULT_FOLDERS), default='cub', help='whose shape the set has')
    add('--out', type=Path, help='folder to make; None = dataset/mini or dataset/mini-imagenet')
    add('--classes', type=positive_int, default=10, help='number of classes')
    add('--train', type=positive_int, default=40, help='training images per class')
    add('--val', type=positive_int, default=20, help='validation images per class')
    add('--size', type=positive_int, default=256, help='longer side of an image in pixels')
    add('--seed', type=nonnegative_int, default=0, help='random seed')
    add('--cutouts', type=Path, metavar='DIR',
        help='RGBA PNG cut-outs, searched recursively; needs --backgrounds')
    add('--backgrounds', type=Path, metavar='DIR',
        help='photographs without objects, searched recursively; needs --cutouts')
    args = parser.parse_args()
    args.out = args.out or Path(__file__).resolve().parent / DEFAULT_FOLDERS[args.layout]
    return args


def check_args(args: argparse.Namespace) -> None:
    if args.size < MIN_SIZE:
        raise InputError(f'--size {args.size}: must be at least {MIN_SIZE}')
    if args.layout == 'imagenet' and args.classes > IMAGENET_CLASSES:
        raise InputError(f'--classes {args.classes}: ImageNet has {IMAGENET_CLASSES}')
    if (args.cutouts is None) != (args.backgrounds is None):
        given, missing = ('cutouts', 'backgrounds') if args.cutouts else ('backgrounds', 'cutouts')
        raise InputError(f'--{given} without --{missing}: give both, or neither to draw birds')


def describe(args: argparse.Namespace) -> dict:
    """The marker of a finished set: everything that decides its content."""
    content = {name: value.resolve().as_posix() if isinstance(value, Path) else value
               for name, value in vars(args).items() if name != 'out'}
    return {'format_version': FORMAT_VERSION, **content}


def open_source(args: argparse.Namespace) -> Source:
    if args.cutouts:
        return PhotoSource(args.cutouts, args.backgrounds, args.classes, args.seed)
    return DrawnSource(args.classes, args.size, args.seed)


def write_set(folder: Path, args: argparse.Namespace, source: Source) -> None:
    """Make all images in `folder`, in the layout asked for."""
    counts = (args.train, args.val)
    samples = make_samples(source, counts, args.size, args.seed, PAIR_SHARE[args.layout])
    progress = tqdm(samples, total=args.classes * sum(counts), unit='image', disable=None)
    if args.layout == 'imagenet':
        write_imagenet(folder, progress, read_wnids(WNIDS)[:args.classes],
                       shuffled_numbers(args.classes, args.val, args.seed))
    else:
        write_cub(folder, progress, source.names)


def main() -> None:
    args = parse_args()
    check_args(args)
    if read_marker(args.out) == describe(args):
        print(f'{args.out}: already there')
        return
    source = open_source(args)
    out = args.out.resolve()
    build = out.with_name(out.name + '.tmp')
    if read_marker(build) is not None:
        discard(build)
    write_json(build / MARKER, {})
    write_set(build, args, source)
    write_json(build / MARKER, describe(args))
    if out.exists():
        discard(out)
    os.replace(build, out)
    print(f'{args.out}: {args.classes} classes, {args.train} + {args.val} images each')


if __name__ == '__main__':
    run(main)
