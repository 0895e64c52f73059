"""The device and the precision that a run uses."""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager

import cv2
import torch
from torch import Tensor, nn

from utils.distributed import environment_size, init_process_group, local_rank, local_world_size
from utils.errors import InputError

DTYPES = {'fp16': torch.float16, 'bf16': torch.bfloat16}


def init_device(name: str, seed: int, tf32: bool = False, test: bool = False) -> torch.device:
    """Prepare this process for a stage: choose its device, join the other processes, seed PyTorch
    (networks built next start from the same weights each time). Returns the device."""
    device = choose_device(name, tf32, test)
    init_process_group(device, test)
    cv2.setNumThreads(0)  # readers and PyTorch share the cores already
    torch.manual_seed(seed)
    return device


def choose_device(name: str, tf32: bool = False, test: bool = False) -> torch.device:
    """The device called `name`; `auto` is CUDA where there is one. Of several processes on a
    machine each takes the GPU of its local rank; in tests, several may share one. TF32 is off
    unless `tf32`. Raises InputError for a device that this machine or PyTorch does not have.
    """
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    count, several = max(1, torch.cuda.device_count()), environment_size() > 1
    if name == 'cuda' and several and local_world_size() > count and not test:
        raise InputError(f'{local_world_size()} processes, but {torch.cuda.device_count()} GPUs on '
                         'this machine: start one process per GPU, or add --device cpu')
    if name.startswith('cuda:') and several:
        raise InputError(f'--device {name}: each process takes a GPU of its own: use --device cuda')
    try:
        device = torch.device(name)
        if device == torch.device('cuda'):
            device = torch.device('cuda', local_rank() % count)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f'--device {name}: this PyTorch cannot use it here; '
                         'try --device auto') from error
    if device.type == 'cuda':
        torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    return device


def available_cores() -> int:
    """This process's share of the machine's cores, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return max(1, cores // local_world_size())


def default_workers(device: torch.device, given: int | None = None) -> int:
    """Processes that read images: as given, else all cores but two, at most 14 on CUDA, else 8."""
    most = 14 if device.type == 'cuda' else 8
    return min(most, max(0, available_cores() - 2)) if given is None else given


def gains_from_bf16(model: nn.Module, device: torch.device) -> bool:
    """Whether the network is faster in bfloat16 than in float32; emulated, bf16 is slower.

    On a CPU without AMX, bf16 speeds up dense convolutions alone: ResNet-50 trains 1.8 times as
    fast, EfficientNet-Lite0, whose convolutions are depthwise, 0.8 times.
    """
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    is_depthwise = any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1
                       for m in model.modules())
    cpu = getattr(torch.cpu, 'get_capabilities', dict)()  # older PyTorch does not know
    has_bf16 = cpu.get('avx512_bf16') or cpu.get('bf16')
    return bool(cpu.get('amx_bf16') or (has_bf16 and not is_depthwise))


class Precision:
    """The precision that `amp` names. `auto` is bf16 where the network gains from it, since bf16
    needs no loss scaling; else fp16 on CUDA and float32 on CPUs. `name` is the precision in use,
    `dtype` autocast's type (None: float32); `scaler` scales the loss in fp16 alone."""

    def __init__(self, amp: str, device: torch.device, model: nn.Module):
        if amp == 'auto':
            amp = ('bf16' if gains_from_bf16(model, device)
                   else 'fp16' if device.type == 'cuda' else 'off')
        if amp == 'fp16' and device.type == 'cpu':
            raise InputError('--amp fp16 needs CUDA: use --amp bf16, off or auto on the CPU')
        self.name, self.device, self.dtype = amp, device, DTYPES.get(amp)
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == 'fp16')

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)


class ApexScaler:
    """`--amp apex`: NVIDIA apex at opt level O2, with a GradScaler's methods."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer):
        try:
            from apex import amp
        except ImportError as error:
            raise InputError('--amp apex: no apex with amp is installed (apex removed it in May '
                             '2025); use --amp auto') from error
        if environment_size() > 1:
            raise InputError('--amp apex is for one process: use --amp auto with torchrun')
        self.amp, self.optimizer = amp, optimizer
        amp.initialize(model, optimizer, opt_level='O2', verbosity=0)

    def backward(self, loss: Tensor) -> None:
        with self.amp.scale_loss(loss, self.optimizer) as scaled:
            scaled.backward()


class Normalize(nn.Module):
    """Images N x H x W x 3, uint8 or float32 in [0, 1] -> float32 N x 3 x H x W, channels last in
    memory, with `mean` subtracted and divided by `std` (RGB, of images in [0, 1]). Both are
    buffers: tensors made in each step would be blocking copies to the GPU."""

    def __init__(self, mean: Iterable[float], std: Iterable[float]):
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean), persistent=False)
        self.register_buffer('std', torch.tensor(std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        count, height, width, channels = images.shape
        scale = 1 if images.is_floating_point() else 255
        # Along whole rows, not three values at a time: several times faster on the CPU.
        rows = images.reshape(count * height, width * channels).to(torch.float32, copy=True)
        rows.sub_((self.mean * scale).repeat(width)).div_((self.std * scale).repeat(width))
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)
