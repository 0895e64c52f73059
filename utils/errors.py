"""How a script ends: bad input gives one line on stderr and exit code 2, without a traceback."""

import os
import sys
import warnings
from collections.abc import Callable

from network.errors import InputError

__all__ = ['InputError', 'run', 'warn']

LOST_CONNECTION = ('connection', 'closed by peer', 'timed out', 'nccl')


def run(main: Callable[[], None]) -> None:
    """Call `main` as a program.

    Exit codes: 2 for an InputError, and in a distributed run for a connection that was lost
    because another rank has exited; 130 for Ctrl-C. Errors are printed as one line on stderr.
    """
    warnings.filterwarnings('ignore', module=r'PIL\.')  # damaged images are reported in one line
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors='backslashreplace')  # names that the encoding does not have
    try:
        main()
    except InputError as error:
        sys.exit(_report(str(error)))
    except RuntimeError as error:
        if _world_size() == 1 or not any(s in str(error).lower() for s in LOST_CONNECTION):
            raise
        sys.exit(_report('the connection to the other ranks is lost; if one of them has ended, '
                         f'see its message ({str(error).splitlines()[0]})'))
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        sys.exit(130)
    if _world_size() > 1:
        from utils.engine.distributed import destroy_process_group

        destroy_process_group()


def warn(message: str) -> None:
    """Print a warning, one line on stderr; in a distributed run, on rank 0 alone."""
    if os.environ.get('RANK', '0') == '0':
        print('warning:', message, file=sys.stderr)


def _world_size() -> int:
    return int(os.environ.get('WORLD_SIZE', 1))  # set by torchrun


def _report(message: str) -> int:
    rank = f'rank {os.environ["RANK"]}: ' if _world_size() > 1 else ''
    print('error:', rank + ' '.join(message.split()), file=sys.stderr)
    return 2
