"""The authors' top1top5.npy: a dict, pickled inside a numpy array of objects.

It is read by an unpickler that knows dicts, lists, strings and bools, and that has only inert
stand-ins for the array around them. numpy's own classes would let a crafted file turn bytes into
object pointers.
"""

import io
import pickle
import struct


def read_released(content: bytes) -> dict[str, tuple[bool, bool]]:
    """The pickle that follows the header of the file -> image name: (top-1 hit, top-5 hit).

    Raises ValueError for anything else; nothing in it is executed.
    """
    try:
        hits = _Unpickler(io.BytesIO(content)).load()
    except (pickle.UnpicklingError, EOFError, LookupError, AttributeError, TypeError,
            OverflowError, AssertionError, RecursionError, struct.error) as error:
        raise ValueError(error) from error
    if isinstance(hits, _Array) and len(hits.items) == 1:
        hits = hits.items[0]
    if not isinstance(hits, dict):
        raise ValueError('it needs a dict of image names')
    return {_check_name(name): _check_pair(pair) for name, pair in hits.items()}


# The messages name types, not values: the text of nested shared lists can be endless.
def _check_name(name: object) -> str:
    if not isinstance(name, str):
        raise ValueError(f'an image name is a {type(name).__name__}')
    return name


def _check_pair(pair: object) -> tuple[bool, bool]:
    if not (isinstance(pair, list) and len(pair) == 2
            and all(isinstance(hit, (bool, int, float)) and hit in (0, 1) for hit in pair)):
        raise ValueError(f'a pair of hits is a {type(pair).__name__} with other content')
    return bool(pair[0]), bool(pair[1])


class _Inert:
    """Stands in for numpy's dtype and ndarray: takes any arguments and state, does nothing."""

    def __init__(self, *arguments: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Array(_Inert):
    """Stands in for an array of objects: keeps the list of its items."""

    items: list = []

    def __setstate__(self, state: object) -> None:
        *_, items = state
        self.items = list(items)


# What a pickled numpy array of objects refers to, in numpy 1 and numpy 2.
STAND_INS = {('numpy.core.multiarray', '_reconstruct'): _Array,
             ('numpy._core.multiarray', '_reconstruct'): _Array,
             ('numpy', 'ndarray'): _Inert, ('numpy', 'dtype'): _Inert}


class _Unpickler(pickle._Unpickler):  # in Python: its memory is bounded by the file's size
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in STAND_INS:
            raise ValueError(f'it is refused, since it asks for {module}.{name}')
        return STAND_INS[module, name]
