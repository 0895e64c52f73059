"""Several processes, as torchrun or a cluster's launcher starts them; else one, of rank 0."""

import os
import sys
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from utils.errors import InputError

TEST_TIMEOUT = timedelta(hours=6)  # a rank that has tested its share waits for the slowest


def init_process_group(device: torch.device, test: bool) -> None:
    """Join the other processes where the environment names several: by NCCL on CUDA and gloo on
    the CPU; in tests, which only gather results, by gloo. Raises InputError for an incomplete
    environment, and where torchrun could not restart the ranks after a failure."""
    if environment_size() == 1 or dist.is_initialized():
        return
    missing = [name for name in ('RANK', 'MASTER_ADDR', 'MASTER_PORT') if not os.environ.get(name)]
    if missing:
        raise InputError(f'WORLD_SIZE is {environment_size()}, but {", ".join(missing)} is not '
                         'set: start the script by torchrun, or unset WORLD_SIZE to run alone')
    # Restarted ranks must not meet in the store of the ranks before them, where they would find
    # the addresses of dead processes (https://github.com/pytorch/pytorch/issues/135712).
    if (int(os.environ.get('TORCHELASTIC_MAX_RESTARTS', 0))
            and os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'):
        raise InputError('torchrun --max-restarts needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in '
                         'the environment, and --standalone or --rdzv_backend=c10d')
    # Imported later, by timm, it would keep the process group as a default argument. Its threads
    # would then outlive destroy_process_group(), and could abort the interpreter at its end.
    import torch.distributed.nn  # noqa: F401

    backend = 'cpu:gloo,cuda:nccl' if device.type == 'cuda' and not test else 'gloo'
    dist.init_process_group(backend, timeout=TEST_TIMEOUT if test else None)


def destroy_process_group() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def environment_size() -> int:
    """The number of processes that the launcher has started."""
    text = os.environ.get('WORLD_SIZE') or '1'
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f'WORLD_SIZE is {text!r}, not a number of processes: unset it')
    return int(text)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main_process() -> bool:
    """Rank 0 writes the results."""
    return rank() == 0


def local_rank() -> int:
    """The rank among the processes of this machine."""
    return int(os.environ.get('LOCAL_RANK') or os.environ.get('SLURM_LOCALID')
               or os.environ.get('RANK') or 0) if environment_size() > 1 else 0


def local_world_size() -> int:
    """The number of processes on this machine."""
    return int(os.environ.get('LOCAL_WORLD_SIZE') or environment_size())


def gather_to_main(item: Any) -> list[Any]:
    """Rank 0 gets the items of all ranks, in their order; the other ranks an empty list."""
    if world_size() == 1:
        return [item]
    items = [None] * world_size() if is_main_process() else None
    dist.gather_object(item, items)
    return items or []


def of_all_ranks(item: Any) -> list[Any]:
    """The items of all ranks, in their order, on each rank. All ranks must call it."""
    items = [item] * world_size()
    if world_size() > 1:
        dist.all_gather_object(items, item)
    return items


def progress_bar(label: str, total: int, done: int = 0) -> tqdm:
    """Counts images: a bar on a terminal, elsewhere a line every minute. Of several ranks, rank 0
    shows its own share."""
    seconds = 0.1 if sys.stderr.isatty() else 60
    return tqdm(total=total, initial=done, desc=label, unit='img', dynamic_ncols=True,
                mininterval=seconds, maxinterval=max(seconds, 10), disable=not is_main_process())


def data_parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap the model in DistributedDataParallel. On CUDA its batch norm becomes SyncBatchNorm,
    which the CPU does not support: there each rank uses its own statistics."""
    if world_size() == 1:
        return model
    if device.type == 'cpu':
        return nn.parallel.DistributedDataParallel(model, static_graph=True)
    from timm.layers import convert_sync_batchnorm  # knows timm's fused norm and activation

    model = convert_sync_batchnorm(model)
    return nn.parallel.DistributedDataParallel(model, device_ids=[device.index], static_graph=True)
