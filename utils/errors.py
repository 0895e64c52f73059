"""How a script ends: bad input gives one line on stderr and exit code 2, without a traceback."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from network import InputError

# What libraries say in their errors -> what to do about it.
HINTS = {
    'out of memory|allocate memory|Insufficient memory':
        'try a smaller --batch_size, --resize and --crop, or --num_workers',
    'shared memory': 'allow more shared memory (/dev/shm), or use --num_workers 0',
    r'DataLoader worker \(|terminated abruptly':
        'a process has ended (out of memory?): try a smaller --num_workers or --jobs, and continue '
        'with --resume',
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
        message = _message(error)
        if not message:
            raise
        rank = f'rank {os.environ["RANK"]}: ' if os.environ.get('RANK') else ''
        print('error:', rank + ' '.join(message.split()), file=sys.stderr)
        sys.exit(2)
    finally:
        if 'torch.distributed' in sys.modules:
            from utils.distributed import destroy_process_group

            destroy_process_group()


def _message(error: BaseException) -> str | None:
    """What the user can do something about; None for a defect."""
    if isinstance(error, InputError):  # a reader's has its traceback before the message
        return str(error).rpartition('InputError: ')[2]
    text = 'out of memory' if isinstance(error, MemoryError) else str(error).strip()
    for words, hint in HINTS.items():
        if re.search(words, text):
            return f'{text.splitlines()[0]}: {hint}'
    return (text or type(error).__name__) if isinstance(error, OSError) else None


def warn(message: str) -> None:
    """Print a warning, one line on stderr; in a distributed run, on rank 0 alone."""
    if os.environ.get('RANK', '0') in ('', '0'):
        print('warning:', message, file=sys.stderr)
