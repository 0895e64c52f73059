"""Checkpoints: `model-N`, a plain state dict, and `last.ckpt`, all that is needed to resume."""

from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn
from torch.optim import Optimizer

from network.errors import first_line
from network.weights import LOAD_ERRORS
from utils.engine.distributed import same_on_all_ranks
from utils.engine.precision import Precision
from utils.errors import InputError
from utils.outputs.files import atomic_write
from utils.outputs.results import RunFolder


def save_checkpoint(state: dict, path: Path) -> None:
    """Write a checkpoint. Raises InputError if it cannot be written; `path` is then unchanged."""
    def write(file: BinaryIO) -> None:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # hides the file's own error, as of a full disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise

    atomic_write(path, write)


def save_model(model: nn.Module, path: Path, run: RunFolder) -> None:
    """Write `model-N`, and beside it `model-N.json`, what the network needs to be run."""
    save_checkpoint(model.state_dict(), path)
    run.describe_model(path)


def check_finite(model: nn.Module, step: int) -> None:
    """Raise InputError if a parameter or buffer is not finite. Buffers are checked too, since an
    overflow in the forward pass may corrupt only the statistics of batch norm."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f'{name} is no longer finite at step {step}: stopped without saving; '
                             'try a lower --lr or --amp off')


class TrainingState:
    """The content of `last.ckpt`: model, optimizer, gradient scaler, the number of steps, and the
    `fingerprint`, the settings that must match for a resumed run to reproduce the original."""

    def __init__(self, path: Path, model: nn.Module, optimizer: Optimizer, precision: Precision,
                 fingerprint: dict[str, Any]):
        self.path, self.model, self.optimizer = path, model, optimizer
        self.precision, self.fingerprint = precision, fingerprint

    def save(self, step: int) -> None:
        save_checkpoint({'model': self.model.state_dict(),
                         'optimizer': self.optimizer.state_dict(),
                         'scaler': self.precision.scaler.state_dict(), 'step': step,
                         'run': self.fingerprint}, self.path)

    def resume(self) -> int:
        """Restore the state, and return the number of completed steps. Raises InputError if the
        file is missing or corrupted, or belongs to another run."""
        if self.precision.name == 'apex':
            raise InputError('--resume: apex keeps weights that last.ckpt does not have; use '
                             '--amp auto, or start without --resume')
        state = self._read()
        if not same_on_all_ranks(state['step']):
            raise InputError(f'--resume: not all ranks find the same {self.path}: use a --savepath '
                             'that all machines share')
        differing = [f'{name} {state["run"].get(name)} instead of {value}'
                     for name, value in self.fingerprint.items()
                     if state['run'].get(name) != value]
        if differing:
            raise InputError(f'--resume: {self.path} was written with {", ".join(differing)}: '
                             'give the same flags, or start without --resume')
        fused = [group['fused'] for group in self.optimizer.param_groups]
        self.model.load_state_dict(state['model'])
        self.optimizer.load_state_dict(state['optimizer'])
        for group, value in zip(self.optimizer.param_groups, fused, strict=True):
            group['fused'] = value  # a property of this process, not of the run
        self.precision.scaler.load_state_dict(state['scaler'])
        return state['step']

    def _read(self) -> dict[str, Any]:
        if not self.path.is_file():
            raise InputError(f'--resume: no {self.path}; start without --resume, or with '
                             '--resume auto')
        try:
            state = torch.load(self.path, map_location='cpu', weights_only=True)
        except LOAD_ERRORS as error:
            raise InputError(f'--resume: {self.path} is corrupted ({first_line(error)}); start '
                             'without --resume') from error
        kinds = {'model': dict, 'optimizer': dict, 'scaler': dict, 'step': int, 'run': dict}
        if not (isinstance(state, dict) and all(isinstance(state.get(name), kind)
                                                for name, kind in kinds.items())):
            raise InputError(f'--resume: {self.path} is not the state of a run; start without '
                             '--resume')
        return state
