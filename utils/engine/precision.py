"""Mixed precision: what surrounds the forward pass and the SGD step."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import cv2
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from utils.engine.distributed import world_size
from utils.errors import InputError

DTYPES = {'fp16': torch.float16, 'bf16': torch.bfloat16}
# How the allocators of PyTorch, OpenCV, CUDA, cuDNN and cuBLAS say that memory is exhausted.
OUT_OF_MEMORY = ("can't allocate memory", 'not enough memory', 'out of memory',
                 'Insufficient memory',
                 'CUDNN_STATUS_ALLOC_FAILED', 'CUBLAS_STATUS_ALLOC_FAILED')


def supports_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself; emulated, it is slower than float32."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return _cpu_has('avx512_bf16', 'amx_bf16', 'bf16')


def _cpu_has(*names: str) -> bool:
    """Whether the CPU has one of these capabilities; older PyTorch does not know."""
    capabilities = getattr(torch.cpu, 'get_capabilities', dict)()
    return any(capabilities.get(name) for name in names)


def gains_from_bf16(model: nn.Module, device: torch.device) -> bool:
    """Whether the network is faster in bfloat16 than in float32 on a device that supports it.

    On a CPU without AMX, bf16 speeds up dense convolutions alone: ResNet-50 trains 1.8 times as
    fast, EfficientNet-Lite0, whose convolutions are depthwise, 0.8 times.
    """
    if device.type == 'cuda' or _cpu_has('amx_bf16'):
        return True
    return not any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1
                   for m in model.modules())


class Precision:
    """The precision that `amp` names: `auto` | `fp16` | `bf16` | `off` | `apex`.

    `auto` is bf16 if the device supports it natively, since bf16 needs no loss scaling; else fp16
    on CUDA and float32 on CPUs; float32 also if `model` is given and no faster in bf16. `name` is
    the precision in use, `dtype` autocast's type (None for float32).
    """

    def __init__(self, amp: str, device: torch.device, model: nn.Module | None = None):
        if amp == 'auto':
            amp = 'bf16' if supports_bf16(device) else 'fp16' if device.type == 'cuda' else 'off'
            if amp == 'bf16' and model is not None and not gains_from_bf16(model, device):
                amp = 'off'
        if amp == 'fp16' and device.type == 'cpu':
            raise InputError('--amp fp16 needs CUDA: use --amp bf16, off or auto on the CPU')
        self.name, self.device = amp, device
        self.dtype = DTYPES.get(amp)
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == 'fp16')

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    @property
    def allows_fused_sgd(self) -> bool:
        """Whether fused SGD is safe. With a GradScaler it is not: if the first step overflows, the
        kernel skips it and leaves the momentum buffer uninitialised."""
        return self.name not in ('fp16', 'apex')

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Hand model and optimizer to apex (opt level O2) where that is asked for."""
        if self.name != 'apex':
            return model, optimizer
        if world_size() > 1:
            raise InputError('--amp apex is for one process: use --amp auto with torchrun')
        return _apex().initialize(model, optimizer, opt_level='O2', verbosity=0)

    def backward(self, loss: Tensor, optimizer: Optimizer) -> None:
        """The gradients of the loss, scaled where the precision needs that."""
        if self.name == 'apex':
            with _apex().scale_loss(loss, optimizer) as scaled:
                scaled.backward()
        else:
            self.scaler.scale(loss).backward()

    def step(self, optimizer: Optimizer) -> None:
        """The optimizer's step, on the unscaled gradients."""
        self.scaler.step(optimizer)
        self.scaler.update()


@contextmanager
def explain_out_of_memory(batch_size: int) -> Iterator[None]:
    """Turn running out of memory into an InputError that says which batch size to try."""
    try:
        yield
    # torch.OutOfMemoryError is a RuntimeError.
    except (MemoryError, RuntimeError, cv2.error) as error:
        if not is_out_of_memory(error):
            raise
        advice = (f'try --batch_size {batch_size // 2}' if batch_size > 1
                  else 'try a smaller --resize and --crop')
        raise InputError(f'out of memory at --batch_size {batch_size}: {advice}') from error


def is_out_of_memory(error: Exception) -> bool:
    return (isinstance(error, (MemoryError, torch.OutOfMemoryError))
            or any(words in str(error) for words in OUT_OF_MEMORY))


def _apex():
    try:
        from apex import amp
    except ImportError as error:
        raise InputError('--amp apex: no apex with amp is installed (apex removed it in May '
                         '2025); use --amp auto') from error
    return amp
