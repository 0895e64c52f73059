"""The device that a run uses, and the global settings of PyTorch and OpenCV for it."""

import os

import cv2
import torch

from utils.engine.distributed import init_process_group, local_rank, local_world_size
from utils.errors import InputError

MOST_WORKERS = {'cuda': 16, 'cpu': 8}


def init_distributed_device(name: str, seed: int, tf32: bool = False, test: bool = False
                            ) -> torch.device:
    """Prepare this process for a stage, and return its device (`choose_device`).

    Joins the other processes where torchrun started several, and seeds PyTorch, so that networks
    built next start from the same weights each time. On CUDA, sets the current device. TF32 is off
    unless `tf32`: float32 then means float32, also in the layers that mixed precision keeps in
    float32.
    """
    device = configured(choose_device(name), tf32)
    init_process_group(device, test)
    cv2.setNumThreads(0)  # readers and PyTorch share the cores already
    torch.manual_seed(seed)
    return device


def configured(device: torch.device, tf32: bool = False) -> torch.device:
    """The device, after PyTorch's global settings for CUDA are made."""
    if device.type == 'cuda':
        torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
    return device


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA where there is one.

    Of several processes on a machine each takes the GPU of its local rank.
    Raises InputError for a device that this machine, or this PyTorch, does not have.
    """
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    if name == 'cuda' and local_world_size() > max(1, torch.cuda.device_count()):
        raise InputError(f'{local_world_size()} processes, but {torch.cuda.device_count()} GPUs on '
                         'this machine: start one process per GPU, or add --device cpu')
    if name.startswith('cuda:') and local_world_size() > 1:
        raise InputError(f'--device {name}: each process takes a GPU of its own: use --device cuda')
    try:
        device = torch.device(name)
        if device == torch.device('cuda'):
            device = torch.device('cuda', local_rank())
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f'--device {name}: this PyTorch cannot use it here; '
                         'try --device auto') from error
    return device


def available_cores() -> int:
    """This process's share of the cores that the processes of this machine may use, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return max(1, cores // local_world_size())


def default_workers(device: torch.device) -> int:
    """With CUDA one worker for each core; on the CPU, where readers and network compete, the cores
    beyond the two that a network keeps busy."""
    spared = 0 if device.type == 'cuda' else 2
    return min(MOST_WORKERS[device.type], max(0, available_cores() - spared))
