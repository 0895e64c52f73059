"""How a script ends: bad input gives one line on stderr and exit code 2, without a traceback."""

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

from network import InputError

__all__ = ['InputError', 'run', 'warn']

ROOT = Path(__file__).resolve().parents[1]
# What libraries say in their errors -> what to do about it.
HINTS = {
    'out of memory': 'try a smaller --batch_size, or a smaller --resize and --crop',
    'allocate memory': 'try a smaller --batch_size, or a smaller --resize and --crop',
    'Insufficient memory': 'try a smaller --batch_size or --num_workers',
    'shared memory': 'allow more shared memory (/dev/shm), or use --num_workers 0',
    'DataLoader worker': 'a process that reads images has ended (out of memory?): try a smaller '
                         '--num_workers, and continue with --resume',
    'terminated abruptly': 'a process has ended (out of memory?): try a smaller '
                                   '--num_workers or --jobs',
    'onnection': 'the connection to the other ranks is lost: see the message of the one that ended',
    'NCCL': 'the connection to the other ranks is lost: see the message of the one that ended',
}


class Terminated(SystemExit):
    """SIGTERM; the exit code is the shell's, 143."""


def run(main: Callable[[], None]) -> None:
    """Call `main` as a program.

    Exit codes: 2 for an InputError, and for an error of the system or of a library that `HINTS`
    knows, each in one line on stderr; 130 for Ctrl-C, 143 for SIGTERM. Other exceptions are
    defects, and keep their traceback.
    """
    signal.signal(signal.SIGTERM, _terminate)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors='backslashreplace')  # names that the encoding does not have
    try:
        main()
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        rank = f'rank {os.environ["RANK"]}: ' if os.environ.get('RANK') else ''
        print('error:', rank + ' '.join(message.split()), file=sys.stderr)
        sys.exit(2)
    finally:
        if 'torch.distributed' in sys.modules:
            from utils.distributed import destroy_process_group

            destroy_process_group()
        _end_children()


def _end_children() -> None:
    """Readers ignore SIGTERM, with which Python ends, and then joins, those that an error left."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch would report their end
    for process in active_children():
        process.kill()
        process.join()
    signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _terminate(number: int, frame: object) -> None:
    raise Terminated(143)


def _message(error: Exception) -> str | None:
    """One line for an error that the user can do something about; None for a defect."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return _missing_package(error)
    text = str(error).strip() or type(error).__name__
    hint = next((hint for words, hint in HINTS.items() if words in text), None)
    if isinstance(error, MemoryError):
        hint = hint or HINTS['out of memory']
    if hint:
        return f'{text.splitlines()[0]}: {hint}'
    return text if isinstance(error, OSError) else None


def _missing_package(error: ModuleNotFoundError) -> str | None:
    package, venv = (error.name or '').partition('.')[0], ROOT / '.venv'
    if (ROOT / package).exists():
        return None
    fix = f'pip install -r {ROOT / "requirements.txt"}'
    if venv.is_dir() and not venv.samefile(sys.prefix):
        fix = f'source {venv}/bin/activate'
    return f'{sys.executable} has no package {package}: {fix}'


def _excepthook(kind: type[BaseException], error: BaseException, traceback: object) -> None:
    """A package that is missing when a script's own imports run, before `run` is called."""
    message = _missing_package(error) if isinstance(error, ModuleNotFoundError) else None
    if message is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        print('error:', message, file=sys.stderr)
        os._exit(2)


def warn(message: str) -> None:
    """Print a warning, one line on stderr; in a distributed run, on rank 0 alone."""
    if os.environ.get('RANK', '0') in ('', '0'):
        print('warning:', message, file=sys.stderr)


if ROOT in Path(getattr(sys.modules['__main__'], '__file__', None) or '').resolve().parents[:2]:
    sys.excepthook = _excepthook
