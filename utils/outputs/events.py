"""TensorBoard events of a training."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from utils.errors import InputError


class Events:
    """Writes events to a folder, unless `enabled` is false.

    The methods raise InputError if the events cannot be written, as on a full disk.
    """

    def __init__(self, folder: Path, enabled: bool = True):
        self.folder = folder
        self._writer = None
        if enabled:
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import

            with self._explained():
                self._writer = SummaryWriter(folder)

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        if self._writer:
            with self._explained():
                for name, value in values.items():
                    self._writer.add_scalar(name, value, step)
                self._writer.flush()

    def add_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Add a picture, uint8 H x W x 3."""
        if self._writer:
            with self._explained():
                self._writer.add_image(name, picture, step, dataformats='HWC')

    def close(self) -> None:
        if self._writer:
            with self._explained():
                self._writer.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f'cannot write TensorBoard events to {self.folder} '
                             f'({error.strerror}): check its rights and the free space') from error


@contextmanager
def open_events(folder: Path, enabled: bool = True) -> Iterator[Events]:
    """Events that are closed at the end, unless there is an error."""
    with quiet_thread():
        events = Events(folder, enabled)
        yield events
        events.close()


@contextmanager
def quiet_thread() -> Iterator[None]:
    """Keep TensorBoard's writer thread from reporting a failure to write, which it also raises in
    the thread that trains."""
    report = threading.excepthook

    def report_others(failure: threading.ExceptHookArgs) -> None:
        if not (_of_tensorboard(failure.thread) and issubclass(failure.exc_type, OSError)):
            report(failure)

    threading.excepthook = report_others
    try:
        yield
    finally:
        for thread in filter(_of_tensorboard, threading.enumerate()):
            if thread.exception:
                thread.join()  # it is about to call the hook
        threading.excepthook = report


def _of_tensorboard(thread: threading.Thread | None) -> bool:
    return type(thread).__module__.startswith('tensorboard.')
