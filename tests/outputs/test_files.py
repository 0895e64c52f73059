"""Outputs are whole or not there."""

import io
import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.errors import InputError
from utils.outputs import files
from utils.outputs.files import atomic_write, encode_png, write_json, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_holds_what_was_written_and_nothing_else_is_left(tmp_path):
    atomic_write(tmp_path / 'a', lambda file: file.write(b'new'))
    assert (tmp_path / 'a').read_bytes() == b'new'
    assert names(tmp_path) == ['a']


def test_missing_folders_are_made(tmp_path):
    write_text(tmp_path / 'b' / 'c' / 'a.txt', 'Ärger\n')
    assert (tmp_path / 'b' / 'c' / 'a.txt').read_bytes() == 'Ärger\n'.encode()


def test_an_old_file_is_replaced(tmp_path):
    for text in ('a long old text', 'new'):
        write_text(tmp_path / 'a', text)
    assert (tmp_path / 'a').read_text() == 'new'
    assert names(tmp_path) == ['a']


def half(error):
    def write(file):
        file.write(b'half')
        raise error

    return write


@pytest.mark.parametrize(('raised', 'expected'), [
    (ValueError('x'), ValueError), (KeyboardInterrupt(), KeyboardInterrupt),
    (OSError(28, 'No space left on device'), InputError)], ids=['value', 'Ctrl-C', 'disk full'])
def test_an_old_file_stays_when_the_writing_fails(tmp_path, raised, expected):
    (tmp_path / 'a').write_text('old')
    with pytest.raises(expected):
        atomic_write(tmp_path / 'a', half(raised))
    assert (tmp_path / 'a').read_text() == 'old'
    assert names(tmp_path) == ['a']


def test_no_file_appears_when_the_writing_fails(tmp_path):
    with pytest.raises(ValueError, match='x'):
        atomic_write(tmp_path / 'a', half(ValueError('x')))
    assert names(tmp_path) == []


def test_the_old_file_is_whole_while_the_new_one_is_written(tmp_path):
    (tmp_path / 'a').write_text('old')

    def write(file):
        file.write(b'new')
        file.flush()
        assert (tmp_path / 'a').read_text() == 'old'

    atomic_write(tmp_path / 'a', write)
    assert (tmp_path / 'a').read_text() == 'new'


def test_a_new_file_takes_the_name_and_not_the_place_of_the_old_one(tmp_path):
    """Whoever has the old file open, or linked, goes on with the old content."""
    (tmp_path / 'a').write_text('old')
    os.link(tmp_path / 'a', tmp_path / 'link')
    write_text(tmp_path / 'a', 'new')
    assert (tmp_path / 'link').read_text() == 'old'
    assert (tmp_path / 'a').read_text() == 'new'


def test_a_full_disk_is_an_input_error_that_names_file_and_reason(tmp_path):
    with pytest.raises(InputError) as caught:
        atomic_write(tmp_path / 'results.json', half(OSError(28, 'No space left on device')))
    assert str(tmp_path / 'results.json') in str(caught.value)
    assert 'No space left on device' in str(caught.value)


@pytest.mark.parametrize('path', ['file/a', 'file/b/a'])
def test_a_folder_that_cannot_be_is_an_input_error(tmp_path, path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(InputError, match='cannot write'):
        write_text(tmp_path / path, 'text')
    assert (tmp_path / 'file').read_text() == 'in the way'


def test_a_folder_in_the_files_place_is_an_input_error_and_stays(tmp_path):
    (tmp_path / 'a' / 'b').mkdir(parents=True)
    with pytest.raises(InputError, match='cannot write'):
        write_text(tmp_path / 'a', 'text')
    assert names(tmp_path) == ['a']
    assert names(tmp_path / 'a') == ['b']


def test_json_comes_back(tmp_path):
    content = {'count': 3, 'top1': None, 'name': 'é', 'list': [0.5, True]}
    write_json(tmp_path / 'a.json', content)
    assert json.loads((tmp_path / 'a.json').read_text()) == content
    assert (tmp_path / 'a.json').read_text().endswith('}\n')


def test_a_json_that_cannot_be_leaves_the_old_one(tmp_path):
    write_json(tmp_path / 'a.json', {'old': 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / 'a.json', {'new': object()})
    assert json.loads((tmp_path / 'a.json').read_text()) == {'old': 1}


def test_names_that_are_not_utf8_are_written_as_their_bytes(tmp_path):
    """Lists keep such names (as surrogates), and boxes.csv repeats them."""
    write_text(tmp_path / 'boxes.csv', 'a\udcff.jpg,1\n')
    assert (tmp_path / 'boxes.csv').read_bytes() == b'a\xff.jpg,1\n'


@pytest.mark.parametrize('with_isal', [True, False])
@pytest.mark.parametrize('size', [(1, 1), (1, 50), (60, 1), (37, 53), (256, 256)])
def test_a_png_holds_the_pixels(monkeypatch, with_isal, size):
    if not with_isal:
        monkeypatch.setattr(files, 'isal_zlib', None)
    elif files.isal_zlib is None:
        pytest.skip('isal is not installed')
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 256, (4, 5, 3), np.uint8), size[::-1])
    for image in (smooth, rng.integers(0, 256, (*size, 3), np.uint8),
                  np.zeros((*size, 3), np.uint8)):
        content = encode_png(image)
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(decoded, image)
        with Image.open(io.BytesIO(content)) as other:
            np.testing.assert_array_equal(np.asarray(other)[..., ::-1], image)
