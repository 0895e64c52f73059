"""The log of a training."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.datasets import TrainBatches
from utils.device import Precision
from utils.distributed import is_main_process, of_all_ranks, progress_bar
from utils.errors import InputError
from utils.files import read_json
from utils.results import RunFolder

SECONDS_BETWEEN_READS = 1
STEPS_BETWEEN_POINTS = 50
FEW_STEPS = 300  # of the first two of these, MFF-Net 1 and 2 do not find the object


class TrainingLog:
    """Progress, TensorBoard events, results.json and messages; `paper_steps`: the number of steps
    of the paper's run."""

    def __init__(self, run: RunFolder, batches: TrainBatches, options: Any, precision: Precision,
                 paper_steps: int = 0):
        self.run, self.batches, self.epochs = run, batches, options.epoch
        self.facts = {'amp': precision.name, 'device': str(precision.device)}
        self.losses: dict[str, float] = {}
        self._begin, self._seen, self.events = time.monotonic(), 0, None
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
        self.progress = progress_bar(f'epoch {epoch + 1}/{self.epochs}', self.batches.count,
                                     number * self.batches.batch_size)

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
        if ends:
            ranks = of_all_ranks(self.losses)
            self.losses = {name: sum(of_rank[name] for of_rank in ranks) / len(ranks)
                           for name in self.losses}
        self.progress.set_postfix(self.losses, refresh=False)
        self.progress.update(size)
        if is_point and self.events:
            rates = {'lr': lr, 'images_per_second': self.progress.format_dict['rate'] or 0}
            for name, value in [*rates.items(), *(
                    (f'loss/{name}', value) for name, value in self.losses.items())]:
                self.events.add_scalar(name, value, step)
        if ends:
            self.progress.close()
            if step < self.batches.stop:
                self._start_epoch(step)

    def close(self) -> None:
        """After the last step or an error, whose message begins a line below the progress."""
        self.progress.close()
        if self.events:
            self.events.close()

    def stop(self, state: Path, step: int) -> None:
        """Say how to continue after a signal; the state is in the file `state`."""
        self.close()
        if is_main_process():
            print(f'stopped after step {step} of {self.batches.stop}, saved in {state}: continue '
                  'with the same command and --resume')

    def finish(self, model: Path) -> None:
        """Write results.json after the last step, whose model is in the file `model`."""
        if not is_main_process():
            return
        step, path = self.batches.stop, self.run.path / 'results.json'
        is_done = self.batches.start == step
        recorded = read_json(path).get('training')
        if not is_done or not isinstance(recorded, dict) or recorded.get('steps') != step:
            self.run.write_results({'loss': self.losses, 'steps': step, **self.facts},
                                   time.monotonic() - self._begin, self._seen, 'training')
        if is_done:
            print(f'all {step} steps are done already: {model}')
        else:
            print(f'loss {self.losses["total"]:.4g}, wrote {model} and {path}')
