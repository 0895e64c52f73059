"""One progress bar for all scripts: tqdm on a terminal, a line every 15 seconds elsewhere.

Of several ranks, rank 0 shows its own share.
"""

import sys
import time

from tqdm import tqdm

from utils.engine.distributed import is_main_process

SECONDS_BETWEEN_LINES = 15


class Progress:
    """Counts images, and shows the label, metrics, images per second and the time left."""

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
            self._print_line(metrics)

    def close(self, **metrics: float) -> None:
        self._bar.close()
        self._print_line(metrics)

    @property
    def rate(self) -> float:
        """Images per second so far."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def _print_line(self, metrics: dict[str, float]) -> None:
        if not (self._bar.disable and is_main_process()):
            return
        self._last_line = time.monotonic()
        left = (self.total - self.done) / max(self.rate, 1e-9)
        values = ''.join(f', {name} {value:.4g}' for name, value in metrics.items())
        print(f'{self.label}: {self.done}/{self.total} images{values}, {self.rate:.1f} images/s, '
              f'{left:.0f} s left', file=sys.stderr, flush=True)
