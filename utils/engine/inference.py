"""Inference over an image list: on the CPU in threads, on CUDA as a pipeline."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from network.errors import first_line
from utils.data.datasets import EvalImages
from utils.data.images import BadImageError
from utils.data.lists import ImageList
from utils.engine.device import available_cores
from utils.engine.distributed import gather_to_main, rank, world_size
from utils.engine.fusing import prefer_onednn, prepare_inference
from utils.engine.normalize import Normalize
from utils.engine.precision import Precision, explain_out_of_memory
from utils.engine.progress import Progress
from utils.engine.resize import pixels_of, resized_views
from utils.engine.transfer import Transfer
from utils.errors import InputError
from utils.outputs.bad_images import BadImages

CPU_CHUNK = 4  # images; feature maps above 32 MiB are allocated anew, with page faults, each time
BATCH_SIZE = 16
MOST_CUDA_READERS = 16
QUEUED = 2  # chunks that wait between two steps of a pipeline
MOST_BYTES = 2**27  # of the decoded images of a chunk; larger ones are resized when they are read

Result = TypeVar('Result')


class Predictor:
    """A network in evaluation mode on a device, at a precision; threads may share it.

    Arguments:
        model: a network with `mean` and `std`, the normalization that it expects.
        amp: `auto` | `fp16` | `bf16` | `off`.
        batch_size: the size of the batches to come; a compiled network runs those alone.
        method: the name of the network's method that is called.
        thread: the pool of one thread that runs the network; by default that of the caller. On
            CUDA the handles and plans of cuDNN and cuBLAS belong to a thread, and take seconds.
    """

    def __init__(self, model: nn.Module, device: torch.device, amp: str = 'off',
                 batch_size: int = BATCH_SIZE, compile: bool = False, method: str = 'forward',
                 thread: ThreadPoolExecutor | None = None):
        self.device, self.batch_size, self._thread = device, batch_size, thread
        self.transfer = Transfer(device)
        self.precision = Precision(amp, device, model)
        self.normalize = Normalize(model.mean, model.std).to(device)
        ready = prepare_inference(model, self.precision.dtype)
        if device.type == 'cpu':
            prefer_onednn(ready)
        self._predict = getattr(ready.to(device, memory_format=torch.channels_last), method)
        self._compiled = None
        if compile:
            self._compiled = torch.compile(self._predict, dynamic=False,
                                           options={'freezing': True})

    def __call__(self, images: Tensor, *more: Tensor) -> Any:
        """Images N x H x W x 3, uint8 or float32 in [0, 1], and further tensors -> what the
        network's method returns for them, on the device."""
        tensors = [self.transfer.pin(tensor) for tensor in (images, *more)]
        return self._thread.submit(self._run, *tensors).result() if self._thread else (
            self._run(*tensors))

    @torch.inference_mode()
    def _run(self, images: Tensor, *more: Tensor) -> Any:
        with explain_out_of_memory(self.batch_size), self.precision.autocast():
            images, *more = map(self.transfer.upload, (images, *more))
            inputs = self.normalize(images), *more
            if self._compiled and len(images) == self.batch_size:
                return self._run_compiled(*inputs)
            return self._predict(*inputs)

    def _run_compiled(self, *inputs: Tensor) -> Any:
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import InductorError

        try:
            return self._compiled(*inputs)
        except (TorchDynamoException, InductorError) as error:
            raise InputError(f'--compile: PyTorch cannot compile here ({first_line(error)}): leave '
                             'it out') from error


@dataclass(frozen=True)
class InferenceOptions:
    """How test stages run a network, named as their flags."""

    amp: str = 'off'
    batch_size: int = BATCH_SIZE
    num_workers: int = 0
    compile: bool = False
    skip_bad: bool = False


class Chunk(NamedTuple):
    """A part of a list: the images that could be read, the others, and what was made of it.

    A batch holds 'decoded', the pixels of all its images, instead of their views where these are
    to be made on the device.
    """

    indices: range
    left_out: list[int]
    batch: dict[str, Any] | None = None
    result: Any = None


class Inference:
    """Runs networks over lists of images, on a device.

    Batches are split into chunks. On the CPU each thread, one per core, processes a chunk from end
    to end: reading, forward pass, post-processing. On CUDA, or if `pipelined`, some threads read,
    one thread owns the network, and others do what follows it. Chunks, and therefore results, do
    not depend on the number of threads or ranks.
    """

    def __init__(self, device: torch.device, options: InferenceOptions | None = None,
                 pipelined: bool | None = None):
        self.device, self.options = device, options or InferenceOptions()
        size, cores, on_cpu = self.options.batch_size, available_cores(), device.type == 'cpu'
        self.chunk_size = min(size, CPU_CHUNK) if on_cpu else size
        self.threads = self.options.num_workers or (
            cores if on_cpu else min(cores, MOST_CUDA_READERS))
        self._network_thread = None
        if not on_cpu if pipelined is None else pipelined:
            self._network_thread = ThreadPoolExecutor(1, initializer=self._init_thread)

    @cached_property
    def transfer(self) -> Transfer:
        return Transfer(self.device)

    def predictor(self, model: nn.Module, method: str = 'forward') -> Predictor:
        return Predictor(model, self.device, self.options.amp, self.chunk_size,
                         self.options.compile, method, self._network_thread)

    def map(self, dataset: Dataset, function: Callable[[dict], Result], label: str,
            bad: BadImages, done: Callable[[range], Result | None] | None = None
            ) -> Iterator[Result]:
        """Yield function(batch) for the chunks of this rank's share, in order; shows the progress.

        `bad` collects the images that cannot be decoded and are skipped with options.skip_bad.
        `done(indices)` returns the result of a chunk that was computed earlier, or None.
        """
        chunks = self.chunks(len(dataset), rank(), world_size())
        progress = Progress(label, sum(map(len, chunks)))

        def read(indices: range) -> Chunk:
            if done and (result := done(indices)) is not None:
                return Chunk(indices, [], result=result)
            return self._read(dataset, indices)

        def compute(chunk: Chunk) -> Chunk:
            if chunk.batch is None:
                return chunk
            with explain_out_of_memory(self.options.batch_size):
                result = function(self._with_views(dataset, chunk.batch))
            return chunk._replace(batch=None, result=result)

        with closing(self._computed(read, compute, chunks)) as computed:
            for chunk in computed:
                for index in chunk.left_out:
                    bad.add(index)
                if chunk.result is not None:
                    yield chunk.result
                progress.update(len(chunk.indices))
        progress.close()

    def gather(self, result: Result, bad: BadImages) -> list[Result]:
        """All ranks' results on rank 0, which lists what they left out; elsewhere an empty list."""
        results, names_of_ranks = gather_to_main(result), gather_to_main(bad.names)
        if results and self.options.skip_bad:
            bad.write(names_of_ranks)
        return results

    def _computed(self, read: Callable[[range], Chunk], compute: Callable[[Chunk], Chunk],
                  chunks: list[range]) -> Iterator[Chunk]:
        """The chunks, read and computed: by the same threads, or in a pipeline by two pools."""
        if self._network_thread is None:
            yield from self.in_threads(lambda indices: compute(read(indices)), chunks)
            return
        with closing(self.in_threads(read, chunks)) as batches:
            yield from self.in_threads(compute, batches)

    def chunks(self, count: int, rank: int = 0, world_size: int = 1) -> list[range]:
        """The batches of a rank, every `world_size`-th of `count` images, cut into chunks."""
        batch, size = self.options.batch_size, self.chunk_size
        starts = range(rank * batch, count, world_size * batch)
        return [range(first, min(first + size, start + batch, count))
                for start in starts for first in range(start, min(start + batch, count), size)]

    def in_chunks(self, function: Callable[[list], Iterable[Result]], items: Iterable
                 ) -> Iterator[Result]:
        """Yield the results of function(chunk) for the chunks of `items`, in order.

        Chunks are smaller if there are too few items for a whole one in each thread. A single item
        is computed in this thread, with all cores.
        """
        items = iter(items)
        first = list(islice(items, self.threads * self.chunk_size))
        if len(first) < 2:
            yield from function(first)
            return
        size, rest = -(-len(first) // self.threads), chain(first, items)
        chunks = iter(lambda: list(islice(rest, size)), [])
        for results in self.in_threads(lambda chunk: list(function(chunk)), chunks):
            yield from results

    def in_threads(self, function: Callable[[Any], Result], items: Iterable) -> Iterator[Result]:
        """Yield function(item) for each item in order; few results are held in memory."""
        before = torch.get_num_threads()
        pool = ThreadPoolExecutor(self.threads, initializer=self._init_thread)
        most = self.threads + QUEUED if self._network_thread else 2 * self.threads
        waiting: deque = deque()
        try:
            for number, item in enumerate(items):
                waiting.append(pool.submit(function, item))
                compiles = self.options.compile and number == 0  # while the others wait
                if compiles or len(waiting) > most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)

    def _init_thread(self) -> None:
        torch.set_num_threads(1)  # the threads of this pool keep the cores busy
        if self.device.type == 'cuda':
            torch.cuda.set_device(self.device)  # a new thread's current device is the first GPU

    def _read(self, dataset: Dataset, indices: Sequence[int]) -> Chunk:
        """Read a chunk of the list; bad images are left out where that is allowed."""
        as_decoded = self._network_thread is not None and isinstance(dataset, EvalImages)
        most = MOST_BYTES // self.chunk_size
        items, left_out = [], []
        for index in indices:
            try:
                with explain_out_of_memory(self.options.batch_size):
                    items.append(_decoded_item(dataset, index, most) if as_decoded
                                 else dataset[index])
            except BadImageError:
                if not self.options.skip_bad:
                    raise
                left_out.append(index)
        return Chunk(indices, left_out, self._collate(dataset, items) if items else None)

    def _collate(self, dataset: Dataset, items: list[dict]) -> dict[str, Any]:
        if all('decoded' in item for item in items):
            pixels = pixels_of([item.pop('decoded') for item in items])
            return {**default_collate(items), 'decoded': self.transfer.pin(pixels)}
        return default_collate([dataset.item(item['index'], item['decoded'])
                                if 'decoded' in item else item for item in items])

    def _with_views(self, dataset: Dataset, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch with the views of its decoded images, made by the thread of the network."""
        if 'decoded' not in batch:
            return batch
        pixels, sizes = batch.pop('decoded'), batch['size'].numpy()
        return {**batch, **self._network_thread.submit(
            resized_views, pixels, sizes, dataset.views, self.transfer).result()}


def _decoded_item(dataset: EvalImages, index: int, most: int) -> dict[str, Any]:
    """The decoded image, or if that has more than `most` bytes, its views."""
    image = dataset.read(index)
    if image.nbytes > most:
        return dataset.item(index, image)
    return {'index': index, 'size': np.array(image.shape[:2]), 'decoded': image}


def labels_of(images: ImageList, batch: dict) -> Tensor:
    """The classes of a batch's images, N int64."""
    return torch.from_numpy(images.labels[batch['index'].numpy()])
