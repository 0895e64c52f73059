"""top1top5.npy: ours, the authors' pickle, and files that mean harm."""

import io
import os
import pickle
from contextlib import suppress

import numpy as np
import pytest
from conftest import complaint
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.errors import InputError
from utils.top1top5 import read_top1top5, write_top1top5

NAMES = ['001.Albatross/a b.jpg', 'ñandú/é.jpg', '鳥/😀.jpg']
HITS = {NAMES[0]: (True, True), NAMES[1]: (False, True), NAMES[2]: (False, False)}
AUTHORS = {name: list(pair) for name, pair in HITS.items()}


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    return tmp_path_factory.mktemp('top1top5') / 'top1top5.npy'


def object_header(shape=()):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {'descr': '|O', 'fortran_order': False, 'shape': shape})
    return file.getvalue()


def refused(path, content=None):
    """The message of the InputError with which the file is refused."""
    if content is not None:
        path.write_bytes(content)
    message = complaint(read_top1top5, path)
    assert str(path) in message
    return message


def test_what_is_written_is_read_and_holds_no_pickle(path):
    write_top1top5(path, NAMES, np.array(list(HITS.values())))
    assert read_top1top5(path) == HITS
    assert {type(hit) for pair in read_top1top5(path).values() for hit in pair} == {bool}
    array = np.load(path, allow_pickle=False)
    assert array.dtype.names == ('name', 'top1', 'top5')
    assert array['name'].tolist() == NAMES
    assert array['top5'].tolist() == [True, True, False]


@pytest.mark.parametrize('content', [AUTHORS, {'a.jpg': [1, 0]}, {'a.jpg': [1.0, 0.0]}, {}],
                         ids=['bools', 'integers', 'floats', 'empty'])
def test_the_authors_pickled_dict_is_read(path, content):
    np.save(path, content)
    assert read_top1top5(path) == {name: tuple(map(bool, pair)) for name, pair in content.items()}


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Harmless:
    """A class of this module."""


MARK = 'was executed'
HARM = {
    'os.system': lambda mark: Call(os.system, f'touch "{mark}"'),
    'open': lambda mark: Call(open, str(mark), 'w'),
    'eval': lambda mark: Call(eval, f'open({str(mark)!r}, "w")'),
    'exec': lambda mark: Call(exec, f'open({str(mark)!r}, "w")'),
    'getattr': lambda mark: Call(getattr, 'text', 'upper'),
    'os.mkdir': lambda mark: Call(os.mkdir, str(mark)),
    'np.save': lambda mark: Call(np.save, str(mark), np.zeros(1)),
    'class': lambda mark: Harmless(),
}
PLACES = {
    'alone': lambda harm: harm,
    'as a value': lambda harm: {'a.jpg': harm},
    'as a hit': lambda harm: {'a.jpg': [True, harm]},
    'beside a good one': lambda harm: {**AUTHORS, 'z.jpg': [harm, True]},
    'deep': lambda harm: {'a.jpg': [[[({'x': harm},)]], True]},
}


@pytest.mark.parametrize('place', PLACES.values(), ids=PLACES)
@pytest.mark.parametrize('harm', HARM.values(), ids=HARM)
def test_nothing_in_a_pickle_is_executed(path, tmp_path, harm, place):
    mark = tmp_path / MARK
    np.save(path, np.array(place(harm(mark)), dtype=object))
    assert 'is refused' in refused(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('harm', HARM.values(), ids=HARM)
@pytest.mark.parametrize('shape', [(), (1,)])
def test_nothing_in_an_object_array_or_a_bare_pickle_is_executed(path, tmp_path, harm, shape):
    mark = tmp_path / MARK
    array = np.empty(2, object)
    array[:] = [1, harm(mark)]
    np.save(path, array)
    assert 'is refused' in refused(path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert 'is refused' in refused(
            path, object_header(shape) + pickle.dumps(harm(mark), protocol))
    assert list(tmp_path.iterdir()) == []


def test_the_test_files_would_do_harm_if_they_were_executed(tmp_path):
    """Else the tests above could not fail."""
    for name in ('os.system', 'open', 'eval', 'exec', 'os.mkdir'):
        pickle.loads(pickle.dumps(HARM[name](tmp_path / name)))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        'eval', 'exec', 'open', 'os.mkdir', 'os.system']


def saved(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


GOOD = saved(np.array([('a.jpg', True, True), ('b.jpg', False, True)],
                      [('name', 'U5'), ('top1', '?'), ('top5', '?')]))
PICKLED = saved(AUTHORS)


@pytest.mark.parametrize('content', [GOOD, PICKLED], ids=['ours', "the authors'"])
def test_a_file_cut_anywhere_is_refused(path, content):
    path.write_bytes(content)
    assert read_top1top5(path)
    for length in range(len(content)):
        refused(path, content[:length])


BAD_CONTENTS = [
    ['a.jpg'], 'text', 7, None, (1, 2), {1: [1, 1]}, {b'a.jpg': [1, 1]}, {'a.jpg': 1},
    {'a.jpg': [1]}, {'a.jpg': [1, 0, 1]}, {'a.jpg': [2, 0]}, {'a.jpg': ['1', '0']},
    {'a.jpg': [None, None]}, {'a.jpg': [float('nan'), 1]}, {'a.jpg': {0: 1, 1: 1}},
    {'a.jpg': np.array([1, 1])}, {'a.jpg': [np.array([1, 0]), 1]}]


@pytest.mark.parametrize('content', BAD_CONTENTS, ids=repr)
def test_a_pickle_of_anything_but_names_and_pairs_is_refused(path, content):
    refused(path, object_header() + pickle.dumps(content))
    box = np.empty((), object)
    box[()] = content
    refused(path, saved(box))


# Pickle's memo grows as far as an index in the file says (r: LONG_BINPUT, p: PUT): memory.
@settings(deadline=None, max_examples=150)
@given(st.data(), st.sampled_from([GOOD, PICKLED]), st.integers(0, 255).filter(
    lambda value: value not in b'rp'))
def test_a_file_with_one_wrong_byte_is_read_or_refused(path, data, content, value):
    content = bytearray(content)
    content[data.draw(st.integers(0, len(content) - 1))] = value
    path.write_bytes(content)
    with suppress(InputError):
        hits = read_top1top5(path)
        assert all(isinstance(name, str) and len(pair) == 2 for name, pair in hits.items())
