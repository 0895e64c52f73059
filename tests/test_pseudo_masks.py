"""The folder of pseudo masks: how it is written, continued, and whose masks it holds."""

import json
import os

import cv2
import numpy as np
import pytest
from conftest import TRAIN_NAMES, complaint, refused, write_image

from network.weights import digest
from utils.errors import InputError
from utils.files import source_of
from utils.lists import ImageList
from utils.mask_record import describe_masks, write_record
from utils.pseudo_masks import MaskWriter


def record(checkpoint, sha256='1', **changes):
    return {'checkpoint': str(checkpoint), 'sha256': sha256, 'resize': 256, 'clsnum': 2,
            'prior': True, **changes}


@pytest.fixture
def images(tmp_path):
    return ImageList(np.array(['a/1.jpg', 'b/2.jpg']), np.array([0, 1]), None, tmp_path,
                     source=tmp_path / 'train.txt')


@pytest.fixture
def masks(tmp_path, images):
    """A folder of masks that run/model-1 has made at 256 pixels."""
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'model-1').write_bytes(b'weights')
    made = record(tmp_path / 'run' / 'model-1', digest(tmp_path / 'run' / 'model-1'))
    write_record(tmp_path / 'mask', made, False, {str(images.source): images.checksum()})
    return tmp_path / 'mask'


def test_another_run_overwrites_no_masks_by_accident(masks, tmp_path):
    before = (masks / 'masks.json').read_bytes()
    other = record(tmp_path / 'run2' / 'model-1', 'other')
    message = complaint(write_record, masks, other, overwrite=False)
    assert 'run/model-1 at --resize 256, another run' in message
    assert '--overwrite' in message
    assert (masks / 'masks.json').read_bytes() == before
    assert write_record(masks, other, overwrite=True) == {}
    assert json.loads((masks / 'masks.json').read_text())['checkpoint'] == other['checkpoint']


def test_a_training_says_whose_masks_it_uses_and_warns_of_mismatches(masks, images, tmp_path,
                                                                     capsys):
    def said(images=images, clsnum=2):
        describe_masks(masks, images, clsnum)
        return capsys.readouterr()

    found = said()
    assert found.out == f'pseudo masks: {masks}, made by {tmp_path}/run/model-1 at --resize 256\n'
    assert found.err == ''
    assert 'made for 2 classes, not 3' in said(clsnum=3).err
    other = ImageList(images.names[:1], images.labels[:1], None, tmp_path)
    assert 'not for all of list' in said(images=other).err
    (tmp_path / 'run' / 'model-1').write_bytes(b'trained again')
    assert 'model-1 has changed since' in said().err
    (masks / 'masks.json').write_text('{')
    assert 'there is no masks.json' in said().out


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_cam_that_is_not_finite_overwrites_no_mask(tmp_path, value):
    cams = np.ones((2, 4, 4), np.float32)
    cams[1, 2, 2] = value
    (tmp_path / 'b.png').write_bytes(b'a good mask')
    writer = MaskWriter(tmp_path, tmp_path, True, 'stamp')
    batch = {'index': np.array([0, 1]), 'name': ['a.jpg', 'b.jpg'], 'size': np.array([[4, 4]] * 2)}
    with pytest.raises(InputError, match='not finite'):
        writer(batch, {'image': [cams, cams]})
    assert (tmp_path / 'b.png').read_bytes() == b'a good mask'
    assert not (tmp_path / 'a.png').exists()


@pytest.fixture
def made(stage, project):
    """cam/test has run; paths of the masks, in the order of the list."""
    code, out, err = stage('cam', 'test')
    assert code == 0, err
    assert 'wrote 6 pseudo masks' in out
    return [(project / 'data' / 'mask' / name).with_suffix('.png') for name in TRAIN_NAMES]


def contents(paths):
    return [path.read_bytes() for path in paths]


def test_resume_makes_what_is_missing_damaged_or_of_another_photograph(stage, project, made):
    before, written = contents(made), list(map(source_of, made))
    made[0].unlink()
    made[2].write_bytes(before[2][:20])
    write_image(made[3], np.zeros((50, 60, 3), np.uint8))  # of another program
    photograph = project / 'data' / 'image' / TRAIN_NAMES[4]
    write_image(photograph, np.full((50, 60, 3), 9, np.uint8))
    code, out, err = stage('cam', 'test', '--resume')
    assert code == 0, err
    assert 'wrote 4 pseudo masks' in out
    assert 'kept 2 that are up to date' in out
    assert [a == b for a, b in zip(contents(made), before, strict=True)] == [
        True, True, True, True, False, True]
    assert [a == b for a, b in zip(map(source_of, made), written, strict=True)] == [
        False, True, False, False, False, True]
    code, out, err = stage('cam', 'test', '--resume')
    assert 'kept 6 that are up to date' in out


@pytest.mark.parametrize('change', ['--no_prior', '--resize'])
def test_resume_keeps_no_masks_of_other_settings(stage, project, made, change):
    before = contents(made)
    arguments = [change] if change == '--no_prior' else [change, 64]
    code, out, err = stage('cam', 'test', '--resume', *arguments)
    assert code == 0, err
    assert 'wrote 6 pseudo masks' in out
    assert all(a != b for a, b in zip(contents(made), before, strict=True))
    has_prior = any(cv2.imread(str(path))[..., 1].any() for path in made)
    assert has_prior == (change != '--no_prior')


def test_a_training_refuses_photographs_that_were_replaced_since(stage, project, made):
    """A few of them; where all differ, the folder was copied."""
    os.utime(project / 'data' / 'image' / TRAIN_NAMES[1], ns=(1, 1))
    result = stage('seg', 'train', '--max_steps', 1)
    refused(result, '1 images are newer than their pseudo masks', TRAIN_NAMES[1], '--resume')
    for name in TRAIN_NAMES:
        os.utime(project / 'data' / 'image' / name, ns=(1, 1))
    code, out, err = stage('seg', 'train', '--max_steps', 1)
    assert code == 0, err
    assert f'made by {project}/cub200-cam/out/model-1 at --resize 40\n' in out
