"""SIGTERM, SIGHUP (a closed terminal) and SIGINT (Ctrl-C): long loops save before they end."""

import contextlib
import os
import signal
import threading
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ('SIGTERM', 'SIGINT', 'SIGHUP')
                if hasattr(signal, name))  # Windows has no SIGHUP


class Interruption:
    """A context in which the first signal only sets `received`; a second Ctrl-C exits.

    A signal that is ignored, as SIGHUP under nohup, stays ignored. Signals are delivered to the
    main thread only; in other threads the context does nothing.
    """

    def __init__(self):
        self.received = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> 'Interruption':
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.received:
            # os.write, since the signal may have interrupted a print; the terminal may be gone.
            name = signal.Signals(number).name
            with contextlib.suppress(OSError):
                os.write(2, f'\n{name} received: saving, then exiting\n'.encode())
        self.received = True
