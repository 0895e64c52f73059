"""SIGTERM and SIGINT (Ctrl-C): told to the training loop, which saves before it ends."""

import signal
import sys
from types import FrameType


class Interruption:
    """While it is entered, the first signal is only noted in `received`; Ctrl-C a second time
    ends the program at once."""

    def __init__(self):
        self.received = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> 'Interruption':
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
            print(f'\n{signal.Signals(number).name}: saving after this step', file=sys.stderr)
        self.received = True
