"""Where and how precisely a network runs: device and mixed precision."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from utils.engine.distributed import local_index, process_count, processes_here
from utils.errors import InputError


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one; of several processes each has a CUDA device of its own.
    Raises InputError for a device that is not there."""
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    if name == 'cuda' and processes_here() > max(1, torch.cuda.device_count()):
        raise InputError(f'{processes_here()} processes on this machine, but '
                         f'{torch.cuda.device_count()} GPUs: start as many, or add --device cpu')
    if name.startswith('cuda:') and processes_here() > 1:
        raise InputError(f'--device {name}: each process takes a GPU of its own: use --device cuda')
    try:
        device = torch.device(name)
        if device == torch.device('cuda'):
            device = torch.device('cuda', local_index())
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f'--device {name}: this PyTorch cannot use it here; '
                         'try --device auto') from error
    return device


def available_cores() -> int:
    """This process's share of the cores that it and its siblings may use, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return max(1, cores // processes_here())


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; emulated, it is many times slower."""
    capabilities = getattr(torch.cpu, 'get_capabilities', dict)()
    return any(capabilities.get(name) for name in ('avx512_bf16', 'amx_bf16', 'bf16'))


class Precision:
    """Mixed precision, as `--amp` says: what surrounds the forward pass and the SGD step."""

    def __init__(self, amp: str, device: torch.device):
        if amp == 'auto':
            native = 'bf16' if cpu_has_bf16() else 'off'
            amp = 'fp16' if device.type == 'cuda' else native
        if amp == 'fp16' and device.type == 'cpu':
            raise InputError('--amp fp16 needs CUDA: use --amp bf16, off or auto on the CPU')
        self.name = amp
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == 'fp16')

    @property
    def half(self) -> torch.dtype | None:
        """The type of half precision; None for float32."""
        return {'fp16': torch.float16, 'bf16': torch.bfloat16}.get(self.name)

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, self.half, enabled=self.half is not None)

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Hand model and optimizer to apex (opt level O2) where that was asked for."""
        if self.name != 'apex':
            return model, optimizer
        amp = _apex()
        if process_count() > 1:
            raise InputError('--amp apex is for one process: use --amp auto with torchrun')
        try:
            return amp.initialize(model, optimizer, opt_level='O2', verbosity=0)
        except Exception as error:  # apex raises many kinds
            raise InputError(f'--amp apex: apex refused ({error}): use --amp auto') from error

    def step(self, loss: Tensor, optimizer: Optimizer) -> None:
        """Backward and one optimizer step."""
        optimizer.zero_grad(set_to_none=True)
        if self.name == 'apex':
            with _apex().scale_loss(loss, optimizer) as scaled:
                scaled.backward()
            optimizer.step()
            return
        self.scaler.scale(loss).backward()
        self.scaler.step(optimizer)
        self.scaler.update()


@contextmanager
def explain_memory(batch_size: int) -> Iterator[None]:
    """Turn running out of memory into an InputError that says which batch size to try."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        advice = (f'try --batch_size {batch_size // 2}' if batch_size > 1
                  else 'try a smaller --resize and --crop')
        raise InputError(f'out of memory at --batch_size {batch_size}: {advice}') from error


def is_out_of_memory(error: Exception) -> bool:
    return (isinstance(error, (MemoryError, torch.OutOfMemoryError))
            or "can't allocate memory" in str(error) or 'not enough memory' in str(error))


def _apex():
    try:
        from apex import amp
    except ImportError as error:
        raise InputError('--amp apex: no apex with amp is installed (apex dropped it in May 2025); '
                         'use --amp auto') from error
    return amp
