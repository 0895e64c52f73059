"""The exception for everything that the user can put right."""


class InputError(Exception):
    """Bad input. Its message is one line: what is wrong, where, and what to do about it."""
