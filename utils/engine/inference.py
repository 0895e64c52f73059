"""What the test scripts share: a network that is ready to predict, and the way that images take
through it, several parts of the list at once."""

import argparse
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from utils.data.datasets import TestImages
from utils.data.images import BadImageError, normalise
from utils.data.lists import ImageList
from utils.engine.distributed import process_count, process_index
from utils.engine.folding import ready_to_predict
from utils.engine.progress import Progress
from utils.engine.runtime import (
    Precision,
    available_cores,
    choose_device,
    explain_memory,
    is_out_of_memory,
)
from utils.errors import InputError
from utils.outputs.bad_images import BadImages

CPU_PART = 16  # images; larger parts were slower, and take more memory
MOST_CUDA_READERS = 8

Result = TypeVar('Result')


class Predictor:
    """A network in evaluation mode, on its device, at the precision that --amp says; `method`
    names the method of the network that is called. Threads may share it."""

    def __init__(self, model: nn.Module, args: argparse.Namespace, method: str = 'forward'):
        if args.amp == 'apex':
            raise InputError('--amp apex is for training: use --amp auto or off')
        self.device = choose_device(args.device)
        self.precision = Precision(args.amp, self.device)
        self.mean, self.std = model.mean, model.std
        self.batch_size = args.batch_size
        ready = ready_to_predict(model, self.precision.half)
        ready = ready.to(self.device, memory_format=torch.channels_last)
        self._plain = getattr(ready, method)
        self._compiled = _compile(self._plain) if args.compile else None
        # A GPU works through one batch after the other: more at once would only fill its memory.
        self._turn = nullcontext() if self.device.type == 'cpu' else threading.Lock()

    @torch.inference_mode()
    def __call__(self, images: Tensor, *more: Tensor) -> Any:
        """Bytes N x H x W x 3, and more tensors -> what the network makes of them."""
        # A last part of another size is not worth a compilation of its own.
        whole = len(images) == part_size(self.batch_size, self.device)
        predict = self._compiled if self._compiled and whole else self._plain
        with self._turn, explain_memory(self.batch_size), self.precision.autocast():
            images = normalise(images.to(self.device), self.mean, self.std)
            return predict(images, *(tensor.to(self.device) for tensor in more))


def _compile(predict: Callable) -> Callable:
    """`predict`, compiled when it is first called, by one thread while others wait."""
    compiled = torch.compile(predict, dynamic=False, options={'freezing': True})
    lock, done, failures = threading.Lock(), threading.Event(), []

    def first_alone(*tensors: Tensor) -> Any:
        if done.is_set():
            return compiled(*tensors)
        with lock:
            if failures:
                raise failures[0]
            try:
                result = compiled(*tensors)
            except Exception as error:  # the compiler raises many kinds
                if is_out_of_memory(error):
                    raise
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                failures.append(InputError(f'--compile: PyTorch cannot compile here ({reason}): '
                                           'leave it out'))
                raise failures[0] from error
            done.set()
            return result

    return first_alone


def labels_of(images: ImageList, batch: dict) -> Tensor:
    """The classes of a batch's images, N int64."""
    return torch.from_numpy(images.labels[batch['index'].numpy()])


def process(dataset: TestImages, args: argparse.Namespace, label: str,
            work: Callable[[dict], Result], bad: BadImages,
            done: Callable[[range], Result | None] | None = None) -> Iterator[Result]:
    """Yield work(batch) for this process's share of the images, in order, with a progress bar.

    A thread takes a part of the images from the files to the result; on the CPU there is a
    thread a core, with a core each, so that neither reading nor post-processing holds up a
    network, and no result hangs on the number of cores or processes.
    `bad` notes the images that cannot be decoded, where these are to be left out. `done` may
    give the result of a part that need not be worked on.
    """
    device = choose_device(args.device)
    parts = my_parts(len(dataset), args.batch_size, device)
    progress = Progress(label, sum(map(len, parts)))

    def take(part: range) -> tuple[range, list[int], Result | None]:
        if done and (result := done(part)) is not None:
            return part, [], result
        items, left_out = _read(dataset, part, bad.wanted)
        return part, left_out, work(default_collate(items)) if items else None

    for part, left_out, result in in_threads(take, parts, threads(args.num_workers, device),
                                             single=device.type == 'cpu'):
        for index in left_out:
            bad.add(index)
        if result is not None:
            yield result
        progress.update(len(part))
    progress.close()


def _read(dataset: TestImages, part: Sequence[int], skip_bad: bool
          ) -> tuple[list[dict], list[int]]:
    """The items of a part, and the indices of the bad images that are left out."""
    items, left_out = [], []
    for index in part:
        try:
            items.append(dataset[index])
        except BadImageError:
            if not skip_bad:
                raise
            left_out.append(index)
    return items, left_out


def my_parts(count: int, batch_size: int, device: torch.device) -> list[range]:
    """The batches of this process, every N-th of all, cut into parts."""
    size = part_size(batch_size, device)
    starts = range(process_index() * batch_size, count, process_count() * batch_size)
    return [range(first, min(first + size, start + batch_size, count))
            for start in starts for first in range(start, min(start + batch_size, count), size)]


def part_size(batch_size: int, device: torch.device) -> int:
    """How many images a network is given at once."""
    return min(batch_size, CPU_PART) if device.type == 'cpu' else batch_size


def threads(wanted: int, device: torch.device) -> int:
    """`wanted`, else a thread for each core of this process; on CUDA at most 8."""
    cores = available_cores()
    return wanted or (cores if device.type == 'cpu' else min(cores, MOST_CUDA_READERS))


def in_threads(function: Callable, items: Iterable, count: int, single: bool) -> Iterator:
    """Yield function(item) for each item in order, `count` at once; little is held in memory.

    `single`: within these threads, PyTorch uses no further ones.
    """
    before = torch.get_num_threads()
    start = torch.set_num_threads if single else None
    waiting: deque = deque()
    pool = ThreadPoolExecutor(count, initializer=start, initargs=(1,) if single else ())
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
