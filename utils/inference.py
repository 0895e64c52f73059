"""Inference over an image list: on the CPU in threads, on CUDA by processes around the network.

What follows the network sees its small outputs on the CPU, and is one code on all devices.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from copy import deepcopy
from itertools import pairwise
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import default_collate

from utils.datasets import EvalImages, init_worker, load_batches
from utils.device import Normalize, Precision, available_cores, default_workers
from utils.distributed import progress_bar, rank, world_size

CPU_CHUNK = 4  # images; feature maps above 32 MiB are allocated anew, with page faults, each time
QUEUED = 2     # batches for each process that wait to be finished
SAMPLE_SIDE = 224  # of the image on which the fused network is compared
TOLERANCE = 1e-3   # of the largest value
PRELOADED = ['torch', 'cv2']  # imported once for all processes that finish

# (what is known of the images of a batch; the network's outputs by view) -> a result
Finish = Callable[[dict[str, Any], dict[str, Any]], Any]


class Predictor:
    """A network in evaluation mode on a device; threads may share it.

    Arguments:
        model: a network with `mean` and `std`, the normalization that it expects.
        amp: `auto` | `fp16` | `bf16` | `off`.
        method: the name of the network's method that is called.
    """

    def __init__(self, model: nn.Module, device: torch.device, amp: str = 'off',
                 method: str = 'forward'):
        self.device, self.takes_labels = device, method == 'class_cams'
        model = fuse_batch_norm(deepcopy(model).eval())
        self.precision = Precision(amp, device, model)
        self.normalize = Normalize(model.mean, model.std).to(device)
        if device.type == 'cpu':
            prefer_onednn(model)
        self._predict = getattr(model.to(device, memory_format=torch.channels_last), method)

    @torch.inference_mode()
    def __call__(self, images: Tensor, *more: Tensor) -> Any:
        """Images N x H x W x 3, uint8 or float32 in [0, 1], and further tensors -> what the
        network's method returns for them, on the device."""
        images, *more = (tensor.to(self.device, non_blocking=True) for tensor in (images, *more))
        with self.precision.autocast():
            return self._predict(self.normalize(images), *more)


class ListInference:
    """Runs a network over the images of a list, this rank's share, and finishes each batch.

    Arguments:
        predict: of `CamNet.class_cams`, the CAMs of the images' labels.
        views: what the network sees of an image, by name.
        finish: finish(batch, outputs) -> a result, called in a thread or another process; `batch`
            has 'index', 'label' and 'size' as arrays and 'name' as a list, `outputs` the network's,
            float32 arrays, by view.
        options: --batch_size and --num_workers by their names.
        processes: whether to read and finish in processes; by default on CUDA.
    """

    def __init__(self, predict: Predictor, images: Any, views: dict[str, Any], finish: Finish,
                 options: Any, processes: bool | None = None):
        self.predict, self.options, self.finish = predict, options, finish
        self.dataset = EvalImages(images, views)
        self.processes = predict.device.type != 'cpu' if processes is None else processes

    def run(self, label: str, indices: Sequence[int] | None = None) -> Iterator[Any]:
        """Yield the results of the batches in order; shows the progress. `indices`: the images to
        process; by default all."""
        size = self.options.batch_size
        indices = range(len(self.dataset)) if indices is None else indices
        mine = [indices[first:first + size]
                for first in range(rank() * size, len(indices), world_size() * size)]
        with progress_bar(label, sum(map(len, mine))) as progress:
            finished = self._by_processes(mine) if self.processes else self._by_threads(mine)
            for count, result in finished:
                progress.update(count)
                yield result

    def _by_threads(self, batches: list[Sequence[int]]) -> Iterator[tuple[int, Any]]:
        """Each thread, one per core, takes a chunk of a batch from reading to finishing."""
        chunks = [batch[first:first + CPU_CHUNK] for batch in batches
                  for first in range(0, len(batch), CPU_CHUNK)]

        def process(chunk: Sequence[int]) -> tuple[int, Any]:
            batch = default_collate([self.dataset[index] for index in chunk])
            return len(chunk), self.finish(known_of(batch), as_arrays(self._outputs(batch)))

        yield from in_threads(process, chunks, self.options.num_workers)

    def _by_processes(self, batches: list[Sequence[int]]) -> Iterator[tuple[int, Any]]:
        """DataLoader's workers read, this thread runs the network, a pool of processes finishes.
        While the GPU computes a batch, the outputs of the one before are fetched."""
        context = get_context('forkserver')
        context.set_forkserver_preload(PRELOADED)
        workers = self.options.num_workers or max(1, default_workers(self.predict.device))
        launched: deque = deque()  # (what is known of the images, outputs)
        waiting: deque = deque()   # (number of images, future result)
        with (closing(load_batches(self.dataset, batches, workers,
                                   pin_memory=self.predict.device.type == 'cuda')) as loaded,
              closing_pool(ProcessPoolExecutor(available_cores(), context, init_finishing,
                                               (self.finish,))) as pool):
            def submit() -> None:
                known, outputs = launched.popleft()
                waiting.append((len(known['index']),
                                pool.submit(finish_batch, known, as_arrays(outputs))))

            for batch in loaded:
                launched.append((known_of(batch), self._outputs(batch)))
                if len(launched) > 1:
                    submit()
                if len(waiting) > QUEUED * available_cores():
                    count, future = waiting.popleft()
                    yield count, future.result()
            if launched:
                submit()
            for count, future in waiting:
                yield count, future.result()

    def _outputs(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """The network's outputs for each view. A smaller last batch is filled up on CUDA, where a
        new size would have every convolution planned anew."""
        count, size = len(batch['label']), self.options.batch_size
        if self.predict.device.type == 'cuda' and count < size:
            batch = {name: torch.cat([batch[name], batch[name][-1:].expand(
                size - count, *batch[name].shape[1:])]) for name in ('label', *self.dataset.views)}
        labels = [batch['label']] if self.predict.takes_labels else []
        outputs = {view: self.predict(batch[view], *labels) for view in self.dataset.views}
        return {view: [part[:count] for part in found] if isinstance(found, tuple)
                else found[:count] for view, found in outputs.items()}


def known_of(batch: dict[str, Any]) -> dict[str, Any]:
    """What is known of the images of a batch: arrays, and the list of their names."""
    return {'name': batch['name'],
            **{name: batch[name].numpy() for name in ('index', 'label', 'size')}}


def as_arrays(outputs: dict[str, Any]) -> dict[str, Any]:
    """The outputs of a network by view, tensors or lists of them -> float32 arrays."""
    return {view: [part.float().cpu().numpy() for part in found] if isinstance(found, list)
            else found.float().cpu().numpy() for view, found in outputs.items()}


def init_finishing(finish: Finish) -> None:
    """Set up a process that finishes batches. It ends with the main one, even if that is killed."""
    global _finish
    _finish = finish
    init_worker()
    Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()
    torch.set_num_threads(1)


def finish_batch(known: dict[str, np.ndarray], outputs: dict[str, Any]) -> Any:
    return _finish(known, outputs)


@contextmanager
def closing_pool(pool: Executor) -> Iterator[Executor]:
    """The pool; at the end of the context, also after an error, what waits is cancelled."""
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def in_threads(function: Callable[[Any], Any], items: Iterable, threads: int = 0) -> Iterator[Any]:
    """Yield function(item) for each item in order, computed by one thread per core; few results
    are held in memory."""
    before, threads = torch.get_num_threads(), threads or available_cores()
    # PyTorch's own threads would compete with these.
    pool = ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1))
    waiting: deque = deque()
    try:
        with closing_pool(pool):
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > QUEUED * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(before)


def in_chunks(function: Callable[[list], Iterable], items: Iterable, size: int) -> Iterator[Any]:
    """Yield the results of function(chunk) for the chunks of `items`, in order. Chunks are smaller
    if there are too few items for a whole one in each thread; a single chunk is computed in this
    thread, with all cores."""
    items = list(items)
    size = max(1, min(size, -(-len(items) // available_cores())))
    chunks = [items[first:first + size] for first in range(0, len(items), size)]
    work = map if len(chunks) < 2 else in_threads
    for results in work(lambda chunk: list(function(chunk)), chunks):
        yield from results


def prefer_onednn(model: nn.Module) -> None:
    """Make oneDNN compute the network's float32 1x1 convolutions on the CPU; changes them in place.

    On one core, PyTorch computes them by BLAS if a batch has fewer than 16 images, unless they are
    strided or dilated. On AMD CPUs, MKL takes twice as long as oneDNN. Dilation does not change
    what a 1x1 kernel computes.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            module.dilation = (2, 2)


@torch.no_grad()
def fuse_batch_norm(model: nn.Module) -> nn.Module:
    """The network with each batch norm fused into the convolution that is registered before it.

    The order of registration may differ from that of execution, so outputs are compared on a
    sample. If they differ, `model` is returned unchanged.
    """
    fused = deepcopy(model)
    for module in list(fused.modules()):
        for (name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                # timm's batch norms hold the activation that follows.
                setattr(module, norm_name, getattr(norm, 'act', nn.Identity()))
    side = getattr(model, 'input_side', SAMPLE_SIDE)
    sample = torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(0)) - 0.5
    sample = sample.to(next(model.parameters()).device)
    expected, found = model(sample), fused(sample)
    same = (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
    return fused if same else model
