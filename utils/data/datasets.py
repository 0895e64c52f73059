"""Data sets: what is read from the disk for an image, and what a transform makes of it.

Training items are indexed by (epoch, index). Augmentation is seeded by (seed, epoch, index), so it
does not depend on the worker or process, and a resumed run repeats it.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from utils.data.images import explain_lack_of_memory, read_image, read_stored_mask
from utils.data.lists import ImageList
from utils.data.transforms import check_image, seed_transform
from utils.errors import InputError
from utils.localization.boxes import CentreCrop
from utils.localization.pseudo_mask import seg_target

if TYPE_CHECKING:
    import albumentations as A


@dataclass(frozen=True)
class TrainImages(Dataset):
    """(epoch, index) -> {'image': uint8 H x W x 3, 'label': int}, H and W as `transform` says."""

    images: ImageList
    transform: 'A.Compose'
    seed: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        _, index = key
        image = read_image(self.images.path(index))
        return {'image': self._transformed(key, image=image)['image'],
                'label': self.images.labels[index]}

    def _transformed(self, key: tuple[int, int], **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """The transform of an image and what belongs to it; raises InputError where the image is
        not as the network expects it."""
        epoch, index = key
        seed_transform(self.transform, self.seed, epoch, index)
        with explain_lack_of_memory(self.images.path(index)):
            item = self.transform(**arrays)
        check_image(item['image'], self.transform)
        return item

    def fingerprint(self) -> dict[str, Any]:
        """What two runs must have in common to see the same items."""
        transform = re.sub(' at 0x[0-9a-f]+', '', repr(self.transform))  # of a user's function
        return {'content of the list': self.images.checksum(), 'transform': transform}


@dataclass(frozen=True)
class TrainMasks(TrainImages):
    """(epoch, index) -> the image as above, with its segmentation target 'foreground' and
    'valid', bool H x W, which is false in the paper's conflict region
    (`utils.localization.pseudo_mask.seg_target`)."""

    mask_folder: Path

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        _, index = key
        path = self.images.mask_path(self.mask_folder, index)
        image, stored = read_image(self.images.path(index)), read_stored_mask(path)
        if stored.shape[:2] != image.shape[:2]:
            raise InputError(f'{path} is {stored.shape[1]} x {stored.shape[0]} pixels, but its '
                             f'image {image.shape[1]} x {image.shape[0]}: make the pseudo masks '
                             'of these images with the cam stage\'s test.py')
        item = self._transformed(key, image=image, mask=stored)
        foreground, valid = seg_target(item['mask'])
        return {'image': item['image'], 'foreground': foreground, 'valid': valid,
                'label': self.images.labels[index]}

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), '--maskpath': str(self.mask_folder)}


class EvalImages(Dataset):
    """index -> {'index', 'size': (height, width) of the image, and each view by its name: float32
    in [0, 1], S x S x 3 (`CentreCrop.view`)}."""

    def __init__(self, images: ImageList, **views: CentreCrop):
        self.images, self.views = images, views

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.item(index, self.read(index))

    def read(self, index: int) -> np.ndarray:
        """The decoded image, uint8 H x W x 3."""
        return read_image(self.images.path(index))

    def item(self, index: int, image: np.ndarray) -> dict[str, Any]:
        # A large image in float32 takes four times as much.
        with explain_lack_of_memory(self.images.path(index)):
            return {'index': index, 'size': np.array(image.shape[:2]),
                    **{name: crop.view(image) for name, crop in self.views.items()}}
