"""dataset/make_mini.py: small sets in both layouts, exact masks and boxes, the same bytes again."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import refused

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'dataset'))

import make_mini
from draw_birds import SPECIES_LIMIT

from utils.errors import InputError
from utils.imagenet import imagenet_images
from utils.images import read_image, read_true_mask
from utils.lists import cub_images

CLASSES, TRAIN_COUNT, VAL_COUNT, SIZE = 3, 4, 5, 96
SMALL = ('--classes', CLASSES, '--train', TRAIN_COUNT, '--val', VAL_COUNT, '--size', SIZE)


def make(out: Path, *arguments: object) -> Path:
    """Run the program in this process; the small set unless the arguments say otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['make_mini.py', '--out', str(out), *map(str, SMALL),
                                    *map(str, arguments)])
        make_mini.main()
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def cub(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp('cub') / 'mini')


def check(images, classes: list[int]) -> None:
    """Masks fit their images, and boxes their masks."""
    assert images.labels.tolist() == classes
    for index in range(len(images)):
        size = read_image(images.path(index)).shape[:2]
        mask, ignored = read_true_mask(images.mask_path(images.segmentation, index))
        assert (mask.shape, max(size), ignored.any()) == (size, SIZE, False)
        if images.boxes is not None:
            y, x = np.nonzero(mask)
            assert images.boxes[index].tolist() == [[x.min(), y.min(), x.max() + 1, y.max() + 1]]


def test_cub_lists_images_and_masks_agree(cub):
    for split, count in (('train', TRAIN_COUNT), ('val', VAL_COUNT)):
        check(cub_images(cub, f'{split}.txt', CLASSES), sorted([*range(CLASSES)] * count))
    assert [path.name for path in cub.parent.iterdir()] == ['mini']
    marker = json.loads((cub / 'mini.json').read_text())
    assert (marker['drawn'], marker['seed'], marker['classes']) == (True, 0, CLASSES)


def test_imagenet_lists_images_and_boxes_agree(tmp_path):
    imagenet = make(tmp_path / 'mini-imagenet', '--layout', 'imagenet')
    train = imagenet_images(imagenet, 'train.txt', CLASSES)
    check(train, sorted([*range(CLASSES)] * TRAIN_COUNT))
    val = imagenet_images(imagenet, 'val.txt', CLASSES, 'val', boxes=True)
    check(val, val.labels.tolist())
    assert val.names.tolist() == [f'ILSVRC2012_val_{k + 1:08d}.JPEG'
                                  for k in range(CLASSES * VAL_COUNT)]
    assert np.bincount(val.labels).tolist() == [VAL_COUNT] * CLASSES
    assert val.labels.tolist() != sorted(val.labels)  # mixed, as ImageNet's are


def test_a_finished_set_is_kept_and_another_one_replaced(cub, tmp_path, capsys):
    out = Path(shutil.copytree(cub, tmp_path / 'mini'))
    make(out)
    assert 'already there' in capsys.readouterr().out
    make(out, '--classes', 1, '--train', 1, '--val', 1)
    assert len(content(out)) == 2 * 2 + 3
    assert json.loads((out / 'mini.json').read_text())['classes'] == 1


def test_an_interrupted_set_leaves_nothing(cub, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    out = Path(shutil.copytree(cub, tmp_path / 'mini'))
    monkeypatch.setattr(make_mini, 'write_png', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(out, '--seed', 5)
    assert [path.name for path in tmp_path.iterdir()] == ['mini']
    assert content(out) == content(cub)


def test_a_folder_that_is_no_set_is_never_replaced(tmp_path):
    (tmp_path / 'thesis.txt').write_text('do not lose me')
    with pytest.raises(InputError, match='exists'):
        make(tmp_path)
    assert content(tmp_path) == {'thesis.txt': b'do not lose me'}


@pytest.mark.parametrize('arguments', [('--size', 31), ('--classes', 0),
                                       ('--classes', SPECIES_LIMIT + 1)])
def test_bad_arguments(run_script, tmp_path, arguments):
    refused(run_script('dataset/make_mini.py', '--out', tmp_path / 'mini', *arguments),
            arguments[0])
    assert not list(tmp_path.iterdir())
