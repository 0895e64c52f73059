"""dataset/prepare_leeds.py: the official folder or archive becomes the CUB layout."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import refused
from PIL import Image

from utils.lists import cub_images

SCRIPT = 'dataset/prepare_leeds.py'


# Indices as in the data set: 0 and 2 are background, 1 and 3 foreground.
MASK = np.zeros((20, 30), np.uint8)
MASK[5:9, 3:10], MASK[9:12, 3:10], MASK[0:5, 3:10] = 1, 3, 2


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
        mask = Image.fromarray(MASK, 'P')
        mask.putpalette((255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0))
        mask = mask.convert('RGB') if number % 3 == 2 else mask
        mask.save(root / f'segmentations/{name}_seg0.png')
    return root


@pytest.mark.parametrize('kind', ['folder', 'parent', 'zip', 'tar'])
def test_the_official_data(official, kind, run_script, tmp_path):
    source = {'folder': official, 'parent': official.parent}.get(kind, tmp_path / f'archive.{kind}')
    if kind == 'zip':
        shutil.make_archive(str(tmp_path / 'archive'), 'zip', official.parent)
    elif kind == 'tar':
        with tarfile.open(source, 'w:gz') as members:
            members.add(official, 'leedsbutterfly')
    code, out, err = run_script(SCRIPT, '--source', source, '--out', tmp_path / 'out')
    assert (code, err) == (0, '')
    assert '10 classes, 10 training and 10 val images, 20 masks' in out
    names = {}
    for split in ('train', 'val'):
        images = cub_images(tmp_path / 'out', f'{split}.txt', 10)
        names |= dict(zip(images.names.tolist(), images.labels.tolist(), strict=True))
        assert np.array(images.boxes).tolist() == [[[3, 5, 10, 12]]] * 10
    assert names['005.Lycaena_phlaeas/0050005.png'] == 4
    for name in names:
        assert (tmp_path / 'out' / 'image' / name).is_file()
        mask = np.array(Image.open(tmp_path / 'out' / 'segmentation' / name))
        assert np.array_equal(mask, np.isin(MASK, (1, 3)) * 255)
    assert not list(tmp_path.glob('.out*'))


@pytest.mark.parametrize(('change', 'words'), [
    (lambda root: Image.fromarray(MASK[1:]).save(root / 'segmentations/0010001_seg0.png'),
     ['0010001.png', 'another size than its image']),
    (lambda root: (root / 'images/0010001.png').rename(root / 'images/0110001.png'),
     ['0110001.png is not an image of this data set']),
    (lambda root: shutil.rmtree(root / 'images'), ['no images in']),
])
def test_what_is_wrong_with_a_folder(official, run_script, tmp_path, change, words):
    change(official)
    refused(run_script(SCRIPT, '--source', official, '--out', tmp_path / 'out'), *words)
    assert not (tmp_path / 'out').exists()
