"""top1top5.npy, stage 1's result: for each image, whether the classifier's first class, and one of
its first five, is right. A plain structured array with the fields name, top1, top5.

The authors' file, a dict pickled inside a numpy array of objects, is read as well: by an unpickler
that knows dicts, lists, strings and bools, and inert stand-ins for the array around them.
"""

import io
import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from utils.errors import InputError, about
from utils.files import write_array

Hits = dict[str, tuple[bool, bool]]


def write_top1top5(path: Path, names: list[str], hits: np.ndarray) -> None:
    """names: N; hits: (N, 2) bool."""
    array = np.array([(name, *pair) for name, pair in zip(names, hits.tolist(), strict=True)],
                     dtype=[('name', f'U{max(map(len, names))}'), ('top1', '?'), ('top5', '?')])
    write_array(path, array)


def read_top1top5(path: Path, names: Iterable[str] = ()) -> Hits:
    """Image name -> (top-1 hit, top-5 hit), from our file or the authors'.

    Raises InputError if the file is missing, corrupted, contains anything else, or lacks one of
    `names`. Nothing in it is executed.
    """
    if not path.is_file():
        raise InputError(f'no classification result at {path}: run the cls stage\'s test.py, give '
                         'its file with --top1top5, or --top1top5 none for GT-known only')
    with about(f'{path} is not a valid top1top5.npy'), open(path, 'rb') as file:
        np.lib.format.read_magic(file)
        dtype = np.lib.format.read_array_header_1_0(file)[2]
        hits = _read_released(file.read()) if dtype.hasobject else {
            str(name): (bool(top1), bool(top5))
            for name, top1, top5 in np.load(path, allow_pickle=False).tolist()}
    for name in names:
        if name not in hits:
            raise InputError(f'{path} has no image {name}: it was made from another list; run the '
                             "cls stage's test.py on this one")
    return hits


def _read_released(pickled: bytes) -> Hits:
    content = _Unpickler(io.BytesIO(pickled)).load()
    if isinstance(content, _Array):
        content, = content.items
    for name, pair in content.items():
        # The message names types, not values: the text of nested shared lists can be endless.
        if not (isinstance(name, str) and isinstance(pair, list) and len(pair) == 2 and all(
                isinstance(hit, (bool, int, float)) and hit in (0, 1) for hit in pair)):
            raise ValueError(f'it has {type(name).__name__} -> {type(pair).__name__}, not a name '
                             'and two hits')
    return {name: (bool(top1), bool(top5)) for name, (top1, top5) in content.items()}


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


# What a pickled numpy array of objects refers to, in numpy 1 and numpy 2. numpy's own classes would
# let a crafted file turn bytes into object pointers.
STAND_INS = {('numpy.core.multiarray', '_reconstruct'): _Array,
             ('numpy._core.multiarray', '_reconstruct'): _Array,
             ('numpy', 'ndarray'): _Inert, ('numpy', 'dtype'): _Inert}


class _Unpickler(pickle._Unpickler):  # in Python: its memory is bounded by the file's size
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in STAND_INS:
            raise ValueError(f'it is refused, since it asks for {module}.{name}')
        return STAND_INS[module, name]
