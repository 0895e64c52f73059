"""What a training shows and writes beside its checkpoints."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.data.lists import ImageList
from utils.data.loader import EpochSampler
from utils.engine.distributed import gather_to_main, is_main_process, mean_over_ranks
from utils.engine.progress import Progress
from utils.errors import InputError
from utils.outputs.bad_images import BadImages
from utils.outputs.events import open_events
from utils.outputs.files import write_png
from utils.outputs.results import RunFolder, read_results

SECONDS_BETWEEN_READS = 1
STEPS_BETWEEN_POINTS = 50
FEW_STEPS = 300  # of the first two of these, MFF-Net 1 and 2 do not find the object


class TrainingLog:
    """Progress, TensorBoard events, training.png, bad_images.txt, results.json and messages.

    Arguments:
        facts: further entries of results.json.
        draw: draw() -> a picture, uint8 H x W x 3, after each epoch.
        images: those of which bad ones are left out; None where none may be.
        random_guess: the total loss of a random guess, to be shown beside the last one.
        paper_steps: the number of steps of the paper's run.
    """

    def __init__(self, run: RunFolder, sampler: EpochSampler, epochs: int, facts: dict[str, Any],
                 draw: Callable[[], np.ndarray] | None = None, images: ImageList | None = None,
                 random_guess: float | None = None, paper_steps: int | None = None):
        self.run, self.sampler, self.epochs = run, sampler, epochs
        self.facts, self.draw = facts, draw
        self.random_guess, self.paper_steps = random_guess, paper_steps
        self.bad = None if images is None else BadImages(images, run.file('bad_images.txt'))
        self.losses: dict[str, float] = {}
        self._begin, self._seen = time.monotonic(), 0

    def __enter__(self) -> 'TrainingLog':
        self._opened = open_events(self.run.path, is_main_process())
        self.events = self._opened.__enter__()
        return self

    def __exit__(self, *exception: Any) -> bool | None:
        return self._opened.__exit__(*exception)

    def resume(self) -> None:
        """Continue the lists of the run that is resumed."""
        if self.bad is not None:
            self.bad.load()

    def start(self, first: int, last: int) -> None:
        """Announce the steps from `first` to `last`, and say where they are too few."""
        if not is_main_process():
            return
        count, batch_size = self.sampler.count, self.sampler.batch_size
        print(f'training: {last} steps' + (f', from step {first}' if first else ''), flush=True)
        if batch_size > count:
            print(f'--batch_size {batch_size} exceeds the {count} images of the list: each step '
                  'sees all of them')
        if self.paper_steps and last < FEW_STEPS:
            size = min(batch_size, 16, max(2, count))
            epochs = math.ceil(self.paper_steps / max(1, count // size))
            print(f"{last} steps are few, the paper's run has {self.paper_steps}: "
                  f'--batch_size {size} --epoch {epochs} would give as many')

    def start_epoch(self, epoch: int, lr: float) -> None:
        """Begin an epoch, counted from 0, at the sampler's start."""
        self.lr, self.meter = lr, AverageMeter()
        self.progress = Progress(f'epoch {epoch + 1}/{self.epochs}', self.sampler.count,
                                 self.sampler.start * self.sampler.batch_size)

    def add_step(self, step: int, size: int, losses: dict[str, Tensor]) -> None:
        """Count a step on `size` images. Raises InputError where a loss is not finite."""
        self._seen += size
        self.meter.add(losses)
        self.progress.update(size, **self.meter.recent(step))
        if step % STEPS_BETWEEN_POINTS == 0 and step % len(self.sampler):
            self._write_point(step, self.meter.read(step))

    def end_epoch(self, step: int) -> None:
        self.losses = mean_over_ranks(self.meter.read(step))
        self.progress.close(**self.losses)
        self._write_point(step, self.losses)
        if self.draw and is_main_process():
            picture = self.draw()
            write_png(self.run.file('training.png'), picture)
            self.events.add_picture('training', picture, step)

    def write_bad_images(self) -> None:
        """Write bad_images.txt. All ranks must call it."""
        if self.bad is not None:
            names = gather_to_main(self.bad.names)
            if is_main_process():
                self.bad.write(names)

    def stop(self, step: int, last: int, state: Path) -> None:
        """Say how to continue after a signal; the state is in the file `state`."""
        if is_main_process():
            print(f'stopped after step {step} of {last}, saved in {state}: continue with the same '
                  'command and --resume')

    def finish(self, step: int, model: Path) -> None:
        """Write results.json after the last step, whose model is in the file `model`."""
        if not is_main_process():
            return
        path = self.run.write_results(self._metrics(step), time.monotonic() - self._begin,
                                      self._seen, 'training')
        guess = (f'loss {self.losses["total"]:.4g} (a random guess has {self.random_guess:.4g}); '
                 if self.random_guess else '')
        left_out = '' if self.bad is None else self.bad.summary()
        print(f'{guess}wrote {model} and {path}{left_out}')

    def finish_again(self, step: int, model: Path) -> None:
        """After a run with nothing left to do: write results.json if it is missing."""
        if not is_main_process():
            return
        recorded = read_results(self.run.file('results.json')).get('training', {})
        if recorded.get('steps') != step:
            self.run.write_results(self._metrics(step), 0, 0, 'training')
        print(f'all {step} steps are done already: {model}')

    def _metrics(self, step: int) -> dict[str, Any]:
        return {'loss': self.losses, 'steps': step, **self.facts}

    def _write_point(self, step: int, losses: dict[str, float]) -> None:
        self.events.add_scalars({**{f'loss/{name}': value for name, value in losses.items()},
                                 'lr': self.lr, 'images_per_second': self.progress.rate}, step)


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
