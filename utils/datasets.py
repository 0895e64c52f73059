"""Data sets: what is read from the disk for an image, what a transform makes of it, and in which
order training sees it.

Training items are indexed by (epoch, index). Augmentation is seeded by (seed, epoch, index), so it
does not depend on the worker or process, and a resumed run repeats it.
"""

import random
import re
import signal
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from utils.boxes import CentreCrop
from utils.errors import InputError, warn
from utils.files import read_stamp, source_of
from utils.images import read_image, read_stored_mask
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
    """(epoch, index) -> {'image': uint8 H x W x 3, 'label': int}, H and W as `transform` says."""

    images: ImageList
    transform: Any  # albumentations.Compose
    seed: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        state = np.random.SeedSequence((self.seed, epoch, index))
        # set_random_seed would give each step the same stream: all apply together or none.
        self.transform.set_random_state(np.random.default_rng(state), random.Random(
            int(state.generate_state(1, np.uint64)[0])))
        return {**self.transform(**self.read(index)), 'label': self.images.labels[index]}

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


def stamps(folder: Path, images: ImageList) -> dict[int, str]:
    """The stamps of the pseudo masks of up to 1,000 images of a list, by the image: the checkpoint,
    its settings, and the image's file (`utils.pseudo_masks.MaskWriter`)."""
    found = {index: read_stamp(images.mask_path(folder, index)) for index in images.sample(1000)}
    return {index: stamp for index, stamp in found.items() if stamp}


def makers(found: dict[int, str]) -> set[str]:
    """The checkpoints, with their settings, that are in stamps."""
    return {stamp.rpartition(' ')[0] for stamp in found.values()}


def check_masks(folder: Path, images: ImageList) -> None:
    """Raises InputError for images that were replaced since their pseudo masks were made; warns
    where several checkpoints have made the masks."""
    found = stamps(folder, images)
    old = [images.name(index) for index, stamp in found.items()
           if stamp.split()[-1] != source_of(images.path(index))]
    if old and len(old) < len(found) / 2:  # if all differ, the images were copied
        raise InputError(f'{len(old)} images are newer than their pseudo masks in {folder}, the '
                         f"first is {old[0]}: run the cam stage's test.py --resume")
    if len(makers(found)) > 1:
        warn(f'{folder} has masks of several checkpoints or settings: make them anew with the cam '
             "stage's test.py --overwrite")


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


def load_batches(dataset: Dataset, batches: Any, workers: int, pin_memory: bool
                 ) -> Generator[dict[str, Any]]:
    """Read batches, lists of the data set's keys, in `workers` processes, which end with the
    generator. Close it: those that an exception's traceback keeps would block Python's end."""
    loader = iter(DataLoader(dataset, batch_sampler=batches, num_workers=workers,
                             pin_memory=pin_memory, worker_init_fn=init_worker))
    try:
        yield from loader
    finally:
        if workers:
            loader._shutdown_workers()


def init_worker(worker: int = 0) -> None:
    """Set up a process that reads or computes beside the main one. A signal goes to all processes
    of a run: the main one decides when the others end."""
    cv2.setNumThreads(0)
    sys.excepthook = lambda *error: None  # of a thread that the main process no longer answers
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
