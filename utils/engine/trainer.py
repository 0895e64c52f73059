"""The training loop of all stages.

Everything random comes from (seed, epoch, image) or (seed, step), never from a state that
a restart would lose, so a resumed run ends where an uninterrupted one does.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler

from network.weights import load_checkpoint
from utils.data.datasets import TrainingImages
from utils.data.images import normalise
from utils.data.loader import Batches, explain_dead_workers
from utils.engine.distributed import (
    any_process,
    in_all_processes,
    is_main,
    mean_of_processes,
    process_count,
    process_index,
    same_in_all_processes,
)
from utils.engine.events import Events
from utils.engine.interruption import Interruption
from utils.engine.progress import Progress
from utils.engine.runtime import Precision, choose_device, explain_memory
from utils.errors import InputError
from utils.outputs.bad_images import BadImages
from utils.outputs.files import write_whole
from utils.outputs.results import write_results

Batch = dict[str, Any]
SECONDS_BETWEEN_FIGURES = 1


class EpochBatches(Sampler):
    """Batches of (epoch, index), shuffled by (seed, epoch), from batch `start` on; of several
    processes each has its share of every batch.

    A last batch of a single image for a process is left out: batch norm cannot train on it.
    """

    def __init__(self, count: int, batch_size: int, seed: int):
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.epoch = self.start = 0

    def __len__(self) -> int:
        full, rest = divmod(self.count, self.batch_size)
        return full + (rest >= 2 * process_count())

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        for step in range(self.start, len(self)):
            batch = order[step * self.batch_size:(step + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in batch[process_index()::process_count()]]

    def size(self, step: int) -> int:
        """The number of images, in all processes, of an epoch's batch `step`."""
        return min(self.batch_size, self.count - step * self.batch_size)


def constant(epoch: int, epochs: int) -> float:
    return 1.0


def linear_decay(epoch: int, epochs: int) -> float:
    return 1 - epoch / epochs


def second_half(epoch: int, epochs: int) -> bool:
    """Whether the model after `epoch` (from 1) is kept: those beyond the middle."""
    return epoch > epochs / 2 + 1


def every_epoch(epoch: int, epochs: int) -> bool:
    return True


class Trainer:
    """Trains a model and writes `model-N`, `last.ckpt`, TensorBoard events and results.json.

    loss(model, batch) -> {'total': ..., others to show}; the batch holds tensors on the device,
    'image' normalised (float32, N x 3 x H x W).
    groups: SGD's parameter groups; a group's 'lr', else args.lr, times schedule(epoch, epochs),
    epoch from 0, is its rate within the epoch.
    Models are kept after those epochs (from 1) of which keep(epoch, epochs) is true, N being the
    epoch; or, with `save_steps`, every so many steps, N being the step. The last always is.

    In several processes (torchrun), --batch_size is that of all together; each takes its share
    of every batch, and the main one writes.
    """

    stopped = False

    def __init__(self, args: argparse.Namespace, model: nn.Module, dataset: TrainingImages,
                 groups: list[dict], loss: Callable[[nn.Module, Batch], dict[str, Tensor]],
                 schedule: Callable[[int, int], float] = constant,
                 keep: Callable[[int, int], bool] = second_half, save_steps: int | None = None):
        self.args, self.loss, self.schedule = args, loss, schedule
        self.keep, self.save_steps = keep, save_steps
        self.device = choose_device(args.device)
        self.precision = Precision(args.amp, self.device)
        if args.snapshot:
            load_checkpoint(model, args.snapshot)
        model = model.to(self.device, memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(
            groups, lr=args.lr, momentum=args.momentum, weight_decay=args.weight_decay,
            nesterov=args.nesterov, fused=self.precision.name != 'apex')
        self.rates = [group['lr'] for group in optimizer.param_groups]
        self.model, self.optimizer = self.precision.prepare(model, optimizer)
        self.network = in_all_processes(self.model, self.device)
        self.images = dataset.images
        self.batches = EpochBatches(len(dataset), args.batch_size, args.seed)
        if not len(self.batches):
            raise InputError('training needs at least two images for each process: check --list')
        self.bad = BadImages(args, dataset.images)
        self.loader = Batches(dataset, self.batches, args.num_workers, self.device,
                              self.bad.add if args.skip_bad else None)
        self.last_step = min(args.epoch * len(self.batches), args.max_steps or math.inf)

    def run(self) -> None:
        """Train to the end, from the beginning or, with --resume, from where it stopped."""
        begin = time.monotonic()
        step = self._resume() if self.args.resume else 0
        if step >= self.last_step:
            print(f'all {step} steps are done already: {self._model_path(step)}')
            return
        self.events = Events(self.args.savepath) if is_main() else None
        figures, self.seen = {}, 0
        with Interruption() as self.interruption, explain_dead_workers():
            while step < self.last_step and not self.stopped:
                figures, step = self._epoch(*divmod(step, len(self.batches)))
        self.bad.write()
        if not is_main():
            return
        self.events.close()
        if step < self.last_step:
            print(f'stopped after step {step} of {self.last_step}; '
                  f'{self.args.savepath / "last.ckpt"} has all: '
                  'go on with the same command and --resume')
            return
        path = write_results(
            self.args, {'loss': figures, 'steps': step, 'amp': self.precision.name,
                        'device': str(self.device)}, time.monotonic() - begin, self.seen,
            'training')
        print(f'wrote {self._model_path(step)} and {path}{self.bad.mention()}')

    def _epoch(self, epoch: int, start: int) -> tuple[dict[str, float], int]:
        """Train from batch `start` of an epoch to its end, or to the last step of all; returns
        the mean losses and the number of steps done in all."""
        factor = self.schedule(epoch, self.args.epoch)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group['lr'] = rate * factor
        self.batches.epoch, self.batches.start = epoch, start
        step = epoch * len(self.batches) + start
        progress = Progress(f'epoch {epoch + 1}/{self.args.epoch}', self.batches.count,
                            start * self.args.batch_size)
        meter = Meter()
        for batch in self.loader:
            size = self.batches.size(step % len(self.batches))
            torch.manual_seed(step_seed(self.args.seed, step, process_index()))
            meter.add(self._step(batch, size))
            step += 1
            self.seen += size
            progress.update(size, **self._figures(meter, step))
            self.stopped = any_process(self.interruption.received)
            self._save(step)
            if step == self.last_step or self.stopped:
                break
        figures = self._check(mean_of_processes(meter.read()), step)
        progress.close(**figures)
        self._log(figures, step, factor, progress.rate)
        return figures, step

    def _step(self, batch: Batch, size: int) -> dict[str, Tensor]:
        """One step on this process's share of a batch of `size` images."""
        with explain_memory(self.args.batch_size):
            batch = {key: value.to(self.device, non_blocking=True)
                     for key, value in batch.items()}
            batch['image'] = normalise(batch['image'], self.model.mean, self.model.std)
            with self.precision.autocast():
                losses = self.loss(self.network, batch)
            # Processes' gradients are averaged: shares of unequal size weigh as they count.
            share = len(batch['image']) * process_count() / size
            self.precision.step(losses['total'] * share, self.optimizer)
        return losses

    def _figures(self, meter: 'Meter', step: int) -> dict[str, float]:
        """The running means, read from the device only once a second."""
        if meter.due():
            self._check(meter.read(), step)
        return meter.last

    def _check(self, figures: dict[str, float], step: int) -> dict[str, float]:
        for name, value in figures.items():
            if not math.isfinite(value):
                raise InputError(f'the {name} loss became {value} by step {step}: stopped; '
                                 'try a lower --lr or --amp off')
        return figures

    def _log(self, figures: dict[str, float], step: int, factor: float, rate: float) -> None:
        if self.events:
            losses = {f'loss/{name}': value for name, value in figures.items()}
            self.events.add({**losses, 'lr': self.args.lr * factor, 'images_per_second': rate},
                            step)

    def _save(self, step: int) -> None:
        """After a step (from 1): keep the model, and all for --resume, where it is time."""
        epoch, rest = divmod(step, len(self.batches))
        last = step == self.last_step
        if self.save_steps:
            keep = last or step % self.save_steps == 0
        else:
            keep = last or (not rest and self.keep(epoch, self.args.epoch))
        due = self.args.save_every and step % self.args.save_every == 0
        if not (keep or not rest or due or self.stopped):
            return
        if not all(torch.isfinite(p).all() for p in self.model.parameters()):
            raise InputError(f'the weights are no longer finite by step {step}: stopped, not '
                             'saved; try a lower --lr or --amp off')
        self.bad.write()
        if not is_main():
            return
        state = self.model.state_dict()
        if keep:
            save_checkpoint(state, self._model_path(step))
        save_checkpoint({'model': state, 'optimizer': self.optimizer.state_dict(),
                         'scaler': self.precision.scaler.state_dict(), 'step': step,
                         'run': self._identity()}, self.args.savepath / 'last.ckpt')

    def _model_path(self, step: int) -> Path:
        """model-STEP, or model-EPOCH, counting an epoch that --max_steps cut short."""
        number = step if self.save_steps else math.ceil(step / len(self.batches))
        return self.args.savepath / f'model-{number}'

    def _resume(self) -> int:
        """Restore `last.ckpt`; returns the number of steps done."""
        path = self.args.savepath / 'last.ckpt'
        if not path.is_file():
            raise InputError(f'--resume: no {path}; start without --resume')
        try:
            state = torch.load(path, map_location='cpu', weights_only=True)
            step, run = int(state['step']), dict(state['run'])
            differing = [name for name, value in self._identity().items()
                         if run.get(name) != value]
            if not differing:
                self.model.load_state_dict(state['model'])
                self.optimizer.load_state_dict(state['optimizer'])
                self.precision.scaler.load_state_dict(state['scaler'])
        except Exception as error:  # torch raises many kinds on damaged files
            raise InputError(f'--resume: {path} is damaged, or no resume state '
                             f'({(str(error).splitlines() or ["?"])[0]}); start without --resume'
                             ) from error
        if not same_in_all_processes(step):
            raise InputError(f'--resume: not every process finds the same {path}: use a --savepath '
                             'that all machines share')
        if differing:
            raise InputError(f'--resume: {path} was written with another {", ".join(differing)}: '
                             'give the same flags, or start without --resume')
        return step

    def _identity(self) -> dict[str, Any]:
        """What a run must share with the one it resumes, to end as that would have."""
        names = ('seed', 'batch_size', 'epoch', 'lr', 'momentum', 'nesterov', 'weight_decay',
                 'amp', 'resize', 'crop', 'list', 'clsnum', 'backbone', 'arch')
        return {**{name: getattr(self.args, name) for name in names if hasattr(self.args, name)},
                'content of the list': self.images.checksum(),
                'number of steps in an epoch': len(self.batches)}


class Meter:
    """Means of losses, summed on the device and read from there seldom."""

    def __init__(self):
        self._names, self._sum, self._count = (), 0, 0
        self._read_at = 0.0
        self.last: dict[str, float] = {}

    def add(self, losses: dict[str, Tensor]) -> None:
        self._names = tuple(losses)
        self._sum = self._sum + torch.stack([loss.detach().float() for loss in losses.values()])
        self._count += 1

    def due(self) -> bool:
        return time.monotonic() - self._read_at > SECONDS_BETWEEN_FIGURES

    def read(self) -> dict[str, float]:
        means = (self._sum / self._count).tolist()
        self.last = dict(zip(self._names, means, strict=True))
        self._read_at = time.monotonic()
        return self.last


def step_seed(seed: int, step: int, process: int = 0) -> int:
    """The seed of one step's dropout, another one in each process."""
    entropy = (seed, step, process) if process else (seed, step)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def save_checkpoint(state: dict, path: Path) -> None:
    write_whole(path, lambda file: torch.save(state, file))
