"""Several processes, as torchrun starts them. Without torchrun there is one, of rank 0."""

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from network.errors import InputError

TEST_TIMEOUT = timedelta(hours=6)  # a rank that has tested its share waits for the slowest


def init_process_group(device: torch.device, test: bool) -> None:
    """Join the process group (NCCL on CUDA, gloo on the CPU) where torchrun started this process.

    A test communicates only to gather its results, and waits long for them. In training a rank
    that has died must be noticed soon: there the time-outs are PyTorch's own.
    Raises InputError where torchrun could not restart the ranks after a failure.
    """
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        return
    _check_restarts()
    # Imported later, by timm, it would keep the process group as a default argument. Its threads
    # would then outlive destroy_process_group(), and could abort the interpreter at its end.
    import torch.distributed.nn  # noqa: F401

    backend = 'cpu:gloo,cuda:nccl' if device.type == 'cuda' else 'gloo'
    dist.init_process_group(backend, timeout=TEST_TIMEOUT if test else None)


def _check_restarts() -> None:
    """Restarted ranks must not meet in the store of the ranks before them, where they would find
    the addresses of dead processes (https://github.com/pytorch/pytorch/issues/135712)."""
    if (int(os.environ.get('TORCHELASTIC_MAX_RESTARTS', 0))
            and os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'):
        raise InputError('torchrun --max-restarts needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in '
                         'the environment, and --standalone or --rdzv_backend=c10d')


def destroy_process_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this is rank 0, which writes the results."""
    return rank() == 0


def local_rank() -> int:
    """The rank among the processes of this machine."""
    return int(os.environ['LOCAL_RANK']) if dist.is_torchelastic_launched() else 0


def local_world_size() -> int:
    """The number of processes on this machine."""
    return int(os.environ['LOCAL_WORLD_SIZE']) if dist.is_torchelastic_launched() else 1


def barrier() -> None:
    """Wait until all ranks are here."""
    any_rank(False)


def gather_to_main(item: Any) -> list[Any]:
    """Rank 0 gets the items of all ranks, in their order; the other ranks an empty list."""
    if world_size() == 1:
        return [item]
    items = [None] * world_size() if is_main_process() else None
    dist.gather_object(item, items)
    return items or []


def any_rank(flag: bool) -> bool:
    """Whether the flag is set in any rank. All ranks must call it."""
    if world_size() == 1:
        return flag
    number = torch.tensor(int(flag))
    dist.all_reduce(number, dist.ReduceOp.MAX)
    return bool(number)


def same_on_all_ranks(number: int) -> bool:
    """Whether all ranks have the same number. All ranks must call it."""
    if world_size() == 1:
        return True
    first = torch.tensor(number)
    dist.broadcast(first, 0)
    return not any_rank(number != int(first))


def mean_over_ranks(values: dict[str, float]) -> dict[str, float]:
    if world_size() == 1:
        return values
    numbers = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(numbers)
    return dict(zip(values, (numbers / world_size()).tolist(), strict=True))


def data_parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap the model in DistributedDataParallel. On CUDA its batch norm becomes SyncBatchNorm,
    which the CPU does not support: there each rank uses its own statistics."""
    if world_size() == 1:
        return model
    if device.type == 'cpu':
        return nn.parallel.DistributedDataParallel(model, static_graph=True)
    return synchronized(model, device)


def synchronized(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on a GPU of a process group, its batch norm synchronized."""
    from timm.layers import convert_sync_batchnorm  # knows timm's fused norm and activation

    model = convert_sync_batchnorm(model)
    return nn.parallel.DistributedDataParallel(model, device_ids=[device.index], static_graph=True)
