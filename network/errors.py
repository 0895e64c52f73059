"""The one exception that is the user's to mend."""


class InputError(Exception):
    """Bad input. Its message is one line: what is wrong, where, and what to do about it."""
