"""How a script ends: bad input gives one line on stderr and exit code 2, without a traceback."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from pathlib import Path

from network import InputError

__all__ = ['InputError', 'about', 'run', 'warn']

ROOT = Path(__file__).resolve().parents[1]
# What libraries say in their errors -> what to do about it.
HINTS = {
    'out of memory|allocate memory|Insufficient memory':
        'try a smaller --batch_size, --resize and --crop, or --num_workers',
    'shared memory': 'allow more shared memory (/dev/shm), or use --num_workers 0',
    'DataLoader worker|terminated abruptly': 'a process has ended (out of memory?): try a smaller '
                                             '--num_workers or --jobs, and continue with --resume',
    'onnection|NCCL':
        'the connection to the other ranks is lost: see the message of the one that ended',
}


@contextmanager
def about(path: object) -> Iterator[None]:
    """Turn the exception of a library inside the block into an InputError that names the file."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        text = getattr(error, 'strerror', None) or str(error).strip() or type(error).__name__
        if 'allow_pickle' in text:  # numpy's advice to execute the file
            text = 'not an array of numbers'
        raise InputError(f'{path}: {text.splitlines()[0]}') from error


def run(main: Callable[[], None]) -> None:
    """Call `main` as a program.

    Exit codes: 2 for an InputError, and for an error of the system or of a library that `HINTS`
    knows, each in one line on stderr; 130 for Ctrl-C, 143 for SIGTERM. Other exceptions are
    defects, and keep their traceback.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors='backslashreplace')  # names that the encoding does not have
    try:
        main()
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not _report(error):
            raise
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


def _report(error: BaseException) -> bool:
    """Print an error that the user can do something about; False for a defect."""
    message = _message(error)
    if message:
        rank = f'rank {os.environ["RANK"]}: ' if os.environ.get('RANK') else ''
        print('error:', rank + ' '.join(message.split()), file=sys.stderr)
    return bool(message)


def _message(error: BaseException) -> str | None:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return _missing_package(error)
    text = 'out of memory' if isinstance(error, MemoryError) else str(error).strip()
    for words, hint in HINTS.items():
        if re.search(words, text):
            return f'{text.splitlines()[0]}: {hint}'
    return (text or type(error).__name__) if isinstance(error, OSError) else None


def _missing_package(error: ModuleNotFoundError) -> str | None:
    package, venv = (error.name or '').partition('.')[0], ROOT / '.venv'
    if (ROOT / package).exists():
        return None
    fix = f'pip install -r {ROOT / "requirements.txt"}'
    if venv.is_dir() and not venv.samefile(sys.prefix):
        fix = f'source {venv}/bin/activate'
    return f'{sys.executable} has no package {package}: {fix}'


def _excepthook(kind: type[BaseException], error: BaseException, traceback: object) -> None:
    """Report a package that is missing when a script's own imports run, before `run` is called."""
    if _report(error):
        os._exit(2)
    sys.__excepthook__(kind, error, traceback)


def warn(message: str) -> None:
    """Print a warning, one line on stderr; in a distributed run, on rank 0 alone."""
    if os.environ.get('RANK', '0') in ('', '0'):
        print('warning:', message, file=sys.stderr)


if ROOT in Path(getattr(sys.modules['__main__'], '__file__', None) or '').resolve().parents[:2]:
    sys.excepthook = _excepthook
