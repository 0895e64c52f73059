"""Outputs are whole or not there."""

import io
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from utils import files
from utils.errors import InputError
from utils.files import (
    atomic_write,
    encode_png,
    keep_settings,
    read_json,
    read_stamp,
    source_of,
    write_json,
    write_png,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_folders_are_made_and_old_files_replaced(tmp_path):
    for text in ('a long old text\n', 'Ärger\n'):
        write_text(tmp_path / 'b' / 'c' / 'a.txt', text)
    assert (tmp_path / 'b' / 'c' / 'a.txt').read_bytes() == 'Ärger\n'.encode()
    assert names(tmp_path / 'b' / 'c') == ['a.txt']


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
    for name in ('a', 'new'):
        with pytest.raises(expected):
            atomic_write(tmp_path / name, half(raised))
    assert (tmp_path / 'a').read_text() == 'old'
    assert names(tmp_path) == ['a']


def test_readers_of_the_old_file_go_on_with_its_content(tmp_path):
    (tmp_path / 'a').write_text('old')
    os.link(tmp_path / 'a', tmp_path / 'link')

    def write(file):
        file.write(b'new')
        file.flush()
        assert (tmp_path / 'a').read_text() == 'old'

    atomic_write(tmp_path / 'a', write)
    assert (tmp_path / 'link').read_text() == 'old'
    assert (tmp_path / 'a').read_text() == 'new'


def test_a_full_disk_is_an_input_error_that_names_file_and_reason(tmp_path):
    with pytest.raises(InputError) as caught:
        atomic_write(tmp_path / 'results.json', half(OSError(28, 'No space left on device')))
    assert str(tmp_path / 'results.json') in str(caught.value)
    assert 'No space left on device' in str(caught.value)


@pytest.mark.parametrize('path', ['file/a', 'file/b/a', 'folder'])
def test_a_place_that_cannot_be_written_is_an_input_error(tmp_path, path):
    (tmp_path / 'file').write_text('in the way')
    (tmp_path / 'folder' / 'b').mkdir(parents=True)
    with pytest.raises(InputError, match='cannot write'):
        write_text(tmp_path / path, 'text')
    assert (tmp_path / 'file').read_text() == 'in the way'
    assert names(tmp_path) == ['file', 'folder']
    assert names(tmp_path / 'folder') == ['b']


def test_json_comes_back_and_what_cannot_be_json_leaves_the_old_file(tmp_path):
    content = {'count': 3, 'top1': None, 'name': 'é', 'list': [0.5, True]}
    write_json(tmp_path / 'a.json', content)
    with pytest.raises(TypeError):
        write_json(tmp_path / 'a.json', {'new': object()})
    assert read_json(tmp_path / 'a.json') == content
    assert (tmp_path / 'a.json').read_text().endswith('}\n')


@pytest.mark.parametrize('content', [None, '', '[]', '"text"', '{', 'null', b'\xff'])
def test_what_is_no_json_object_is_an_empty_one(tmp_path, content):
    if content is not None:
        (tmp_path / 'a.json').write_bytes(content if isinstance(content, bytes)
                                          else content.encode())
    assert read_json(tmp_path / 'a.json') == {}


def test_settings_of_another_run_are_refused_without_the_advice_to_delete_it(tmp_path):
    keep_settings(tmp_path / 'run.json', {'seed': 0, 'photos': 'a'})
    keep_settings(tmp_path / 'run.json', {'seed': 0, 'photos': 'a'})
    with pytest.raises(InputError, match='another run .seed 0 instead of 1') as caught:
        keep_settings(tmp_path / 'run.json', {'seed': 1, 'photos': 'a'})
    assert 'delete' not in str(caught.value)
    assert read_json(tmp_path / 'run.json')['seed'] == 0


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
        content = encode_png(image, 'stamp é')
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(decoded, image)
        with Image.open(io.BytesIO(content)) as other:
            np.testing.assert_array_equal(np.asarray(other)[..., ::-1], image)


def test_a_png_remembers_what_it_was_made_of(tmp_path):
    source = tmp_path / 'photo.jpg'
    source.write_bytes(b'first')
    for text in (source_of(source), 'a ' * 200):
        (tmp_path / 'mask.png').write_bytes(encode_png(np.zeros((4, 5, 3), np.uint8), text))
        assert read_stamp(tmp_path / 'mask.png') == text
    before = source_of(source)
    source.write_bytes(b'other')  # of the same length
    assert source_of(source) != before
    write_png(tmp_path / 'plain.png', np.zeros((4, 5, 3), np.uint8))
    for name in ('plain.png', 'photo.jpg', 'none.png'):
        assert read_stamp(tmp_path / name) is None
