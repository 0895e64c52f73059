"""What scripts show while they work through images."""

import sys
import time

from tqdm import tqdm

from utils.distributed import gather_to_main, is_main_process
from utils.files import write_text
from utils.results import RunFolder

SECONDS_BETWEEN_LINES = 60


class Progress:
    """Counts images, and shows the label, metrics, images per second and the time left: tqdm on a
    terminal; elsewhere a line every minute and at the end. Of several ranks, rank 0 shows its own
    share."""

    def __init__(self, label: str, total: int, done: int = 0):
        self.label, self.total, self.done, self._first = label, total, done, done
        self._start = self._last_line = time.monotonic()
        self._bar = tqdm(total=total, initial=done, desc=label, unit='img', dynamic_ncols=True,
                         disable=None if is_main_process() else True)

    def update(self, images: int, **metrics: float) -> None:
        self.done += images
        self._bar.set_postfix(metrics, refresh=False)
        self._bar.update(images)
        if time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._print_line(metrics, f'{(self.total - self.done) / self.rate:.0f} s left')

    def close(self, **metrics: float) -> None:
        self._bar.close()
        self._print_line(metrics, f'{time.monotonic() - self._start:.0f} s')

    @property
    def rate(self) -> float:
        """Images per second so far."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def _print_line(self, metrics: dict[str, float], end: str) -> None:
        self._last_line = time.monotonic()
        if self._bar.disable and is_main_process():
            values = ''.join(f', {name} {value:.4g}' for name, value in metrics.items())
            print(f'{self.label}: {self.done}/{self.total} images{values}, '
                  f'{self.rate:.1f} images/s, {end}', file=sys.stderr, flush=True)


def write_bad_images(run: RunFolder, names: set[str]) -> str:
    """Write the names of the images that --skip_bad left out, on any rank, to bad_images.txt; the
    end of rank 0's last line. All ranks must call it."""
    found, path = sorted(set().union(*gather_to_main(names))), run.file('bad_images.txt')
    if is_main_process():
        write_text(path, ''.join(f'{name}\n' for name in found))
    return f'; left out {len(found)} images that cannot be decoded: {path}' if found else ''
