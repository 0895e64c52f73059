"""How a script ends: bad input gives one line and exit code 2, never a traceback."""

import sys
from collections.abc import Callable

from network.errors import InputError
from utils.engine.distributed import leave, process_count, process_index

__all__ = ['InputError', 'run']


def run(main: Callable[[], None]) -> None:
    """Call `main` as a program: an InputError becomes one line on stderr and exit code 2,
    Ctrl-C exit code 130."""
    try:
        main()
    except InputError as error:
        sys.exit(_report(error))
    except RuntimeError as error:
        if process_count() == 1 or not _is_lost_connection(error):
            raise
        sys.exit(_report('the connection to the other processes is lost; if one of them has '
                         f'ended, see its message ({str(error).splitlines()[0]})'))
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        sys.exit(130)
    leave()


def _is_lost_connection(error: RuntimeError) -> bool:
    said = str(error).lower()
    return any(sign in said for sign in ('connection', 'closed by peer', 'timed out', 'nccl'))


def _report(error: InputError | str) -> int:
    who = f'process {process_index()}: ' if process_count() > 1 else ''
    print('error:', who + ' '.join(str(error).split()), file=sys.stderr)
    return 2
