"""A training step as one CUDA graph: launched at once, instead of kernel by kernel from Python."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from network.errors import first_line
from utils.engine.progress import say
from utils.errors import InputError

WARM_UP_STEPS = 3  # before a capture, libraries must have made their handles and plans

Batch = dict[str, Tensor]
Losses = dict[str, Tensor]
Step = Callable[[Batch, int], Losses]


class GraphedStep:
    """Calls step(batch, size) -> losses, from the fourth batch of `size` images on as a graph.

    Batches of another size run eagerly, and so do all if the step cannot be captured.

    Arguments:
        constants: constants() -> what the graph holds as numbers, not as tensors: the learning
            rates. Where they have changed, the step is captured anew.
        warm_up: runs a step eagerly, as a preparation of the capture.
        capture: capture(step, batch, size) -> a function of a batch that replays the step.
    """

    def __init__(self, step: Step, size: int, constants: Callable[[], Any],
                 warm_up: Callable[[Step, Batch, int], Losses] | None = None,
                 capture: Callable[[Step, Batch, int], Callable[[Batch], Losses]] | None = None):
        self._step, self._size, self._constants = step, size, constants
        self._warm_up, self._capture = warm_up or warm_up_cuda, capture or capture_cuda
        self._warmed = 0
        self._replay: Callable[[Batch], Losses] | None = None
        self._captured: Any = None
        self._eager = False

    def __call__(self, batch: Batch, size: int) -> Losses:
        if self._eager or size != self._size:
            return self._step(batch, size)
        if self._warmed < WARM_UP_STEPS:
            self._warmed += 1
            return self._warm_up(self._step, batch, size)
        if self._replay is None or self._captured != self._constants():
            self._replay, self._captured = None, self._constants()  # frees the old graph's memory
            try:
                self._replay = self._capture(self._step, batch, size)
            except (RuntimeError, InputError) as error:  # InputError: out of memory
                self._eager = True
                say(f'no CUDA graph of the training step ({first_line(error)}): steps run kernel '
                    'by kernel')
                return self._step(batch, size)
        return self._replay(batch)


def warm_up_cuda(step: Step, batch: Batch, size: int) -> Losses:
    """A step on the stream of captures, where it makes the handles that a capture needs."""
    stream, current = _capture_stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        losses = step(batch, size)
    current.wait_stream(stream)
    return losses


def capture_cuda(step: Step, batch: Batch, size: int) -> Callable[[Batch], Losses]:
    """Capture the step, without executing it.

    PyTorch's generator is part of the graph: a replay uses the seed that is set before it, so
    dropout is that of the eager step.
    """
    static = {name: value.clone() for name, value in batch.items()}
    graph = torch.cuda.CUDAGraph()
    # The thread that pins memory calls CUDA meanwhile, which the mode `global` would forbid.
    with torch.cuda.graph(graph, stream=_capture_stream(), capture_error_mode='thread_local'):
        losses = step(static, size)

    def replay(batch: Batch) -> Losses:
        for name, value in batch.items():
            static[name].copy_(value, non_blocking=True)
        graph.replay()
        return losses

    return replay


def _capture_stream() -> torch.cuda.Stream:
    if torch.cuda.graph.default_capture_stream is None:
        torch.cuda.graph.default_capture_stream = torch.cuda.Stream()
    return torch.cuda.graph.default_capture_stream
