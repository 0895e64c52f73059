"""Data sets: what is read from the disk for an image, what a transform makes of it, and in which
order training sees it.

Training items are indexed by (epoch, index). Augmentation is seeded by (seed, epoch, index), so it
does not depend on the worker or process, and a resumed run repeats it.
"""

import random
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from utils.boxes import CentreCrop
from utils.errors import InputError
from utils.images import BadImageError, read_image, read_stored_mask
from utils.lists import ImageList
from utils.pseudo_mask import seg_target


def train_transform(resize: int, crop: int) -> Any:
    """The augmentation of all trainings: resize, random crop (0: none), horizontal flip; training
    itself normalises. A mask is transformed with its image."""
    import albumentations as A  # takes seconds, and tests do without

    return A.Compose([A.Resize(resize, resize, interpolation=cv2.INTER_LINEAR),
                      A.RandomCrop(crop or resize, crop or resize), A.HorizontalFlip(p=0.5)])


@dataclass(frozen=True)
class TrainImages(Dataset):
    """(epoch, index) -> {'image': uint8 H x W x 3, 'label': int, 'index': int, 'skipped': int}, H
    and W as `transform` says. With `skip_bad` the next image of the list takes the place of one
    that cannot be decoded; 'skipped' counts these."""

    images: ImageList
    transform: Any  # albumentations.Compose
    seed: int
    skip_bad: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, first = key
        for skipped in range(len(self)):
            index = (first + skipped) % len(self)
            try:
                arrays = self.read(index)
            except BadImageError:
                if not self.skip_bad:
                    raise
                continue
            state = np.random.SeedSequence((self.seed, epoch, index))
            # set_random_seed would give each step the same stream: all apply together or none.
            self.transform.set_random_state(np.random.default_rng(state), random.Random(
                int(state.generate_state(1, np.uint64)[0])))
            return {**self.transform(**arrays), 'label': self.images.labels[index],
                    'index': first, 'skipped': skipped}
        raise InputError(f'none of the images of {self.images.source} can be decoded')

    def read(self, index: int) -> dict[str, np.ndarray]:
        return {'image': read_image(self.images.path(index))}

    def fingerprint(self) -> dict[str, Any]:
        """What two runs must have in common to see the same items."""
        transform = re.sub(' at 0x[0-9a-f]+', '', repr(self.transform))  # of a user's function
        return {'content of the list': self.images.checksum(), 'transform': transform}


@dataclass(frozen=True)
class TrainMasks(TrainImages):
    """(epoch, index) -> the image as above, with its segmentation target 'foreground' and 'valid',
    bool H x W each (`utils.pseudo_mask.seg_target`)."""

    mask_folder: Path = Path('mask')

    def read(self, index: int) -> dict[str, np.ndarray]:
        image = read_image(self.images.path(index))
        path = self.images.mask_path(self.mask_folder, index)
        mask = read_stored_mask(path)
        if mask.shape[:2] != image.shape[:2]:
            raise InputError(f'{path} does not have the size of its image: make the pseudo masks '
                             "of these images with the cam stage's test.py")
        return {'image': image, 'mask': mask}

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        item = super().__getitem__(key)
        foreground, valid = seg_target(item.pop('mask'))
        return {**item, 'foreground': foreground, 'valid': valid}

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), '--maskpath': str(self.mask_folder)}


@dataclass(frozen=True)
class EvalImages(Dataset):
    """index -> {'index', 'name', 'label', 'size': (height, width) of the image, and each view by
    its name: float32 in [0, 1], S x S x 3 (`CentreCrop.view`)}."""

    images: ImageList
    views: dict[str, CentreCrop]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = read_image(self.images.path(index))
        return {'index': index, 'name': self.images.name(index),
                'label': self.images.labels[index], 'size': np.array(image.shape[:2]),
                **{name: crop.view(image) for name, crop in self.views.items()}}


@dataclass
class TrainBatches(Sampler):
    """The batches of a training, of (epoch, index), one stream over all epochs from step `start`
    to `stop`, shuffled by (seed, epoch); each rank gets its share of every batch. A last batch of
    an epoch with a single image for a rank is left out: batch norm cannot train on it."""

    count: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    start: int = 0
    stop: int = 0

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self.count, self.batch_size)
        return full + (rest >= 2 * self.world_size)

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.stop):
            epoch, number = divmod(step, self.per_epoch)
            if step == self.start or number == 0:
                order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
            batch = order[number * self.batch_size:(number + 1) * self.batch_size]
            yield [(epoch, int(index)) for index in batch[self.rank::self.world_size]]

    def size(self, step: int) -> int:
        """The number of images, on all ranks together, of a step's batch."""
        return min(self.batch_size, self.count - step % self.per_epoch * self.batch_size)


@dataclass(frozen=True)
class ErrorsAsItems(Dataset):
    """A data set whose InputErrors are items: raised in a worker process, they would lose their
    type on the way out."""

    dataset: Dataset

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.dataset[key]
        except InputError as error:
            return error


def load_batches(dataset: Dataset, batches: Any, workers: int, pin_memory: bool
                 ) -> Iterator[dict[str, Any] | list[InputError]]:
    """Read batches, lists of the data set's keys, in `workers` processes. A batch has the stacked
    items, and under 'errors' the InputErrors in place of others."""
    return iter(DataLoader(
        ErrorsAsItems(dataset), batch_sampler=batches, num_workers=workers, collate_fn=collate,
        pin_memory=pin_memory, worker_init_fn=init_worker))


def collate(items: list[Any]) -> dict[str, Any]:
    good = [item for item in items if not isinstance(item, InputError)]
    errors = [item for item in items if isinstance(item, InputError)]
    return {**(default_collate(good) if good else {}), 'errors': errors}


def init_worker(worker: int = 0) -> None:
    """Set up a process that reads or computes beside the main one. A signal goes to all processes
    of a run: the main one decides when the others end."""
    cv2.setNumThreads(0)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
