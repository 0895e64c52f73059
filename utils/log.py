"""What scripts show while they run: a progress bar, and the log of a training."""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from utils.datasets import TrainBatches, TrainImages
from utils.device import Precision
from utils.distributed import gather_to_main, is_main_process, sum_over_ranks, world_size
from utils.errors import InputError
from utils.files import read_json, write_png, write_text
from utils.results import RunFolder

SECONDS_BETWEEN_LINES = 60
SECONDS_BETWEEN_READS = 1
SECONDS_BETWEEN_PICTURES = 60
STEPS_BETWEEN_POINTS = 50
FEW_STEPS = 300  # of the first two of these, MFF-Net 1 and 2 do not find the object


class Progress:
    """Counts images, and shows the label, metrics, images per second and the time left: tqdm on a
    terminal; elsewhere a line at the end, and one every minute before. Of several ranks, rank 0
    shows its own share."""

    def __init__(self, label: str, total: int, done: int = 0):
        self.label, self.total, self.done = label, total, done
        self._first, self._start = done, time.monotonic()
        self._last_line = self._start
        self._bar = tqdm(total=total, initial=done, desc=label, unit='img', dynamic_ncols=True,
                         disable=None if is_main_process() else True)

    def update(self, images: int, **metrics: float) -> None:
        self.done += images
        self._bar.set_postfix(metrics, refresh=False)
        self._bar.update(images)
        if time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            left = (self.total - self.done) / max(self.rate, 1e-9)
            self._print_line(metrics, f'{left:.0f} s left')

    def close(self, **metrics: float) -> None:
        self._bar.close()
        self._print_line(metrics, f'{time.monotonic() - self._start:.0f} s')

    @property
    def rate(self) -> float:
        """Images per second so far."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def _print_line(self, metrics: dict[str, float], end: str) -> None:
        if not self._bar.disable or not is_main_process():
            return
        self._last_line = time.monotonic()
        values = ''.join(f', {name} {value:.4g}' for name, value in metrics.items())
        print(f'{self.label}: {self.done}/{self.total} images{values}, {self.rate:.1f} images/s, '
              f'{end}', file=sys.stderr, flush=True)


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
                 random_guess: float | None = None, paper_steps: int | None = None):
        self.run, self.model, self.dataset, self.batches = run, model, dataset, batches
        self.epochs, self.draw, self.random_guess = options.epoch, draw, random_guess
        self.facts = {'amp': precision.name, 'device': str(precision.device)}
        self.bad: set[str] = set()
        self.losses: dict[str, float] = {}
        self._begin = self._drawn_at = time.monotonic()
        self._seen, self.events = 0, None
        if is_main_process():
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import

            self.events = SummaryWriter(run.path, purge_step=batches.start + 1)
            self._announce(paper_steps)
        self._start_epoch(batches.start)

    def _announce(self, paper_steps: int | None) -> None:
        first, last = self.batches.start, self.batches.stop
        count, batch_size = self.batches.count, self.batches.batch_size
        print(f'training: {last} steps' + (f', from step {first}' if first else ''), flush=True)
        if batch_size > count:
            print(f'--batch_size {batch_size} exceeds the {count} images of the list: each step '
                  'sees all of them')
        if paper_steps and last < FEW_STEPS:
            size = min(batch_size, 16, count)
            epochs = math.ceil(paper_steps / TrainBatches(count, size, 0).per_epoch)
            print(f"{last} steps are few, the paper's run has {paper_steps}: "
                  f'--batch_size {size} --epoch {epochs} would give as many')

    def _start_epoch(self, step: int) -> None:
        epoch, number = divmod(step, self.batches.per_epoch)
        self._sum, self._count, self._read_at = 0, 0, -math.inf
        self.progress = Progress(f'epoch {epoch + 1}/{self.epochs}', self.batches.count,
                                 number * self.batches.batch_size)

    def checked(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The tensors of a batch; notes images that were skipped. Raises its InputError."""
        if batch['errors']:
            raise batch['errors'].pop(0)  # a reference to it would keep this frame, and the readers
        images = self.dataset.images
        for index, skipped in zip(batch['index'].tolist(), batch['skipped'].tolist(), strict=True):
            self.bad |= {images.name((index + k) % len(images)) for k in range(skipped)}
        return {name: value for name, value in batch.items()
                if name not in ('errors', 'index', 'skipped')}

    def add(self, step: int, size: int, losses: dict[str, Tensor], lr: float) -> None:
        """Count a step (from 1) on `size` images. Losses are summed on the device and read from
        there once a second. Raises InputError where one is not finite."""
        self._seen += size
        self._names = tuple(losses)
        self._sum = self._sum + torch.stack([loss.detach().float() for loss in losses.values()])
        self._count += 1
        ends = step % self.batches.per_epoch == 0 or step == self.batches.stop
        is_point = ends or step % STEPS_BETWEEN_POINTS == 0
        if is_point or time.monotonic() - self._read_at > SECONDS_BETWEEN_READS:
            self._read(step)
        self.progress.update(size, **self.losses)
        if ends:
            means = sum_over_ranks(list(self.losses.values())) / world_size()
            self.losses = dict(zip(self.losses, means.tolist(), strict=True))
            self.progress.close(**self.losses)
        if is_point and self.events:
            for name, value in self.losses.items():
                self.events.add_scalar(f'loss/{name}', value, step)
            self.events.add_scalar('lr', lr, step)
            self.events.add_scalar('images_per_second', self.progress.rate, step)
        if ends and time.monotonic() - self._drawn_at > SECONDS_BETWEEN_PICTURES:
            self._write_picture(step)
        if ends and step < self.batches.stop:
            self._start_epoch(step)

    def _read(self, step: int) -> None:
        self._read_at = time.monotonic()
        means = (self._sum / self._count).tolist()
        self.losses = dict(zip(self._names, means, strict=True))
        for name, value in self.losses.items():
            if not math.isfinite(value):
                raise InputError(f'the {name} loss is {value} at step {step}: stopped; '
                                 'try a lower --lr or --amp off')

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
        self._write_bad_images()
        if not is_main_process():
            return
        step, path = self.batches.stop, self.run.file('results.json')
        if self.batches.start < step:
            self._write_picture(step)
        self.events.close()
        recorded = read_json(path).get('training')
        if self.batches.start < step or not recorded or recorded.get('steps') != step:
            self.run.write_results({'loss': self.losses, 'steps': step, **self.facts},
                                   time.monotonic() - self._begin, self._seen, 'training')
        if self.batches.start == step:
            print(f'all {step} steps are done already: {model}')
            return
        guess = (f'loss {self.losses["total"]:.4g} (a random guess has {self.random_guess:.4g}); '
                 if self.random_guess else '')
        print(f'{guess}wrote {model} and {path}{bad_summary(self.run, self.bad)}')

    def _write_bad_images(self) -> None:
        """All ranks must call it."""
        if self.dataset.skip_bad:
            file = self.run.file('bad_images.txt')
            if self.batches.start and file.exists():  # of the run that is resumed
                self.bad |= set(file.read_text(errors='surrogateescape').splitlines())
            self.bad = write_bad_images(self.run, gather_to_main(self.bad))


def write_bad_images(run: RunFolder, names_of_ranks: list[set[str]]) -> set[str]:
    """Write the names of the images that --skip_bad left out to bad_images.txt, on rank 0."""
    names = set().union(*names_of_ranks)
    if is_main_process():
        write_text(run.file('bad_images.txt'), ''.join(f'{name}\n' for name in sorted(names)))
    return names


def bad_summary(run: RunFolder, names: set[str]) -> str:
    """The end of a script's last line."""
    return (f'; left out {len(names)} images that cannot be decoded: '
            f'{run.file("bad_images.txt")}' if names else '')
