"""The images of make_mini.py: drawn birds or photographs, each image from its own random stream."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from compositing import compose, merge, random_part
from draw_birds import SPECIES_LIMIT, draw_bird, make_species
from draw_scenes import draw_background
from numpy.random import Generator, default_rng
from painting import trim

from utils.errors import InputError

# First numbers after the seed in a random stream; an image's stream has its split (0 or 1) there.
SPECIES_STREAM, CUTOUT_STREAM, PHOTO_STREAM, SCENE_STREAM, PAIR_STREAM, ORDER_STREAM = range(2, 8)
DRAWN_BACKGROUNDS = 24  # per split
TRAIN_SHARE = 0.7  # of the background photographs
BIRD_SCALE, SCENE_SCALE = 1.6, 2  # size of the canvas of a drawing, in frames


class DrawnSource:
    """Birds and landscapes that this script draws; `names`: of the classes, usable as folders'."""

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
        """An object of the class: (h, w, 4) uint8 premultiplied BGRA."""
        return draw_bird(self.species[label], self.bird_px, rng)

    def background(self, split: int, rng: Generator) -> np.ndarray:
        """A background of the split: (h, w, 3) uint8 BGR."""
        return self.draw_pooled(split, int(rng.integers(DRAWN_BACKGROUNDS)))


class PhotoSource:
    """Cut-outs (RGBA PNG, one per class) and background photographs from two folders; as
    DrawnSource."""

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


Source = DrawnSource | PhotoSource


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
