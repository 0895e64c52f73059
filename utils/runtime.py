"""Where and how precisely a network runs: device and mixed precision."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from utils.errors import InputError


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one. Raises InputError for a device that is not there."""
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f'--device {name}: this PyTorch cannot use it here; '
                         'try --device auto') from error
    return device


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

    def autocast(self) -> AbstractContextManager:
        dtype = torch.float16 if self.name == 'fp16' else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.name in ('fp16', 'bf16'))

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Hand model and optimizer to apex (opt level O2) where that was asked for."""
        if self.name != 'apex':
            return model, optimizer
        amp = _apex()
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


def _apex():
    try:
        from apex import amp
    except ImportError as error:
        raise InputError('--amp apex: no apex with amp is installed (apex dropped it in May 2025); '
                         'use --amp auto') from error
    return amp
