"""top1top5.npy, stage 1's result: for each image, whether its class is the first, and among the
first five, that the classifier names.

Ours is a plain structured array (name, top1, top5). The authors' is a pickled dict; it is read
by an unpickler that can build nothing but that dict.
"""

import io
import pickle
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.files import write_whole

Hits = dict[str, tuple[bool, bool]]

# What a pickled numpy array of one object refers to, in numpy 1 and numpy 2.
ALLOWED = {(f'numpy.{core}.multiarray', '_reconstruct') for core in ('core', '_core')} | {
    ('numpy', 'ndarray'), ('numpy', 'dtype')}


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
    if array.dtype.names != ('name', 'top1', 'top5'):
        raise InputError('is no top1top5.npy: it needs the fields name, top1, top5')
    return {str(name): (bool(top1), bool(top5)) for name, top1, top5 in array.tolist()}


def _from_dict(content: object) -> Hits:
    if isinstance(content, np.ndarray) and content.shape == ():
        content = content.item()
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


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in ALLOWED:
            raise InputError(f'is refused: it asks for {module}.{name}, '
                             'which no top1top5.npy needs')
        return super().find_class(module, name)
