"""The training loop of all stages: `train`.

All random numbers come from (seed, epoch, image) or (seed, step), never from a state that a
restart would lose, so a resumed run ends where an undisturbed one does.
"""

import fcntl
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from network.weights import first_line, load_checkpoint
from utils.datasets import TrainBatches, TrainImages, load_batches
from utils.device import ApexScaler, Normalize, Precision, default_workers
from utils.distributed import data_parallel, is_main_process, of_all_ranks, rank, world_size
from utils.errors import InputError, warn
from utils.files import atomic_write
from utils.log import TrainingLog
from utils.results import RunFolder, models_in, settings_path

SECONDS_BETWEEN_SAVES = 60
SECONDS_BETWEEN_CHECKS = 1  # for a signal that another rank has received
# cuDNN's search for the fastest kernels takes 20 to 30 s, and may save a few ms in each step.
STEPS_WORTH_A_SEARCH = 5_000


def linear_decay(epoch: int, epochs: int) -> float:
    return 1 - epoch / epochs


def late_epochs(epoch: int, epochs: int) -> bool:
    """Whether the model after `epoch` (from 1) is saved: only in the second half, as in the
    released code."""
    return epoch > epochs / 2 + 1


def every_epoch(epoch: int, epochs: int) -> bool:
    return True


def train(model: nn.Module, dataset: TrainImages, groups: list[dict],
          loss: Callable[[nn.Module, dict], dict[str, Tensor]], options: Any,
          device: torch.device, run: RunFolder,
          schedule: Callable[[int, int], float] = lambda epoch, epochs: 1,
          should_save: Callable[[int, int], bool] = late_epochs,
          save_model_every: int | None = None, paper_steps: int = 0) -> None:
    """Train a model; write `model-N`, `last.ckpt`, and what `TrainingLog` writes.

    groups: SGD's parameter groups. A group's 'lr', by default options.lr, is multiplied by
        schedule(epoch, epochs), epoch from 0, within each epoch.
    loss: loss(model, batch) -> {'total': ..., others to show}. The batch holds tensors on the
        device, 'image' normalised (float32, N x 3 x H x W).
    options: the flags of a training script by their names; batch_size is summed over the ranks.
    should_save: `model-N` is saved after each epoch N (from 1) for which should_save(N, epochs)
        is true; save_model_every: instead, every so many steps, N being the step. The last model
        is always saved.
    paper_steps: the number of steps of the paper's run.
    """
    batches = batches_of(dataset, options)
    sgd = Sgd(model, groups, options, device)
    normalize = Normalize(model.mean, model.std).to(device)
    saves = Saves(run, sgd, batches, options, dataset)
    loaded = load_batches(dataset, batches, default_workers(device, options.num_workers),
                          pin_memory=device.type == 'cuda')  # starts with the first batch
    with ExitStack() as stack, locked(run.path), Interruption() as interruption, closing(loaded):
        batches.start = saves.first_step()
        log = TrainingLog(run, batches, options, sgd.precision, paper_steps)
        stack.callback(log.close)
        for step, batch in enumerate(loaded, batches.start):
            epoch, size = step // batches.per_epoch, batches.size(step)
            sgd.set_rates(schedule(epoch, options.epoch))
            torch.manual_seed(step_seed(options.seed, step, rank()))
            batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
            with sgd.precision.autocast():
                losses = loss(sgd.network, {**batch, 'image': normalize(batch['image'])})
            # DDP averages the gradients of the ranks. Each image has the same weight, also where
            # the ranks' shares of a batch differ in size.
            sgd.step(losses['total'] * (len(batch['image']) * world_size() / size))
            log.add(step + 1, size, losses, sgd.factor * options.lr)
            number = epoch + 1
            is_due = (step + 1) % batches.per_epoch == 0 and should_save(number, options.epoch)
            if save_model_every:
                number, is_due = step + 1, (step + 1) % save_model_every == 0
            saves.save(step + 1, number if is_due or step + 1 == batches.stop else None)
            if code := interruption.exit_code():
                saves.save_state(step + 1)
                log.stop(saves.path, step + 1)
                raise SystemExit(code)
        log.finish(saves.last_model(save_model_every))


def batches_of(dataset: TrainImages, options: Any) -> TrainBatches:
    """The batches of a whole training, this rank's share. Raises InputError for too few images."""
    batches = TrainBatches(len(dataset), options.batch_size, options.seed, rank(), world_size())
    if options.batch_size < 2 * world_size():
        raise InputError(f'--batch_size {options.batch_size} is too small for {world_size()} '
                         'ranks: batch norm needs at least 2 images per rank')
    if not batches.per_epoch:
        raise InputError('training needs at least two images for each rank: check --list')
    batches.stop = min(options.epoch * batches.per_epoch, options.max_steps or math.inf)
    torch.backends.cudnn.benchmark = batches.stop >= STEPS_WORTH_A_SEARCH
    return batches


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of a step's dropout, different on each rank."""
    entropy = (seed, step, rank) if rank else (seed, step)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


class Sgd:
    """SGD with momentum on a model, at the precision of options.amp. `network` is the model to
    call, `model` what is saved, `factor` that of the schedule."""

    def __init__(self, model: nn.Module, groups: list[dict], options: Any, device: torch.device):
        if options.snapshot:
            load_checkpoint(model, options.snapshot)
        self.model = model.to(device, memory_format=torch.channels_last).train()
        self.precision = Precision(options.amp, device, model)
        # Not fused with a GradScaler: if the first step overflows, the kernel skips it and leaves
        # the momentum buffer uninitialised.
        self.optimizer = torch.optim.SGD(
            groups, lr=options.lr, momentum=options.momentum, nesterov=options.nesterov,
            weight_decay=options.weight_decay, fused=self.precision.name in ('bf16', 'off'))
        self.rates = [group['lr'] for group in self.optimizer.param_groups]
        self.factor, self.scaler = 1.0, self.precision.scaler
        is_apex = self.precision.name == 'apex'
        self.apex = ApexScaler(model, self.optimizer) if is_apex else None
        self.network = data_parallel(model, device)

    def set_rates(self, factor: float) -> None:
        self.factor = factor
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group['lr'] = rate * factor

    def step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        if self.apex:
            self.apex.backward(loss)
        else:
            self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    @property
    def parts(self) -> dict[str, Any]:
        """What has a state, by its name in last.ckpt."""
        return {'model': self.model, 'optimizer': self.optimizer, 'scaler': self.scaler}


class Saves:
    """`model-N`, a plain state dict, and `last.ckpt`, all that is needed to resume, with the
    settings that must match for a resumed run to reproduce the original. Rank 0 writes."""

    def __init__(self, run: RunFolder, sgd: Sgd, batches: TrainBatches, options: Any,
                 dataset: TrainImages):
        self.run, self.sgd, self.batches, self.options = run, sgd, batches, options
        self.path, self.saved_at = run.path / 'last.ckpt', time.monotonic()
        names = ('epoch', 'batch_size', 'lr', 'momentum', 'nesterov', 'weight_decay', 'seed')
        self.settings = {
            **{f'--{name}': getattr(options, name) for name in names},
            'precision': sgd.precision.name, 'number of ranks': world_size(),
            'network': sum(p.numel() for p in sgd.model.parameters()), **dataset.fingerprint()}
        self.old_models: list[Path] = []

    def first_step(self) -> int:
        """0, or the number of completed steps of the run to resume, which is restored. Raises
        InputError where that is not possible, and where it is not asked for although an unfinished
        run lies there."""
        resume, found = self.options.resume, self.path.is_file()
        if resume == 'yes' or (resume == 'auto' and any(of_all_ranks(found))):
            return self._resumed_step()
        if found and resume is None:
            state = self._read()
            if state['step'] < state['last']:
                raise InputError(f'{self.path} is an unfinished run, at step {state["step"]} of '
                                 f'{state["last"]}: continue it with --resume, or give --resume no '
                                 'to start again and lose it')
        self.old_models = list(models_in(self.run.path).values())
        for old in self.old_models:
            if not settings_path(old).is_file():
                raise InputError(f'{old} was not trained here (downloaded?), and a new training '
                                 'would remove it: move it away, or give another --savepath')
        if is_main_process():
            for events in self.run.path.glob('events.out.tfevents.*'):
                events.unlink()  # two runs would be drawn as one curve
        return 0

    def save(self, step: int, number: int | None) -> None:
        """Write `model-NUMBER`, if a number is given, and last.ckpt once a minute, every
        --save_every steps, and at the end."""
        every = self.options.save_every
        if number is not None:
            self.save_model(step, number)
        if (time.monotonic() - self.saved_at > SECONDS_BETWEEN_SAVES
                or step == self.batches.stop or (every and step % every == 0)):
            self.save_state(step)

    def save_state(self, step: int) -> None:
        states = {name: part.state_dict() for name, part in self.sgd.parts.items()}
        self._write({**states, 'step': step, 'run': self.settings, 'last': self.batches.stop},
                    self.path, step)
        self.saved_at = time.monotonic()

    def save_model(self, step: int, number: int) -> None:
        """Write `model-NUMBER`; the first removes those of the run before."""
        path = self.run.path / f'model-{number}'
        self._write(self.sgd.model.state_dict(), path, step)
        stale = [old for old in self.old_models if old != path]
        self.old_models = []
        if is_main_process():
            self.run.describe_model(path)
            for old in stale:
                old.unlink(missing_ok=True)
                settings_path(old).unlink(missing_ok=True)
            if stale:
                print(f'removed {len(stale)} models of the run before from {path.parent}')

    def last_model(self, save_model_every: int | None) -> Path:
        """The file of the last step's model; written here if the run was killed before."""
        stop = self.batches.stop
        number = stop if save_model_every else math.ceil(stop / self.batches.per_epoch)
        path = self.run.path / f'model-{number}'
        if not path.is_file():
            self.save_model(stop, number)
        return path

    def _write(self, state: dict[str, Any], path: Path, step: int) -> None:
        """Write a checkpoint. Raises InputError if the model is not finite (buffers are checked
        too: an overflow in the forward pass may corrupt the statistics of batch norm alone), and
        if the file cannot be written."""
        if not is_main_process():
            return
        for name, value in self.sgd.model.state_dict().items():
            if value.is_floating_point() and not value.isfinite().all():
                raise InputError(f'{name} is no longer finite at step {step}: stopped without '
                                 'saving; try a lower --lr or --amp off')
        try:
            atomic_write(path, lambda file: torch.save(state, file))
        except RuntimeError as error:  # torch.save hides the file's own error, as of a full disk
            raise InputError(f'cannot write {path}: {error.__context__ or error}') from error

    def _resumed_step(self) -> int:
        if self.sgd.precision.name == 'apex':
            raise InputError('--resume: apex keeps weights that last.ckpt does not have; use '
                             '--amp auto, or --resume no')
        state = self._read()
        step = int(state['step'])
        if len(set(of_all_ranks(step))) > 1:
            raise InputError(f'--resume: not all ranks find the same {self.path}: use a --savepath '
                             'that all machines share')
        if step > self.batches.stop:
            raise InputError(f'--resume: {step} steps are done already, --max_steps is smaller')
        differing = [f'{name} {state["run"].get(name)} instead of {value}'
                     for name, value in self.settings.items() if state['run'].get(name) != value]
        if differing:
            raise InputError(f'--resume: {self.path} was written with {", ".join(differing)}: '
                             'give the same flags, or --resume no to start again')
        for name, part in self.sgd.parts.items():
            part.load_state_dict(state[name])
        return step

    def _read(self) -> dict[str, Any]:
        try:
            state = torch.load(self.path, map_location='cpu', weights_only=True)
            return {name: state[name] for name in (*self.sgd.parts, 'step', 'run', 'last')}
        except Exception as error:  # PyTorch raises many kinds
            raise InputError(f'{self.path} cannot be resumed ({first_line(error)}): give --resume '
                             'no to start again') from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Refuse a second training in the same folder, on rank 0. The lock ends with the process."""
    if not is_main_process():
        yield
        return
    with open(folder / 'training.lock', 'a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f'another process is training in {folder}: wait for it, or give '
                             'another --savepath') from error
        except OSError:  # a file system without locks
            warn(f'{folder} cannot be locked: do not start two trainings in it')
        yield
        Path(file.name).unlink()


class Interruption:
    """A context in which SIGTERM, SIGHUP (a closed terminal) and Ctrl-C are only noted, so that a
    loop can save before it ends. A second Ctrl-C ends it at once."""

    def __init__(self):
        self.received, self._before = 0, {}
        self._checked_at, self._steps, self._until_check = time.monotonic(), 0, 1

    def __enter__(self) -> 'Interruption':
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGHUP under nohup
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: object) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number

    def exit_code(self) -> int:
        """128 + the signal that any rank has received; 0 without one. All ranks must call it after
        each step; they talk to each other once a second, after equal numbers of steps."""
        received = self.received
        if world_size() > 1:
            self._steps += 1
            if self._steps < self._until_check:
                return 0
            seconds = (time.monotonic() - self._checked_at) / self._steps
            received, seconds = map(max, zip(*of_all_ranks((received, seconds)), strict=True))
            self._checked_at, self._steps = time.monotonic(), 0
            self._until_check = max(1, round(SECONDS_BETWEEN_CHECKS / max(seconds, 1e-6)))
        return 128 + int(received) if received else 0
