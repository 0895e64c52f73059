"""SIGTERM and SIGINT (Ctrl-C): told to long loops, which save before they end."""

import os
import signal
import threading
from types import FrameType


class Interruption:
    """While it is entered, the first signal is only noted in `received`; Ctrl-C a second time
    ends the program at once. In other threads than the main one it notes nothing."""

    def __init__(self):
        self.received = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> 'Interruption':
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.received:
            # Not print: the signal may have come while something was being printed.
            os.write(2, f'\n{signal.Signals(number).name}: saving, then ending\n'.encode())
        self.received = True
