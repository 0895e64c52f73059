"""Data sets: what an image becomes before it enters a network.

Training items are asked for by (epoch, index), and draw their crop and flip from
(seed, epoch, index): the same whatever the worker, the process, or the restart.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from utils.data.images import centre_crop, read_image, read_stored_mask, resize, resize_nearest
from utils.data.lists import ImageList
from utils.localization.pseudo_mask import seg_target


@dataclass(frozen=True)
class RandomCrop:
    """A random crop of a resized image, and a horizontal flip with probability 0.5."""

    resize: int
    crop: int
    top: int
    left: int
    flip: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, resize: int, crop: int) -> 'RandomCrop':
        top, left = rng.integers(0, resize - crop + 1, 2)
        return cls(resize, crop, int(top), int(left), bool(rng.integers(2)))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """An image resize x resize (x C) -> crop x crop (x C)."""
        image = image[self.top:self.top + self.crop, self.left:self.left + self.crop]
        return np.ascontiguousarray(image[:, ::-1] if self.flip else image)


@dataclass(frozen=True)
class TrainingImages(Dataset):
    """(epoch, index) -> {'image': crop x crop x 3 uint8, 'label': int}; a crop of 0 is none."""

    images: ImageList
    folder: Path
    resize: int
    crop: int
    seed: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        image = read_image(self.folder / self.images.names[index])
        crop = self.random_crop(epoch, index)
        return {'image': crop(resize(image, (self.resize, self.resize))),
                'label': self.images.labels[index]}

    def random_crop(self, epoch: int, index: int) -> RandomCrop:
        rng = np.random.default_rng((self.seed, epoch, index))
        return RandomCrop.draw(rng, self.resize, self.crop or self.resize)


@dataclass(frozen=True)
class TrainingMasks(TrainingImages):
    """(epoch, index) -> image as above, with 'foreground' and 'weight', crop x crop bool."""

    mask_folder: Path

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        item = super().__getitem__(key)  # first: an image that cannot be decoded has no mask
        stored = read_stored_mask(mask_path(self.mask_folder, self.images.names[index]))
        crop = self.random_crop(epoch, index)
        foreground, weight = seg_target(crop(resize_nearest(stored, (self.resize, self.resize))))
        return {**item, 'foreground': foreground, 'weight': weight}


@dataclass(frozen=True)
class TestImages(Dataset):
    """index -> {'index', 'image': the centre crop (uint8, crop x crop x 3),
    'size': (height, width) of the original}; `whole`, where it is not 0, adds
    'whole': the uncropped image at whole x whole."""

    images: ImageList
    folder: Path
    resize: int
    crop: int = 0
    whole: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = read_image(self.folder / self.images.names[index])
        resized = centre_crop(resize(image, (self.resize, self.resize)), self.crop)
        item = {'index': index, 'image': np.ascontiguousarray(resized),
                'size': np.array(image.shape[:2])}
        if self.whole:
            item['whole'] = resize(image, (self.whole, self.whole))
        return item


def mask_path(folder: Path, name: str) -> Path:
    """Where the mask of the image called `name` lies: the same name, but PNG."""
    return folder / Path(name).with_suffix('.png')
