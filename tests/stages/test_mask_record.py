"""masks.json: whose masks a folder holds, who may overwrite them, what seg/train says of them."""

import numpy as np
import pytest

from utils.data.lists import ImageList
from utils.errors import InputError
from utils.stages.mask_record import claim_masks, describe_masks, read_record


@pytest.fixture
def images(tmp_path):
    return ImageList(np.array(['a/1.jpg', 'b/2.jpg']), np.array([0, 1]), None, tmp_path,
                     source=tmp_path / 'train.txt')


@pytest.fixture
def checkpoint(tmp_path):
    """checkpoint('run/model-1', b'weights') -> its path."""
    def make(name, content=b'weights'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    return make


@pytest.fixture
def masks(tmp_path, checkpoint, images):
    """A folder of masks that run/model-1 has made at 256 pixels."""
    record = claim_masks(tmp_path / 'mask', checkpoint('run/model-1'), 256, 2)
    record.write(tmp_path / 'mask', complete=images)
    return tmp_path / 'mask'


def test_the_record_says_what_made_the_masks(masks, tmp_path, images):
    record = read_record(masks)
    assert record.checkpoint == str(tmp_path / 'run' / 'model-1')
    assert (record.resize, record.clsnum) == (256, 2)
    assert record.lists == {str(images.source): images.checksum()}


@pytest.mark.parametrize('content', ['', '[]', '{}', '{"checkpoint": "x"}'])
def test_a_record_that_cannot_be_read_is_none(tmp_path, content):
    (tmp_path / 'masks.json').write_text(content)
    assert read_record(tmp_path) is None


def test_the_same_run_makes_its_masks_again(masks, checkpoint):
    assert claim_masks(masks, checkpoint('run/model-1'), 256, 2) == read_record(masks)
    assert claim_masks(masks, checkpoint('moved/model-1'), 256, 2) == read_record(masks)
    for name, content, resize in (('run/model-2', b'other', 256), ('run/model-1', b'', 224)):
        assert claim_masks(masks, checkpoint(name, content), resize, 2).lists == {}


def test_another_run_overwrites_no_masks_by_accident(masks, checkpoint):
    other = checkpoint('run2/model-1', b'other')
    with pytest.raises(InputError, match='run/model-1 at .*another run: .*--overwrite'):
        claim_masks(masks, other, 256, 2)
    assert claim_masks(masks, other, 256, 2, overwrite=True).checkpoint == str(other)


def test_only_the_same_checkpoint_resumes(masks, checkpoint, tmp_path):
    assert claim_masks(masks, checkpoint('run/model-1'), 256, 2, resume=True) == read_record(masks)
    with pytest.raises(InputError, match='leave out --resume'):
        claim_masks(masks, checkpoint('run/model-2', b'other'), 256, 2, resume=True)
    assert claim_masks(tmp_path / 'old', checkpoint('run/model-1'), 256, 2, resume=True) is None


def test_a_training_says_whose_masks_it_uses(masks, images, checkpoint, tmp_path, capsys):
    def said(folder=masks, images=images, clsnum=2):
        describe_masks(folder, images, clsnum)
        return capsys.readouterr().out

    assert said() == (f'pseudo masks: {masks}, made by {tmp_path}/run/model-1 at --resize 256\n')
    assert said(clsnum=3).endswith('; warning: made for 2 classes, not 3\n')
    other = ImageList(images.names[:1], images.labels[:1], None, tmp_path)
    assert said(images=other).endswith('; warning: not for all of list\n')
    checkpoint('run/model-1', b'trained again')
    assert said().endswith('; warning: model-1 has changed since\n')
    assert 'there is no masks.json' in said(tmp_path / 'none')
