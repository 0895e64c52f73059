"""The exception for everything that the user can correct."""

import re


class InputError(Exception):
    """Bad input. Its message is one line: what is wrong, where, and what to do about it."""


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the error's type if it has no message. PyTorch's
    advice to load without `weights_only` is never passed on."""
    message = str(error)
    if 'weights_only' in message:
        name = re.search(r'GLOBAL (\S+)', message)
        return f'it calls {name[1]}' if name else 'it is no file of torch.save'
    return (message.splitlines() or [type(error).__name__])[0]
