"""The training loop of all stages.

All random numbers come from (seed, epoch, image) or (seed, step), never from a state that a
restart would lose, so a resumed run ends where an undisturbed one does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from network.weights import load_checkpoint
from utils.data.datasets import TrainImages
from utils.data.loader import EpochSampler, TrainLoader, explain_dead_workers
from utils.engine.checkpoint import TrainingState, check_finite, save_model
from utils.engine.device import default_workers
from utils.engine.distributed import any_rank, data_parallel, is_main_process, rank, world_size
from utils.engine.graph import GraphedStep
from utils.engine.interruption import Interruption
from utils.engine.normalize import Normalize
from utils.engine.precision import Precision, explain_out_of_memory
from utils.engine.training_log import TrainingLog
from utils.engine.transfer import Transfer, uploaded_ahead
from utils.errors import InputError
from utils.outputs.results import RunFolder

Batch = dict[str, Any]
# cuDNN's search for the fastest kernels takes 20 to 30 s, and may save a few ms in each step.
STEPS_WORTH_A_SEARCH = 5_000


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
    """Trains a model; writes `model-N`, `last.ckpt`, and what `TrainingLog` writes.

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
        random_guess, paper_steps: as in `TrainingLog`.

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
                 draw: Callable[[nn.Module], np.ndarray] | None = None,
                 random_guess: float | None = None, paper_steps: int | None = None):
        if options.batch_size < 2 * world_size():
            raise InputError(f'--batch_size {options.batch_size} is too small for {world_size()} '
                             'ranks: batch norm needs at least 2 images per rank')
        self.options, self.run_folder = options, run
        self.loss, self.schedule = loss, schedule
        self.should_save, self.save_model_every = should_save, save_model_every
        self.sampler = EpochSampler(len(dataset), options.batch_size, options.seed, rank(),
                                    world_size())
        if not len(self.sampler):
            raise InputError('training needs at least two images for each rank: check --list')
        self.last_step = min(options.epoch * len(self.sampler), options.max_steps or math.inf)
        self.stopped = False
        self._prepare_model(model, groups, device)
        self.log = TrainingLog(
            run, self.sampler, options.epoch, {'amp': self.precision.name, 'device': str(device)},
            draw and partial(_in_evaluation_mode, self.model, draw),
            dataset.images if options.skip_bad else None, random_guess, paper_steps)
        workers = options.num_workers
        self.loader = TrainLoader(
            dataset, self.sampler, default_workers(device) if workers is None else workers,
            pin_memory=device.type == 'cuda', report_bad=self.log.bad and self.log.bad.add)
        self.state = TrainingState(
            run.file('last.ckpt'), self.model, self.optimizer, self.precision,
            fingerprint(options, self.precision.name, self.model, dataset))

    def _prepare_model(self, model: nn.Module, groups: list[dict], device: torch.device) -> None:
        options, self.transfer = self.options, Transfer(device)
        if options.snapshot:
            load_checkpoint(model, options.snapshot)
        self.precision = Precision(options.amp, device, model)
        self.normalize = Normalize(model.mean, model.std).to(device)
        model = model.to(device, memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(
            groups, lr=options.lr, momentum=options.momentum, nesterov=options.nesterov,
            weight_decay=options.weight_decay, fused=self.precision.allows_fused_sgd)
        self.rates = [group['lr'] for group in optimizer.param_groups]
        self.model, self.optimizer = self.precision.prepare(model, optimizer)
        self.parallel_model = data_parallel(self.model, device)
        # No reference to the trainer from itself: that would keep its process group alive.
        self.graphed_step = None
        if device.type == 'cuda' and world_size() == 1 and self.precision.allows_fused_sgd:
            self.graphed_step = GraphedStep(self.train_step, options.batch_size, lambda: [
                group['lr'] for group in optimizer.param_groups])

    def run(self) -> None:
        """Train to the end, from the beginning or from where the run to resume stopped."""
        step, launch = self._first_step(), self.graphed_step or self.train_step
        if step >= self.last_step:
            self._complete(step)
            return
        with (Interruption() as interruption, explain_out_of_memory(self.options.batch_size),
              explain_dead_workers(), self.log as log):
            log.start(step, self.last_step)
            while step < self.last_step and not self.stopped:
                epoch = self.sampler.seek(step)
                factor = self.schedule(epoch, self.options.epoch)
                for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                    group['lr'] = rate * factor
                log.start_epoch(epoch, self.options.lr * factor)
                for batch in uploaded_ahead(self.loader, self.transfer):
                    size = self.sampler.size(step % len(self.sampler))
                    torch.manual_seed(step_seed(self.options.seed, step, rank()))
                    losses = launch(batch, size)  # `train_step`, on CUDA as a graph
                    step += 1
                    log.add_step(step, size, losses)
                    self.stopped = any_rank(interruption.received)
                    self.save_if_due(step)
                    if step == self.last_step or self.stopped:
                        break
                log.end_epoch(step)
        log.write_bad_images()
        if step == self.last_step:
            log.finish(step, self.model_path(step))
        else:
            log.stop(step, self.last_step, self.state.path)

    def train_step(self, batch: Batch, size: int) -> dict[str, Tensor]:
        """One SGD step on this rank's share of a batch of `size` images."""
        torch.backends.cudnn.benchmark = (size == self.options.batch_size
                                          and self.last_step >= STEPS_WORTH_A_SEARCH)
        with explain_out_of_memory(self.options.batch_size):
            with self.precision.autocast():
                batch = {**batch, 'image': self.normalize(batch['image'])}
                losses = self.loss(self.parallel_model, batch)  # the forward pass is part of it
            # DDP averages the gradients of the ranks. Each image has the same weight, also where
            # the ranks' shares of a batch differ in size.
            share = len(batch['image']) * world_size() / size
            self.optimizer.zero_grad()
            self.precision.backward(losses['total'] * share, self.optimizer)
            self.precision.step(self.optimizer)
        return {name: value.detach() for name, value in losses.items()}

    def save_if_due(self, step: int) -> None:
        """After a step (from 1): write the model, and the state for resuming, where that is due."""
        epoch, rest = divmod(step, len(self.sampler))
        is_due = step == self.last_step or (
            step % self.save_model_every == 0 if self.save_model_every
            else not rest and self.should_save(epoch, self.options.epoch))
        every = self.options.save_every
        if not (is_due or not rest or self.stopped or (every and step % every == 0)):
            return
        check_finite(self.model, step)
        self.log.write_bad_images()
        if is_main_process():
            if is_due:
                save_model(self.model, self.model_path(step), self.run_folder)
            self.state.save(step)

    def model_path(self, step: int) -> Path:
        """model-STEP, or model-EPOCH, counting an epoch that --max_steps cut short."""
        number = step if self.save_model_every else math.ceil(step / len(self.sampler))
        return self.run_folder.file(f'model-{number}')

    def _first_step(self) -> int:
        resume = self.options.resume
        if resume == 'yes' or (resume == 'auto' and any_rank(self.state.path.is_file())):
            self.log.resume()
            return self.state.resume()
        return 0

    def _complete(self, step: int) -> None:
        """Write what a run that was killed after its last step has not written."""
        if is_main_process() and not self.model_path(step).is_file():
            save_model(self.model, self.model_path(step), self.run_folder)
        self.log.finish_again(step, self.model_path(step))


def _in_evaluation_mode(model: nn.Module, draw: Callable[[nn.Module], np.ndarray]) -> np.ndarray:
    model.eval()
    picture = draw(model)
    model.train()
    return picture


def fingerprint(options: TrainingOptions, precision: str, model: nn.Module, dataset: TrainImages
                ) -> dict[str, Any]:
    """What a resumed run must have in common with the run that it continues."""
    names = ('epoch', 'batch_size', 'lr', 'momentum', 'nesterov', 'weight_decay', 'seed')
    return {**{f'--{name}': getattr(options, name) for name in names},
            'precision': precision, 'number of ranks': world_size(),
            'network': sum(p.numel() for p in model.parameters()), **dataset.fingerprint()}


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of a step's dropout, different on each rank."""
    entropy = (seed, step, rank) if rank else (seed, step)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
