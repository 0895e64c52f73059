"""How a script ends: bad input gives one line and exit code 2, never a traceback."""

import sys
from collections.abc import Callable

from network.errors import InputError

__all__ = ['InputError', 'run']


def run(main: Callable[[], None]) -> None:
    """Call `main` as a program: an InputError becomes one line on stderr and exit code 2,
    Ctrl-C exit code 130."""
    try:
        main()
    except InputError as error:
        sys.exit(_report(error))
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        sys.exit(130)


def _report(error: InputError) -> int:
    print('error:', ' '.join(str(error).split()), file=sys.stderr)
    return 2
