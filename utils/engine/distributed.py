"""Several processes, as torchrun starts them: who this one is, and what they tell each other.

Without torchrun there is one process, and nothing here does anything.
"""

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

LONGEST_WAIT = timedelta(hours=6)  # of one that has done its share of a test for the slowest

started_by_torchrun = dist.is_torchelastic_launched


def join(device: torch.device) -> None:
    """Join the processes that torchrun has started (NCCL on CUDA, gloo on the CPU)."""
    if dist.is_initialized():
        return
    if device.type == 'cuda':
        torch.cuda.set_device(device)
        dist.init_process_group('cpu:gloo,cuda:nccl', timeout=LONGEST_WAIT)
    else:
        dist.init_process_group('gloo', timeout=LONGEST_WAIT)


def process_index() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def process_count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that writes the results."""
    return process_index() == 0


def local_index() -> int:
    """The place of this process among those on its machine."""
    return int(os.environ['LOCAL_RANK']) if started_by_torchrun() else 0


def processes_here() -> int:
    """The number of processes on this machine."""
    return int(os.environ['LOCAL_WORLD_SIZE']) if started_by_torchrun() else 1


def gather(item: Any) -> list[Any]:
    """The main process gets every process's item, in order; the others an empty list."""
    if process_count() == 1:
        return [item]
    items = [None] * process_count() if is_main() else None
    dist.gather_object(item, items)
    return items or []


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any of the processes; all must ask."""
    if process_count() == 1:
        return flag
    told = torch.tensor(int(flag))
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return bool(told)


def in_all_processes(model: nn.Module, device: torch.device) -> nn.Module:
    """The model, its gradients averaged over the processes; on CUDA, batch norm uses the whole
    batch, on the CPU each process's share of it."""
    if process_count() == 1:
        return model
    if device.type == 'cuda':
        convert_sync_batchnorm(model)
        return DistributedDataParallel(model, device_ids=[device.index], static_graph=True)
    return DistributedDataParallel(model, static_graph=True)


def same_in_all_processes(number: int) -> bool:
    """Whether all processes have the same number; all must ask."""
    return not any_process(number != _of_main(number))


def _of_main(number: int) -> int:
    told = torch.tensor(number)
    if process_count() > 1:
        dist.broadcast(told, 0)
    return int(told)


def mean_of_processes(figures: dict[str, float]) -> dict[str, float]:
    if process_count() == 1:
        return figures
    values = torch.tensor(list(figures.values()), dtype=torch.float64)
    dist.all_reduce(values)
    return dict(zip(figures, (values / process_count()).tolist(), strict=True))


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
