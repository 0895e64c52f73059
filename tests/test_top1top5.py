"""top1top5.npy: ours, the authors' pickle, and files that mean harm."""

import io
import os
import pickle

import numpy as np
import pytest
from hypothesis import example, given, settings
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
    with pytest.raises(InputError) as caught:
        read_top1top5(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_read_and_holds_no_pickle(path):
    write_top1top5(path, NAMES, np.array(list(HITS.values())))
    assert read_top1top5(path) == HITS
    assert {type(hit) for pair in read_top1top5(path).values() for hit in pair} == {bool}
    array = np.load(path, allow_pickle=False)
    assert array.dtype.names == ('name', 'top1', 'top5')
    assert array['name'].tolist() == NAMES
    assert array['top5'].tolist() == [True, True, False]


names = st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0'), min_size=1,
                max_size=12)


@settings(deadline=None)
@given(st.dictionaries(names, st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6))
def test_any_names_round_trip(path, hits):
    write_top1top5(path, list(hits), np.array(list(hits.values())))
    assert read_top1top5(path) == hits


@pytest.mark.parametrize('content', [AUTHORS, {'a.jpg': [1, 0]}, {'a.jpg': [1.0, 0.0]}, {}],
                         ids=['bools', 'integers', 'floats', 'empty'])
def test_the_authors_pickled_dict_is_read(path, content):
    np.save(path, content)
    assert read_top1top5(path) == {name: tuple(map(bool, pair)) for name, pair in content.items()}


@pytest.mark.parametrize('core', [b'numpy.core', b'numpy._core'])
def test_files_of_numpy_1_and_2_are_read(path, core):
    """numpy 1.17 and later save by protocol 3, which names the module plainly: exchange it."""
    pickled = pickle.dumps(np.array(AUTHORS, object), protocol=3)
    assert pickled.count(b'cnumpy._core.multiarray\n') == 1
    path.write_bytes(object_header() + pickled.replace(b'numpy._core', core))
    assert read_top1top5(path) == HITS


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


def test_a_harmful_field_of_a_structured_array_is_not_executed(path, tmp_path):
    array = np.empty(1, [('name', 'O'), ('top1', '?'), ('top5', '?')])
    array['name'][0] = HARM['os.system'](tmp_path / MARK)
    np.save(path, array)
    assert 'is refused' in refused(path)
    assert list(tmp_path.iterdir()) == []


class ForgedArray:
    """Pickles as a 0-d array whose bytes are taken for what the forged dtype says they are."""

    def __init__(self, dtype_arguments, dtype_state, content):
        self.dtype = Call(np.dtype, *dtype_arguments)
        self.dtype.call += (dtype_state,)
        self.content = content

    def __reduce__(self):
        return (np.empty(0).__reduce__()[0], (np.ndarray, (0,), b'b'),
                (1, (), self.dtype, False, self.content))


def test_an_address_in_a_pickle_does_not_become_an_object(path):
    """A dtype of objects whose flags (0) deny that it holds any: numpy then copies the file's
    bytes, here the address of a dict, over the pointer. Other addresses crash Python or worse."""
    target = {'a.jpg': [1, 1]}
    forged = ForgedArray(('O', False, True), (3, '|', None, None, None, -1, -1, 0),
                         id(target).to_bytes(8, 'little'))
    refused(path, object_header() + pickle.dumps(forged))
    assert target == {'a.jpg': [1, 1]}


def test_a_missing_file_says_what_to_do(tmp_path):
    message = refused(tmp_path / 'absent.npy')
    assert '--top1top5 none' in message


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


@pytest.mark.parametrize('dtype', [
    [('name', 'U5'), ('top1', '?')],
    [('name', 'U5'), ('top5', '?'), ('top1', '?')],
    [('name', 'U5'), ('top1', '?'), ('top5', '?'), ('top9', '?')],
    [('name', 'i8'), ('top1', '?'), ('top5', '?')],
    [('name', 'S5'), ('top1', '?'), ('top5', '?')],
    [('name', 'U5'), ('top1', 'f8'), ('top5', '?')],
    [('name', 'U5'), ('top1', '?'), ('top5', 'U5')],
    [('name', 'U5'), ('top1', '?', 2), ('top5', '?')],
    'f8', 'U5', '?',
], ids=str)
def test_other_fields_or_types_are_refused(path, dtype):
    refused(path, saved(np.zeros(3, dtype)))


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


def test_a_huge_header_is_refused(path):
    """numpy reads headers of up to 10,000 characters; versions 1.0 (two bytes of length), 2.0
    (four bytes)."""
    padding = b'{' + b' ' * 60_000
    refused(path, b'\x93NUMPY\x01\x00' + len(padding).to_bytes(2, 'little') + padding)
    refused(path, b'\x93NUMPY\x02\x00' + (2 * len(padding)).to_bytes(4, 'little') + padding * 2)
    refused(path, b'\x93NUMPY\x02\x00' + b'\xff\xff\xff\x7f' + padding)


def test_a_header_that_promises_more_than_there_is_is_refused(path):
    """Two rows, said to be 200."""
    promising = GOOD.replace(b"'shape': (2,), }  ", b"'shape': (200,), }")
    assert promising != GOOD
    assert len(promising) == len(GOOD)
    refused(path, promising)


@pytest.mark.parametrize('content', [b'', b'\x93', b'\x93NUMPY', b'\x93NUMPY\x09\x00rest',
                                     b'PK\x03\x04', b'name,top1\n', pickle.dumps(AUTHORS)])
def test_what_is_no_npy_file_is_refused(path, content):
    refused(path, content)


def only_input_error(path, content):
    path.write_bytes(content)
    try:
        hits = read_top1top5(path)
    except InputError:
        return
    assert all(isinstance(name, str) and len(pair) == 2 for name, pair in hits.items())


# Pickle's memo grows as far as an index in the file says (r: LONG_BINPUT, p: PUT): memory.
harmless_bytes = st.binary(max_size=120).map(lambda b: b.replace(b'r', b'').replace(b'p', b''))


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([b'\x01\x00', b'\x02\x00', b'\x03\x00', b'']), st.binary(max_size=200))
@example(b'\x01\x00', b'\x02\x00()')
def test_random_bytes_after_the_magic_are_refused(path, version, content):
    only_input_error(path, b'\x93NUMPY' + version + content)


@settings(deadline=None, max_examples=150)
@given(harmless_bytes)
def test_a_random_pickle_is_refused(path, content):
    only_input_error(path, object_header() + content)


@settings(deadline=None, max_examples=150)
@given(st.data(), st.sampled_from([GOOD, PICKLED]), st.integers(0, 255).filter(
    lambda value: value not in b'rp'))
def test_a_file_with_one_wrong_byte_is_read_or_refused(path, data, content, value):
    content = bytearray(content)
    content[data.draw(st.integers(0, len(content) - 1))] = value
    only_input_error(path, bytes(content))


def test_a_file_without_an_image_of_the_list_is_refused(path):
    write_top1top5(path, NAMES, np.array(list(HITS.values())))
    assert read_top1top5(path, NAMES) == HITS
    with pytest.raises(InputError) as caught:
        read_top1top5(path, [*NAMES, 'b/absent.jpg'])
    assert 'b/absent.jpg' in str(caught.value)
    assert str(path) in str(caught.value)


def test_nested_shared_lists_are_refused_at_once(path):
    """260 bytes, whose text would have 2^60 items."""
    nested = [0, 0]
    for _ in range(60):
        nested = [nested, nested]
    array = np.empty((), object)
    array[()] = {'a.jpg': nested}
    with open(path, 'wb') as file:
        np.save(file, array)
    with pytest.raises(InputError, match='it has str -> list'):
        read_top1top5(path)
