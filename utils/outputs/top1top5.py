"""top1top5.npy, stage 1's result: for each image, whether its class is the first, and among the
first five, that the classifier names.

Ours is a plain structured array (name, top1, top5). The authors' is a pickled dict in a numpy
array; it is read by an unpickler that knows dicts, lists, strings and bools, and has only inert
stand-ins for the array around them.
"""

import io
import pickle
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.outputs.files import write_whole

Hits = dict[str, tuple[bool, bool]]
FIELDS = [('name', 'U'), ('top1', 'b'), ('top5', 'b')]


def write_top1top5(path: Path, names: list[str], top1: list[bool], top5: list[bool]) -> None:
    array = np.array(list(zip(names, top1, top5, strict=True)),
                     dtype=[('name', f'U{max(map(len, names))}'), ('top1', '?'), ('top5', '?')])
    write_whole(path, lambda file: np.save(file, array, allow_pickle=False))


def read_top1top5(path: Path) -> Hits:
    """Image name -> (top-1 hit, top-5 hit), from our file or the authors'.

    Raises InputError where the file is missing, damaged, or holds anything else; nothing in it
    is executed.
    """
    if not path.is_file():
        raise InputError(f'no classification result at {path}: run the cls stage\'s test.py, give '
                         'its file with --top1top5, or --top1top5 none for GT-known alone')
    try:
        with open(path, 'rb') as file:
            version = np.lib.format.read_magic(file)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0,
                           (2, 0): np.lib.format.read_array_header_2_0}[version]
            _, _, dtype = read_header(file)
            if dtype.hasobject:
                return _from_dict(_Unpickler(io.BytesIO(file.read())).load())
        return _from_array(np.load(path, allow_pickle=False))
    except InputError as error:
        raise InputError(f'{path} {error}') from error
    except Exception as error:  # numpy and pickle raise many kinds on damaged files
        raise InputError(f'{path} is no top1top5.npy, or damaged '
                         f'({(str(error).splitlines() or ["?"])[0]}): make it anew with the cls '
                         "stage's test.py") from error


def hits_of(hits: Hits, name: str, path: Path) -> tuple[bool, bool]:
    """The hits of the image called `name`, or an InputError that names it."""
    if name not in hits:
        raise InputError(f'{path} has no image {name}: it was made from another list; run the '
                         "cls stage's test.py on this one")
    return hits[name]


def _from_array(array: np.ndarray) -> Hits:
    fields = array.dtype.fields or {}
    if [(name, field[0].kind) for name, field in fields.items()] != FIELDS or array.ndim != 1:
        raise InputError('is no top1top5.npy: it needs the fields name (text), top1, top5 (bool)')
    return {str(name): (bool(top1), bool(top5)) for name, top1, top5 in array.tolist()}


def _from_dict(content: object) -> Hits:
    if isinstance(content, _Array) and len(content.items) == 1:
        content = content.items[0]
    if not isinstance(content, dict):
        raise InputError('is no top1top5.npy: it needs a dict of image names')
    return {_checked_name(name): _checked_pair(pair) for name, pair in content.items()}


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise InputError(f'is no top1top5.npy: {name!r:.80} is no image name')
    return name


def _checked_pair(pair: object) -> tuple[bool, bool]:
    if not (isinstance(pair, list) and len(pair) == 2 and all(hit in (0, 1) for hit in pair)):
        raise InputError(f'is no top1top5.npy: {pair!r:.80} is no pair of hits')
    return bool(pair[0]), bool(pair[1])


class _Inert:
    """Stands in for numpy's dtype and ndarray: takes any arguments and state, does nothing."""

    def __init__(self, *arguments: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Array(_Inert):
    """Stands in for an array of objects: keeps the list of its items."""

    def __setstate__(self, state: object) -> None:
        *_, items = state
        self.items = list(items)


# What a pickled numpy array of objects refers to, in numpy 1 and numpy 2.
STAND_INS = {('numpy.core.multiarray', '_reconstruct'): _Array,
             ('numpy._core.multiarray', '_reconstruct'): _Array,
             ('numpy', 'ndarray'): _Inert, ('numpy', 'dtype'): _Inert}


class _Unpickler(pickle._Unpickler):  # the one in Python: no file makes it grow beyond its size
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in STAND_INS:
            raise InputError(f'is refused: it asks for {module}.{name}, '
                             'which no top1top5.npy needs')
        return STAND_INS[module, name]
