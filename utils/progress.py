"""One progress bar for all scripts: tqdm on a terminal, now and then a line elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15


class Progress:
    """Counts images; shows the label, figures, images per second and the time left."""

    def __init__(self, label: str, total: int, done: int = 0):
        self.label, self.total, self.done = label, total, done
        self._first, self._start = done, time.monotonic()
        self._said = self._start
        self._bar = tqdm(total=total, initial=done, desc=label, unit='img', disable=None,
                         dynamic_ncols=True)

    def update(self, images: int, **figures: float) -> None:
        self.done += images
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update(images)
        if self._bar.disable and time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self._say(**figures)

    def close(self, **figures: float) -> None:
        self._bar.close()
        if self._bar.disable:
            self._say(**figures)

    @property
    def rate(self) -> float:
        """Images per second so far."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def _say(self, **figures: float) -> None:
        self._said = time.monotonic()
        left = (self.total - self.done) / max(self.rate, 1e-9)
        shown = ''.join(f', {name} {value:.4g}' for name, value in figures.items())
        print(f'{self.label}: {self.done}/{self.total} images{shown}, {self.rate:.1f} images/s, '
              f'{left:.0f} s left', file=sys.stderr, flush=True)


def track(batches: Iterable[dict], label: str, total: int) -> Iterator[dict]:
    """Yield test batches (dicts with 'image') while showing how far they are."""
    progress = Progress(label, total)
    for batch in batches:
        yield batch
        progress.update(len(batch['image']))
    progress.close()
