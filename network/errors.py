"""The exception for everything that the user can correct."""


class InputError(Exception):
    """Bad input. Its message is one line: what is wrong, where, and what to do about it."""


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the error's type if it has no message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
