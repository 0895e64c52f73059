"""The folder of pseudo masks: how it is written, continued, and whose masks it holds."""

import os
import shutil

import cv2
import numpy as np
import pytest
import torch
from conftest import TRAIN_NAMES, complaint, refused, write_image

from utils.files import source_of, write_png
from utils.pseudo_masks import MaskWriter


def test_a_cam_that_is_not_finite_overwrites_no_mask(tmp_path):
    cams = np.ones((2, 4, 4), np.float32)
    cams[1, 2, 2] = np.inf
    (tmp_path / 'b.png').write_bytes(b'a good mask')
    writer = MaskWriter(tmp_path, tmp_path, True, 'stamp')
    batch = {'index': np.array([0, 1]), 'name': ['a.jpg', 'b.jpg'], 'size': np.array([[4, 4]] * 2)}
    assert 'not finite' in complaint(writer, batch, {'image': [cams, cams]})
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


@pytest.mark.parametrize('flags', [('--no_prior',), ('--resize', 64), ()], ids=str)
def test_masks_of_other_settings_or_another_checkpoint_are_not_overwritten_by_accident(
        stage, project, made, flags):
    before, out = contents(made), project / 'cub200-cam' / 'out'
    if not flags:  # the next epoch of the same training
        state = torch.load(out / 'model-1', weights_only=True)
        torch.save({name: 2 * value for name, value in state.items()}, out / 'model-2')
        shutil.copy(out / 'model-1.json', out / 'model-2.json')
    for resume in ((), ('--resume',)):
        refused(stage('cam', 'test', *flags, *resume), 'another checkpoint or other settings',
                project / 'data' / 'mask', '--overwrite')
    assert contents(made) == before
    code, said, err = stage('cam', 'test', '--resume', '--overwrite', *flags)
    assert code == 0, err
    assert 'wrote 6 pseudo masks' in said
    assert all(a != b for a, b in zip(contents(made), before, strict=True))
    has_prior = any(cv2.imread(str(path))[..., 1].any() for path in made)
    assert has_prior == (flags != ('--no_prior',))


def test_a_training_refuses_photographs_that_were_replaced_since(stage, project, made):
    """A few of them; where all differ, the folder was copied."""
    os.utime(project / 'data' / 'image' / TRAIN_NAMES[1], ns=(1, 1))
    result = stage('seg', 'train', '--max_steps', 1)
    refused(result, '1 images are newer than their pseudo masks', TRAIN_NAMES[1], '--resume')
    for name in TRAIN_NAMES:
        os.utime(project / 'data' / 'image' / name, ns=(1, 1))
    write_png(made[0], np.zeros((50, 60, 3), np.uint8), 'other 40 True 1-1')
    code, _, err = stage('seg', 'train', '--max_steps', 1)
    assert code == 0, err
    assert 'has masks of several checkpoints or settings' in err
