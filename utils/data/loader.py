"""Batches of a training set, read by worker processes; their errors arrive as they were raised."""

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from utils.data.images import BadImageError
from utils.errors import InputError

MOST_BAD_IN_A_ROW = 100


@dataclass(frozen=True)
class _Substituting(Dataset):
    """(epoch, index) -> (item, indices of bad images), or the InputError, which a worker process
    cannot raise whole. With `skip_bad`, the next image of the list that can be decoded takes a
    bad one's place, so that all batches keep their size."""

    dataset: Dataset
    skip_bad: bool

    def __getitem__(self, key: tuple[int, int]) -> tuple[dict, list[int]] | InputError:
        epoch, first = key
        bad = []
        for offset in range(MOST_BAD_IN_A_ROW):
            index = (first + offset) % len(self.dataset)
            try:
                return self.dataset[epoch, index], bad
            except BadImageError as error:
                if not self.skip_bad:
                    return error
                bad.append(index)
            except InputError as error:
                return error
        return InputError(f'{MOST_BAD_IN_A_ROW} images in a row cannot be decoded: check the list '
                          'and the folder')


def _collate(items: list) -> tuple[dict, list[int]] | InputError:
    for item in items:
        if isinstance(item, InputError):
            return item
    return default_collate([item for item, _ in items]), sum((bad for _, bad in items), [])


class Batches:
    """Iterates over the batches of `sampler`, anew each time; workers are kept alive between.

    `note_bad` is called with the index of each image that is left out; without it the first
    ends the run. Raises, where an item raised it, its InputError.
    """

    def __init__(self, dataset: Dataset, sampler: Iterable[list], workers: int,
                 device: torch.device, note_bad: Callable[[int], None] | None = None):
        self._note_bad = note_bad
        self._loader = DataLoader(
            _Substituting(dataset, note_bad is not None), batch_sampler=sampler,
            num_workers=workers, collate_fn=_collate, persistent_workers=workers > 0,
            pin_memory=device.type == 'cuda', worker_init_fn=_ignore_signals)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for read in self._loader:
            if isinstance(read, InputError):
                raise read
            batch, bad = read
            for index in bad:
                self._note_bad(index)
            yield batch


def _ignore_signals(worker: int) -> None:
    """A signal to all processes of a run must not take the readers from the one that saves."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)


@atexit.register
def _kill_readers() -> None:
    """Else Python, at its end, would send those that are left SIGTERM, and wait for them."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would call it a failure
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


@contextmanager
def explain_dead_workers() -> Iterator[None]:
    """Turn the death of a reading process into an InputError."""
    try:
        yield
    except RuntimeError as error:
        if 'DataLoader worker' not in str(error):
            raise
        raise InputError('a process that reads images was killed (out of memory?): go on with '
                         '--resume, and try a smaller --num_workers') from error
