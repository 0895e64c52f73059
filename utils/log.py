"""The log of a training."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.datasets import TrainBatches, TrainImages
from utils.device import Precision
from utils.distributed import is_main_process, sum_over_ranks, world_size
from utils.errors import InputError
from utils.files import read_json, write_png
from utils.progress import Progress, write_bad_images
from utils.results import RunFolder

SECONDS_BETWEEN_READS = 1
SECONDS_BETWEEN_PICTURES = 60
STEPS_BETWEEN_POINTS = 50
FEW_STEPS = 300  # of the first two of these, MFF-Net 1 and 2 do not find the object


class TrainingLog:
    """Progress, TensorBoard events, training.png, bad_images.txt, results.json and messages.

    Arguments:
        draw: draw(model) -> a picture, uint8 H x W x 3, or None, at most once a minute and at the
            end.
        random_guess: the total loss of a random guess, to be shown beside the last one.
        paper_steps: the number of steps of the paper's run.
    """

    def __init__(self, run: RunFolder, model: nn.Module, dataset: TrainImages,
                 batches: TrainBatches, options: Any, precision: Precision,
                 draw: Callable[[nn.Module], np.ndarray | None] | None = None,
                 random_guess: float | None = None, paper_steps: int = 0):
        self.run, self.model, self.dataset, self.batches = run, model, dataset, batches
        self.epochs, self.draw, self.random_guess = options.epoch, draw, random_guess
        self.facts = {'amp': precision.name, 'device': str(precision.device)}
        self.losses: dict[str, float] = {}
        self._begin = self._drawn_at = time.monotonic()
        self._seen, self.events, bad = 0, None, run.file('bad_images.txt')
        self.bad = set(bad.read_text(errors='surrogateescape').splitlines()
                       if dataset.skip_bad and batches.start and bad.exists() else ())
        if is_main_process():
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import

            self.events = SummaryWriter(run.path, purge_step=batches.start + 1)
            self._announce(paper_steps)
        self._start_epoch(batches.start)

    def _announce(self, paper_steps: int) -> None:
        first, last = self.batches.start, self.batches.stop
        print(f'training: {last} steps' + (f', from step {first}' if first else ''), flush=True)
        size = min(self.batches.batch_size, self.batches.count)
        if size < self.batches.batch_size:
            print(f'--batch_size {self.batches.batch_size} exceeds the {size} images of the list: '
                  'each step sees all of them')
        if paper_steps and last < FEW_STEPS:
            size = min(size, 16)
            epochs = math.ceil(paper_steps / TrainBatches(self.batches.count, size, 0).per_epoch)
            print(f"{last} steps are few, the paper's run has {paper_steps}: "
                  f'--batch_size {size} --epoch {epochs} would give as many')

    def _start_epoch(self, step: int) -> None:
        epoch, number = divmod(step, self.batches.per_epoch)
        self._sum, self._count, self._read_at = 0, 0, -math.inf
        self.progress = Progress(f'epoch {epoch + 1}/{self.epochs}', self.batches.count,
                                 number * self.batches.batch_size)

    def checked(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The tensors of a batch; notes images that were skipped. Raises its InputError."""
        if errors := batch.pop('errors'):
            raise errors.pop(0)  # a reference to it would keep this frame, and the readers
        images = self.dataset.images
        for index, skipped in zip(*(batch.pop(name).tolist() for name in ('index', 'skipped')),
                                  strict=True):
            self.bad |= {images.name((index + k) % len(images)) for k in range(skipped)}
        return batch

    def add(self, step: int, size: int, losses: dict[str, Tensor], lr: float) -> None:
        """Count a step (from 1) on `size` images. Losses are summed on the device and read from
        there once a second. Raises InputError where one is not finite."""
        self._seen += size
        self._sum = self._sum + torch.stack([loss.detach().float() for loss in losses.values()])
        self._count += 1
        ends = step % self.batches.per_epoch == 0 or step == self.batches.stop
        is_point = ends or step % STEPS_BETWEEN_POINTS == 0
        if is_point or time.monotonic() - self._read_at > SECONDS_BETWEEN_READS:
            self._read_at, means = time.monotonic(), (self._sum / self._count).tolist()
            self.losses = dict(zip(losses, means, strict=True))
            for name, value in self.losses.items():
                if not math.isfinite(value):
                    raise InputError(f'the {name} loss is {value} at step {step}: stopped; '
                                     'try a lower --lr or --amp off')
        self.progress.update(size, **self.losses)
        if ends:
            means = sum_over_ranks(list(self.losses.values())) / world_size()
            self.losses = dict(zip(self.losses, means.tolist(), strict=True))
            self.progress.close(**self.losses)
        if is_point and self.events:
            rates = {'lr': lr, 'images_per_second': self.progress.rate}
            for name, value in [*rates.items(), *(
                    (f'loss/{name}', value) for name, value in self.losses.items())]:
                self.events.add_scalar(name, value, step)
        if ends and step < self.batches.stop:
            if time.monotonic() - self._drawn_at > SECONDS_BETWEEN_PICTURES:
                self._write_picture(step)
            self._start_epoch(step)

    def _write_picture(self, step: int) -> None:
        self._drawn_at = time.monotonic()
        if self.draw and is_main_process():
            self.model.eval()
            picture = self.draw(self.model)
            self.model.train()
            if picture is not None:
                write_png(self.run.file('training.png'), picture)
                self.events.add_image('training', picture, step, dataformats='HWC')

    def stop(self, state: Path, step: int) -> None:
        """Say how to continue after a signal; the state is in the file `state`."""
        self._write_bad_images()
        if is_main_process():
            self.events.close()
            print(f'stopped after step {step} of {self.batches.stop}, saved in {state}: continue '
                  'with the same command and --resume')

    def finish(self, model: Path) -> None:
        """Write results.json after the last step, whose model is in the file `model`."""
        left_out = self._write_bad_images()
        if not is_main_process():
            return
        step, path = self.batches.stop, self.run.file('results.json')
        is_done = self.batches.start == step
        if not is_done:
            self._write_picture(step)
        self.events.close()
        recorded = read_json(path).get('training')
        if not is_done or not isinstance(recorded, dict) or recorded.get('steps') != step:
            self.run.write_results({'loss': self.losses, 'steps': step, **self.facts},
                                   time.monotonic() - self._begin, self._seen, 'training')
        if is_done:
            print(f'all {step} steps are done already: {model}')
            return
        guess = (f'loss {self.losses["total"]:.4g} (a random guess has {self.random_guess:.4g}); '
                 if self.random_guess else '')
        print(f'{guess}wrote {model} and {path}{left_out}')

    def _write_bad_images(self) -> str:
        return write_bad_images(self.run, self.bad) if self.dataset.skip_bad else ''
