"""The training loop of all stages.

All random numbers come from (seed, epoch, image) or (seed, step), never from a state that a
restart would lose, so a resumed run ends where an undisturbed one does.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from network.weights import load_checkpoint
from utils.data.datasets import TrainImages
from utils.data.loader import EpochSampler, TrainLoader, explain_dead_workers
from utils.engine.checkpoint import TrainingState, check_finite, save_checkpoint
from utils.engine.device import available_cores
from utils.engine.distributed import (
    any_rank,
    data_parallel,
    gather_to_main,
    is_main_process,
    mean_over_ranks,
    rank,
    world_size,
)
from utils.engine.interruption import Interruption
from utils.engine.normalize import Normalize
from utils.engine.precision import Precision, explain_out_of_memory
from utils.engine.progress import Progress
from utils.errors import InputError
from utils.outputs.bad_images import BadImages
from utils.outputs.events import open_events
from utils.outputs.files import write_png
from utils.outputs.results import RunFolder, read_results

Batch = dict[str, Any]
SECONDS_BETWEEN_READS = 1
STEPS_BETWEEN_POINTS = 50


@dataclass(frozen=True)
class TrainingOptions:
    """The hyperparameters of a training, named as the flags of the training scripts."""

    epoch: int
    batch_size: int
    lr: float
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    amp: str = 'auto'
    seed: int = 0
    num_workers: int | None = None
    max_steps: int | None = None
    save_every: int | None = None
    snapshot: Path | None = None
    resume: str = 'no'
    skip_bad: bool = False


def constant(epoch: int, epochs: int) -> float:
    return 1.0


def linear_decay(epoch: int, epochs: int) -> float:
    return 1 - epoch / epochs


def late_epochs(epoch: int, epochs: int) -> bool:
    """Whether the model after `epoch` (from 1) is saved: only in the second half, as in the
    released code."""
    return epoch > epochs / 2 + 1


def every_epoch(epoch: int, epochs: int) -> bool:
    return True


class Trainer:
    """Trains a model; writes `model-N`, `last.ckpt`, results.json and TensorBoard events.

    Arguments:
        loss: loss(model, batch) -> {'total': ..., others to show}. The batch holds tensors on the
            device, 'image' normalised (float32, N x 3 x H x W).
        groups: SGD's parameter groups. A group's 'lr', by default options.lr, is multiplied by
            schedule(epoch, epochs), epoch from 0, within each epoch.
        should_save: `model-N` is saved after each epoch N (from 1) for which
            should_save(N, epochs) is true.
        save_model_every: instead, `model-N` is saved every so many steps, N being the step. The
            last model is always saved.
        draw: draw(model) -> a picture, uint8 H x W x 3, written to `training.png` and to
            TensorBoard after each epoch.

    In a distributed run, options.batch_size is the global batch size: each rank processes its share
    of every batch, and rank 0 writes.

    Resuming: TrainingState restores model, optimizer and step, EpochSampler skips the batches that
    are done, and dropout and augmentation are seeded anew for each step and image.
    """

    def __init__(self, model: nn.Module, dataset: TrainImages, groups: list[dict],
                 loss: Callable[[nn.Module, Batch], dict[str, Tensor]], options: TrainingOptions,
                 device: torch.device, run: RunFolder,
                 schedule: Callable[[int, int], float] = constant,
                 should_save: Callable[[int, int], bool] = late_epochs,
                 save_model_every: int | None = None,
                 draw: Callable[[nn.Module], np.ndarray] | None = None):
        if options.batch_size < 2 * world_size():
            raise InputError(f'--batch_size {options.batch_size} is too small for {world_size()} '
                             'ranks: batch norm needs at least 2 images per rank')
        self.options, self.device, self.run_folder = options, device, run
        self.loss, self.schedule, self.draw = loss, schedule, draw
        self.should_save, self.save_model_every = should_save, save_model_every
        self.precision = Precision(options.amp, device)
        if options.snapshot:
            load_checkpoint(model, options.snapshot)
        self.normalize = Normalize(model.mean, model.std).to(device)
        model = model.to(device, memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(
            groups, lr=options.lr, momentum=options.momentum, nesterov=options.nesterov,
            weight_decay=options.weight_decay, fused=self.precision.allows_fused_sgd)
        self.rates = [group['lr'] for group in optimizer.param_groups]
        self.model, self.optimizer = self.precision.prepare(model, optimizer)
        self.parallel_model = data_parallel(self.model, device)
        self.sampler = EpochSampler(len(dataset), options.batch_size, options.seed, rank(),
                                    world_size())
        if not len(self.sampler):
            raise InputError('training needs at least two images for each rank: check --list')
        self.last_step = min(options.epoch * len(self.sampler), options.max_steps or math.inf)
        self.bad = BadImages(dataset.images, run.file('bad_images.txt'))
        workers = options.num_workers
        self.loader = TrainLoader(
            dataset, self.sampler, default_workers(device) if workers is None else workers,
            pin_memory=device.type == 'cuda', report_bad=self.bad.add if options.skip_bad else None)
        self.state = TrainingState(run.file('last.ckpt'), self.model, self.optimizer,
                                   self.precision, self._fingerprint(dataset))
        self.stopped = False

    def run(self) -> None:
        """Train to the end, from the beginning or from where the run to resume stopped."""
        begin, first = time.monotonic(), self._first_step()
        if first >= self.last_step:
            if is_main_process():
                self._complete(first)
            return
        step, losses = first, {}
        with (Interruption() as self.interruption, explain_dead_workers(),
              open_events(self.run_folder.path, is_main_process()) as self.events):
            while step < self.last_step and not self.stopped:
                step, losses = self._run_epoch(*divmod(step, len(self.sampler)))
        self._write_bad_images()
        if is_main_process():
            self._finish(first, step, losses, time.monotonic() - begin)

    def _finish(self, first: int, step: int, losses: dict[str, float], seconds: float) -> None:
        """Write the results of the steps from `first` to `step`, or say how to continue."""
        if self.stopped and step < self.last_step:
            print(f'stopped after step {step} of {self.last_step}, saved in {self.state.path}: '
                  'continue with the same command and --resume')
            return
        seen = sum(self.sampler.size(k % len(self.sampler)) for k in range(first, step))
        path = self.run_folder.write_results(self._metrics(losses, step), seconds, seen,
                                             'training')
        print(f'wrote {self._model_path(step)} and {path}{self.bad.summary()}')

    def _complete(self, step: int) -> None:
        """Write what a run that was killed after its last step has not written."""
        path = self._model_path(step)
        if not path.is_file():
            save_checkpoint(self.model.state_dict(), path)
        recorded = read_results(self.run_folder.file('results.json')).get('training', {})
        if recorded.get('steps') != step:
            self.run_folder.write_results(self._metrics({}, step), 0, 0, 'training')
        print(f'all {step} steps are done already: {path}')

    def _metrics(self, losses: dict[str, float], step: int) -> dict[str, Any]:
        return {'loss': losses, 'steps': step, 'amp': self.precision.name,
                'device': str(self.device)}

    def _first_step(self) -> int:
        resume = self.options.resume
        if resume == 'yes' or (resume == 'auto' and any_rank(self.state.path.is_file())):
            if self.options.skip_bad:
                self.bad.load()
            return self.state.resume()
        return 0

    def _run_epoch(self, epoch: int, start: int) -> tuple[int, dict[str, float]]:
        """Train from batch `start` of an epoch to its end, or to the last step of all. Returns the
        number of steps done so far and the mean losses."""
        factor = self.schedule(epoch, self.options.epoch)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group['lr'] = rate * factor
        self.sampler.epoch, self.sampler.start = epoch, start
        step = epoch * len(self.sampler) + start
        meter = AverageMeter()
        progress = Progress(f'epoch {epoch + 1}/{self.options.epoch}', self.sampler.count,
                            start * self.options.batch_size)
        for batch in self.loader:
            size = self.sampler.size(step % len(self.sampler))
            torch.manual_seed(step_seed(self.options.seed, step, rank()))
            meter.add(self._step(batch, size))
            step += 1
            progress.update(size, **meter.recent(step))
            self.stopped = any_rank(self.interruption.received)
            self._save(step)
            if step == self.last_step or self.stopped:
                break
            if step % STEPS_BETWEEN_POINTS == 0 and step % len(self.sampler):
                self._write_point(step, meter.read(step), factor, progress.rate)
        losses = mean_over_ranks(meter.read(step))
        progress.close(**losses)
        self._write_point(step, losses, factor, progress.rate)
        self._draw(step)
        return step, losses

    def _step(self, batch: Batch, size: int) -> dict[str, Tensor]:
        """One SGD step on this rank's share of a batch of `size` images."""
        with explain_out_of_memory(self.options.batch_size):
            batch = {key: value.to(self.device, non_blocking=True)
                     for key, value in batch.items()}
            batch['image'] = self.normalize(batch['image'])
            with self.precision.autocast():
                losses = self.loss(self.parallel_model, batch)
            # DDP averages the gradients of the ranks. Each image has the same weight, also where
            # the ranks' shares of a batch differ in size.
            share = len(batch['image']) * world_size() / size
            self.precision.step(losses['total'] * share, self.optimizer)
        return losses

    def _write_point(self, step: int, losses: dict[str, float], factor: float,
                     rate: float) -> None:
        self.events.add_scalars({**{f'loss/{name}': value for name, value in losses.items()},
                                 'lr': self.options.lr * factor, 'images_per_second': rate}, step)

    def _draw(self, step: int) -> None:
        if not (self.draw and is_main_process()):
            return
        self.model.eval()
        picture = self.draw(self.model)
        self.model.train()
        write_png(self.run_folder.file('training.png'), picture)
        self.events.add_picture('training', picture, step)

    def _save(self, step: int) -> None:
        """After a step (from 1): write the model, and the state for resuming, where it is time."""
        epoch, rest = divmod(step, len(self.sampler))
        save_model = step == self.last_step or (
            step % self.save_model_every == 0 if self.save_model_every
            else not rest and self.should_save(epoch, self.options.epoch))
        every = self.options.save_every
        if not (save_model or not rest or self.stopped or (every and step % every == 0)):
            return
        check_finite(self.model, step)
        self._write_bad_images()
        if is_main_process():
            if save_model:
                save_checkpoint(self.model.state_dict(), self._model_path(step))
            self.state.save(step)

    def _write_bad_images(self) -> None:
        names = gather_to_main(self.bad.names)
        if self.options.skip_bad and is_main_process():
            self.bad.write(names)

    def _model_path(self, step: int) -> Path:
        """model-STEP, or model-EPOCH, counting an epoch that --max_steps cut short."""
        number = step if self.save_model_every else math.ceil(step / len(self.sampler))
        return self.run_folder.file(f'model-{number}')

    def _fingerprint(self, dataset: TrainImages) -> dict[str, Any]:
        names = ('epoch', 'batch_size', 'lr', 'momentum', 'nesterov', 'weight_decay', 'seed')
        return {**{f'--{name}': getattr(self.options, name) for name in names},
                'precision': self.precision.name, 'number of ranks': world_size(),
                'network': sum(p.numel() for p in self.model.parameters()), **dataset.fingerprint()}


class AverageMeter:
    """Means of losses, summed on the device and read from there seldom, since each read waits for
    the GPU."""

    def __init__(self):
        self._names, self._sum, self._count = (), 0, 0
        self._read_at = -math.inf
        self._means: dict[str, float] = {}

    def add(self, losses: dict[str, Tensor]) -> None:
        self._names = tuple(losses)
        self._sum = self._sum + torch.stack([loss.detach().float() for loss in losses.values()])
        self._count += 1

    def recent(self, step: int) -> dict[str, float]:
        """The means, at most a second old."""
        if time.monotonic() - self._read_at > SECONDS_BETWEEN_READS:
            return self.read(step)
        return self._means

    def read(self, step: int) -> dict[str, float]:
        """The means. Raises InputError where one is not finite."""
        self._means = dict(zip(self._names, (self._sum / self._count).tolist(), strict=True))
        self._read_at = time.monotonic()
        for name, value in self._means.items():
            if not math.isfinite(value):
                raise InputError(f'the {name} loss is {value} at step {step}: stopped; '
                                 'try a lower --lr or --amp off')
        return self._means


def default_workers(device: torch.device) -> int:
    """With CUDA one worker for each core; on the CPU, where readers and network compete, the cores
    beyond the two that a network keeps busy. At most 8."""
    cores = available_cores()
    return min(8, cores if device.type == 'cuda' else max(0, cores - 2))


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of a step's dropout, different on each rank."""
    entropy = (seed, step, rank) if rank else (seed, step)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
