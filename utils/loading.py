"""Batches of a data set, read by worker processes; their errors arrive as they were raised."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler, default_collate

from utils.errors import InputError


@dataclass(frozen=True)
class _Caught(Dataset):
    """A worker cannot raise an exception whole, so it hands it over as an item."""

    dataset: Dataset

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.dataset[key]
        except InputError as error:
            return error


def _collate(items: list) -> Any:
    errors = [item for item in items if isinstance(item, InputError)]
    return errors[0] if errors else default_collate(items)


class Batches:
    """Iterates over the batches of `sampler`, anew each time; workers are kept alive between.

    Raises, where an item raised it, its InputError.
    """

    def __init__(self, dataset: Dataset, sampler: Iterable[list], workers: int,
                 device: torch.device):
        self._loader = DataLoader(
            _Caught(dataset), batch_sampler=sampler, num_workers=workers, collate_fn=_collate,
            persistent_workers=workers > 0, pin_memory=device.type == 'cuda')

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


def in_order(count: int, batch_size: int) -> BatchSampler:
    """All of 0 ... count-1, once each, in order."""
    return BatchSampler(SequentialSampler(range(count)), batch_size, drop_last=False)
