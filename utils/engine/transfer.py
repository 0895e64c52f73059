"""Copies between the host and a device that do not hold up the network."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


class Transfer:
    """Copies tensors to and from a device.

    On CUDA, a copy from or to pageable memory blocks, and one on the stream of the networks would
    wait for all batches that are queued there. So copies use pinned memory, and for each direction
    a stream of its own. Threads may share an object. On other devices these are plain copies.
    """

    def __init__(self, device: torch.device):
        self.device, self._on_cuda = device, device.type == 'cuda'
        if self._on_cuda:
            self._uploads, self._downloads = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def pin(self, tensor: Tensor) -> Tensor:
        """The tensor in memory that `upload` can copy from without blocking."""
        return tensor.pin_memory() if self._on_cuda and tensor.is_cpu else tensor

    def upload(self, tensor: Tensor) -> Tensor:
        """The tensor on the device, ready for the current stream's next operations."""
        if not (self._on_cuda and tensor.is_cpu):
            return tensor.to(self.device)
        stream = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._uploads):
            copy = tensor.pin_memory().to(self.device, non_blocking=True)
            copied = self._uploads.record_event()
        stream.wait_event(copied)
        copy.record_stream(stream)  # the memory is not reused before that stream is done with it
        return copy

    def download(self, tensor: Tensor) -> Tensor:
        """The tensor in host memory; waits for work that is queued on the current stream, not for
        work that is queued later."""
        if not tensor.is_cuda:
            return tensor.cpu()
        self._downloads.wait_event(torch.cuda.current_stream(self.device).record_event())
        with torch.cuda.stream(self._downloads):
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            copy.copy_(tensor, non_blocking=True)
            copied = self._downloads.record_event()
        copied.synchronize()
        return copy


def uploaded_ahead(batches: Iterable[dict[str, Tensor]], transfer: Transfer
                   ) -> Iterator[dict[str, Tensor]]:
    """The batches on the device. On CUDA, each is copied while the step before it is computed."""
    before = None
    for batch in batches:
        uploaded = {name: transfer.upload(value) for name, value in batch.items()}
        if transfer.device.type != 'cuda':
            yield uploaded
            continue
        if before is not None:
            yield before
        before = uploaded
    if before is not None:
        yield before
