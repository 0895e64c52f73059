"""top1top5.npy, stage 1's result: for each image, whether the classifier's first class, and one of
its first five, is right. A plain structured array with the fields name, top1, top5."""

from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError

import numpy as np

from network.errors import first_line
from utils.errors import InputError
from utils.outputs.files import write_array
from utils.outputs.released_top1top5 import read_released

Hits = dict[str, tuple[bool, bool]]
FIELDS = [('name', 'U'), ('top1', 'b'), ('top5', 'b')]
READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0,
               (2, 0): np.lib.format.read_array_header_2_0}


def write_top1top5(path: Path, names: list[str], top1: list[bool], top5: list[bool]) -> None:
    array = np.array(list(zip(names, top1, top5, strict=True)),
                     dtype=[('name', f'U{max(map(len, names))}'), ('top1', '?'), ('top5', '?')])
    write_array(path, array)


def read_top1top5(path: Path, names: Iterable[str] = ()) -> Hits:
    """Image name -> (top-1 hit, top-5 hit), from our file or the authors'.

    Raises InputError if the file is missing, corrupted, contains anything else, or lacks one of
    `names`. Nothing in it is executed.
    """
    hits = _read(path)
    for name in names:
        if name not in hits:
            raise InputError(f'{path} has no image {name}: it was made from another list; run the '
                             "cls stage's test.py on this one")
    return hits


def _read(path: Path) -> Hits:
    if not path.is_file():
        raise InputError(f'no classification result at {path}: run the cls stage\'s test.py, give '
                         'its file with --top1top5, or --top1top5 none for GT-known only')
    try:
        with open(path, 'rb') as file:
            _, _, dtype = READ_HEADER[np.lib.format.read_magic(file)](file)
            if dtype.hasobject:
                return read_released(file.read())
        return _from_array(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError, LookupError, SyntaxError, TokenError, TypeError,
            OverflowError, MemoryError) as error:  # what numpy raises on corrupted files
        raise InputError(f'{path} is not a valid top1top5.npy ({first_line(error)}): run the cls '
                         "stage's test.py again") from error


def _from_array(array: np.ndarray) -> Hits:
    fields = array.dtype.fields or {}
    if [(name, field[0].kind) for name, field in fields.items()] != FIELDS or array.ndim != 1:
        raise ValueError('it needs the fields name (text), top1, top5 (bool)')
    return {str(name): (bool(top1), bool(top5)) for name, top1, top5 in array.tolist()}
