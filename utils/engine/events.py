"""TensorBoard events, written at once: its own writer is a thread, whose errors arrive late."""

import os
import socket
import time
from pathlib import Path

from utils.errors import InputError
from utils.outputs.files import make_output_folder


class Events:
    """Writes figures to an events file in a folder, and to the disk after each call.

    Raises InputError where the disk does not allow it.
    """

    def __init__(self, folder: Path):
        from tensorboard.compat.proto.event_pb2 import Event  # slow to import
        from tensorboard.summary.writer.record_writer import RecordWriter

        name = f'events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}'
        self._path, self._event = folder / name, Event
        make_output_folder(folder)
        try:
            self._file = open(self._path, 'wb')  # noqa: SIM115
        except OSError as error:
            raise self._explained(error) from error
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version='brain.Event:2'))

    def add(self, figures: dict[str, float], step: int) -> None:
        event = self._event(wall_time=time.time(), step=step)
        for name, value in figures.items():
            event.summary.value.add(tag=name, simple_value=value)
        self._write(event)

    def close(self) -> None:
        self._file.close()

    def _write(self, event) -> None:
        try:
            self._records.write(event.SerializeToString())
            self._file.flush()
        except OSError as error:
            raise self._explained(error) from error

    def _explained(self, error: OSError) -> InputError:
        return InputError(f'cannot write {self._path} ({error.strerror}): check the folder, its '
                          'rights and the free space')
