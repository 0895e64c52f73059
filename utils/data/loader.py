"""Batches of a training set, read by worker processes."""

import atexit
import errno
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from utils.data.datasets import TrainImages
from utils.data.images import BadImageError
from utils.data.transforms import check_sizes
from utils.engine.interruption import SIGNALS
from utils.errors import InputError

MAX_CONSECUTIVE_BAD = 100


class EpochSampler(Sampler):
    """Batches of (epoch, index), shuffled by (seed, epoch), from batch `start` on; each rank gets
    its share of every batch.

    A last batch with a single image for a rank is left out: batch norm cannot train on it.
    """

    def __init__(self, count: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1):
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = self.start = 0

    def __len__(self) -> int:
        full, rest = divmod(self.count, self.batch_size)
        return full + (rest >= 2 * self.world_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        for step in range(self.start, len(self)):
            batch = order[step * self.batch_size:(step + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in batch[self.rank::self.world_size]]

    def seek(self, step: int) -> int:
        """Continue at a step of the training, counted from 0; the epoch that it belongs to."""
        self.epoch, self.start = divmod(step, len(self))
        return self.epoch

    def size(self, step: int) -> int:
        """The number of images, on all ranks together, of an epoch's batch `step`."""
        return min(self.batch_size, self.count - step * self.batch_size)


class TrainLoader:
    """Iterates over the batches of an `EpochSampler`; worker processes are kept between epochs.

    `report_bad` is called with the index of each image that cannot be decoded; the next image of
    the list that can be takes its place, so that batches keep their size. Without `report_bad`
    the first bad image raises BadImageError. InputErrors of the data set are raised as they are.
    """

    def __init__(self, dataset: Dataset, sampler: EpochSampler, workers: int, pin_memory: bool,
                 report_bad: Callable[[int], None] | None = None):
        self._report_bad = report_bad
        self._loader = DataLoader(
            _SkipBadDataset(dataset, report_bad is not None), batch_sampler=sampler,
            num_workers=workers, collate_fn=partial(_collate, dataset),
            persistent_workers=workers > 0, pin_memory=pin_memory, worker_init_fn=_init_worker)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        before = set(multiprocessing.active_children())
        batches = iter(self._loader)
        if workers := set(multiprocessing.active_children()) - before:
            atexit.register(_kill, workers)
        for batch in batches:
            if isinstance(batch, InputError):
                raise batch
            items, bad = batch
            for index in bad:
                self._report_bad(index)
            yield items


@dataclass(frozen=True)
class _SkipBadDataset(Dataset):
    """(epoch, index) -> (item, indices of bad images), or the InputError, which would lose its
    type on its way out of a worker process if it were raised."""

    dataset: Dataset
    skip_bad: bool

    def __getitem__(self, key: tuple[int, int]) -> tuple[dict, list[int]] | InputError:
        epoch, first = key
        bad = []
        for offset in range(MAX_CONSECUTIVE_BAD):
            index = (first + offset) % len(self.dataset)
            try:
                return self.dataset[epoch, index], bad
            except BadImageError as error:
                if not self.skip_bad:
                    return error
                bad.append(index)
            except InputError as error:
                return error
        return InputError(f'{MAX_CONSECUTIVE_BAD} images in a row cannot be decoded: check the '
                          'list and the folder')


def _collate(dataset: Dataset, items: list) -> tuple[dict, list[int]] | InputError:
    for item in items:
        if isinstance(item, InputError):
            return item
    if isinstance(dataset, TrainImages):
        try:
            check_sizes([item['image'] for item, _ in items], dataset.transform)
        except InputError as error:
            return error
    return default_collate([item for item, _ in items]), [i for _, bad in items for i in bad]


def _init_worker(worker: int) -> None:
    cv2.setNumThreads(0)
    # A signal goes to all processes of a run; the workers must outlive it until the run is saved.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _kill(workers: set) -> None:
    """End workers that ignore SIGTERM, for which Python would wait at its exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would report a failure
    for worker in workers:
        worker.kill()


@contextmanager
def explain_dead_workers() -> Iterator[None]:
    """Turn the death of a worker process, or a lack of what processes need to share their images,
    into an InputError."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        if reason := _lack_of_sharing(error):
            raise InputError(f'processes cannot share the images that they read ({reason}): allow '
                             'more shared memory (/dev/shm) or open files (ulimit -n), or use '
                             '--num_workers 0') from error
        if 'DataLoader worker' not in str(error) or 'Caught ' in str(error):
            raise
        raise InputError('a process that reads images was killed (out of memory?): continue with '
                         '--resume, and try a smaller --num_workers') from error


def _lack_of_sharing(error: Exception) -> str | None:
    """What PyTorch or the system says of shared memory and open files; None for other errors."""
    if isinstance(error, OSError):
        return str(error) if error.errno in (errno.EMFILE, errno.ENOSPC, errno.EROFS) else None
    words = ('shared memory', '/torch_', 'Too many open files', 'ancdata')
    return next((line.strip() for line in str(error).splitlines()
                 if any(word in line for word in words)), None)
