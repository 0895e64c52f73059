"""dataset/prepare_leeds.py: archives made like the official one become the CUB layout."""

import io
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import cv2
import gdown
import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'dataset'))

from preparation import download

from utils.errors import InputError
from utils.lists import cub_images

SCRIPT = 'dataset/prepare_leeds.py'


def indexed_mask() -> np.ndarray:
    """Indices as in the data set: 0 and 2 are background, 1 and 3 foreground."""
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 3:10], mask[9:12, 3:10], mask[0:5, 3:10] = 1, 3, 2
    return mask


@pytest.fixture
def official(tmp_path) -> Path:
    """A folder leedsbutterfly with two photographs of each species; the masks of every third are
    RGB copies."""
    root = tmp_path / 'official' / 'leedsbutterfly'
    (root / 'images').mkdir(parents=True)
    (root / 'segmentations').mkdir()
    for number in range(20):
        name = f'{number % 10 + 1:03d}{number + 1:04d}'
        Image.fromarray(np.full((20, 30, 3), number, np.uint8)).save(root / f'images/{name}.png')
        mask = Image.fromarray(indexed_mask(), 'P')
        mask.putpalette((255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0))
        mask = mask.convert('RGB') if number % 3 == 2 else mask
        mask.save(root / f'segmentations/{name}_seg0.png')
    (root / 'README.txt').touch()
    return root


@pytest.fixture(params=['folder', 'parent', 'zip', 'tar'])
def source(request, official) -> Path:
    archive = official.parents[1] / f'archive.{request.param}'
    if request.param == 'zip':
        return Path(shutil.make_archive(str(archive), 'zip', official.parent))
    if request.param == 'tar':
        with tarfile.open(archive, 'w:gz') as members:
            members.add(official, 'leedsbutterfly')
        return archive
    return official if request.param == 'folder' else official.parent


def test_the_official_data(source, run_script, tmp_path):
    code, out, err = run_script(SCRIPT, '--source', source, '--out', tmp_path / 'out')
    assert (code, err) == (0, '')
    assert '10 classes, 10 training and 10 val images, 20 masks' in out
    names = {}
    for split in ('train', 'val'):
        images = cub_images(tmp_path / 'out', f'{split}.txt', 10)
        names |= dict(zip(images.names.tolist(), images.labels.tolist(), strict=True))
        assert images.boxes.tolist() == [[[3, 5, 10, 12]]] * 10
    assert names['005.Lycaena_phlaeas/0050005.png'] == 4
    expected = np.isin(indexed_mask(), (1, 3)) * 255
    for name in names:
        assert (tmp_path / 'out' / 'image' / name).is_file()
        mask = cv2.imread(str(tmp_path / 'out' / 'segmentation' / name), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask, expected)
    assert not list(tmp_path.glob('.out*'))


def test_what_is_wrong_with_a_folder(official, run_script, tmp_path):
    def error() -> str:
        code, _, err = run_script(SCRIPT, '--source', official, '--out', tmp_path / 'out')
        assert code == 2
        assert not (tmp_path / 'out').exists()
        return err

    mask = official / 'segmentations' / '0010001_seg0.png'
    Image.fromarray(indexed_mask().T.copy(), 'P').save(mask)
    assert 'another size than its image' in error()
    mask.unlink()
    assert '1 images: mask that cannot be used (001.Danaus_plexippus/0010001.png)' in error()
    shutil.move(official / 'images' / '0010001.png', official / 'images' / '0110001.png')
    assert '0110001.png is not an image of this data set' in error()
    shutil.rmtree(official / 'images')
    assert 'no images in' in error()


def packed(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as members:
        members.writestr(name, 'evil')
    return file.getvalue()


def flipped(whole: bytes) -> bytes:
    at = whole.index(b'images/0010001.png') + 40  # inside the file; the directory is whole
    return whole[:at] + bytes([255 - whole[at]]) + whole[at + 1:]


@pytest.mark.parametrize(('change', 'words'), [
    (lambda whole: packed('../evil.png'), 'no images in'),
    (lambda whole: packed('/evil.png'), 'no images in'),
    (lambda whole: whole[:len(whole) // 2], 'cannot unpack'), (flipped, 'cannot unpack'),
    (lambda whole: b'<html>', 'cannot unpack'), (lambda whole: b'', 'cannot unpack'),
])
def test_bad_archives(official, run_script, tmp_path, change, words):
    whole = Path(shutil.make_archive(str(tmp_path / 'a'), 'zip', official.parent)).read_bytes()
    shutil.rmtree(official.parent)
    (tmp_path / 'a.zip').write_bytes(change(whole))
    code, _, err = run_script(SCRIPT, '--source', tmp_path / 'a.zip', '--out', tmp_path / 'out')
    assert code == 2
    assert words in err
    assert err.count('\n') == 1
    assert [file.name for file in tmp_path.iterdir()] == ['a.zip']


@pytest.mark.parametrize('error', [OSError('no route'), AssertionError('md5'),
                                   gdown.exceptions.DownloadError('404')])
def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(gdown, 'cached_download', fail)
    with pytest.raises(InputError, match='cannot download http://x .*by hand'):
        download('http://x', tmp_path / 'a.zip')
