"""One progress bar for all scripts: tqdm on a terminal; elsewhere a line at the end, and one every
minute before.

Of several ranks, rank 0 shows its own share. A stderr that is closed or broken never stops a run.
"""

import contextlib
import sys
import time

from tqdm import tqdm

from utils.engine.distributed import is_main_process

SECONDS_BETWEEN_LINES = 60


def say(message: str) -> None:
    """Print a line to stderr, if it can be written."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: the file is closed
        print(message, file=sys.stderr, flush=True)


class Progress:
    """Counts images, and shows the label, metrics, images per second and the time left."""

    def __init__(self, label: str, total: int, done: int = 0):
        self.label, self.total, self.done = label, total, done
        self._first, self._start = done, time.monotonic()
        self._last_line = self._start
        self._bar = tqdm(total=total, initial=done, desc=label, unit='img', dynamic_ncols=True,
                         disable=None if is_main_process() else True)
        self._prints_lines = self._bar.disable and is_main_process()

    def update(self, images: int, **metrics: float) -> None:
        self.done += images
        with self._guarded():
            self._bar.set_postfix(metrics, refresh=False)
            self._bar.update(images)
        if self._prints_lines and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            left = (self.total - self.done) / max(self.rate, 1e-9)
            self._print_line(metrics, f'{left:.0f} s left')

    def close(self, **metrics: float) -> None:
        with self._guarded():
            self._bar.close()
        if self._prints_lines:
            self._print_line(metrics, f'{time.monotonic() - self._start:.0f} s')

    @property
    def rate(self) -> float:
        """Images per second so far."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    @contextlib.contextmanager
    def _guarded(self):
        try:
            yield
        except (OSError, ValueError):  # the terminal is gone
            self._bar.disable = True

    def _print_line(self, metrics: dict[str, float], end: str) -> None:
        values = ''.join(f', {name} {value:.4g}' for name, value in metrics.items())
        say(f'{self.label}: {self.done}/{self.total} images{values}, {self.rate:.1f} images/s, '
            f'{end}')
