"""Outputs are whole or not there."""

import cv2
import numpy as np
import pytest

from utils.errors import InputError
from utils.files import atomic_write, read_stamp, source_of, write_png, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_folders_are_made_and_old_files_replaced(tmp_path):
    """Names in lists that are not UTF-8 (read as surrogates) are written as their bytes."""
    for text in ('a long old text\n', 'Ärger, a\udcff.jpg\n'):
        write_text(tmp_path / 'b' / 'c' / 'a.txt', text)
    assert (tmp_path / 'b' / 'c' / 'a.txt').read_bytes() == 'Ärger, a'.encode() + b'\xff.jpg\n'
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


@pytest.mark.parametrize('path', ['file/a', 'file/b/a', 'folder'])
def test_a_place_that_cannot_be_written_is_an_input_error(tmp_path, path):
    (tmp_path / 'file').write_text('in the way')
    (tmp_path / 'folder' / 'b').mkdir(parents=True)
    with pytest.raises(InputError, match='cannot write'):
        write_text(tmp_path / path, 'text')
    assert (tmp_path / 'file').read_text() == 'in the way'
    assert names(tmp_path) == ['file', 'folder']
    assert names(tmp_path / 'folder') == ['b']


@pytest.mark.parametrize(('shape', 'dtype'), [
    ((7, 5, 3), np.uint8), ((7, 5), np.uint8), ((7, 5), np.uint16), ((7, 5), bool)])
def test_a_png_has_the_pixels_and_remembers_what_it_was_made_of(tmp_path, shape, dtype):
    source, path = tmp_path / 'photo.jpg', tmp_path / 'mask.png'
    source.write_bytes(b'first')
    before = source_of(source)
    image = np.random.default_rng(0).integers(0, 65536, shape).astype(dtype)
    write_png(path, image[:, ::-1], before)
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert (found[..., ::-1] if shape[2:] else found).tolist() == (
        image[:, ::-1] * (255 if dtype is bool else 1)).tolist()
    assert read_stamp(path) == before
    source.write_bytes(b'other')  # of the same length
    assert source_of(source) != before
    write_png(path, image)
    for name in ('mask.png', 'photo.jpg', 'none.png'):
        assert read_stamp(tmp_path / name) == ''
