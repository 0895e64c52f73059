"""dataset/make_mini.py: small sets in both layouts, exact masks and boxes, the same bytes again."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'dataset'))

import make_mini
import prepare_imagenet
from draw_birds import SPECIES_LIMIT, draw_bird, make_species

from utils.errors import InputError
from utils.images import read_image, read_true_mask
from utils.lists import WNIDS, cub_images, imagenet_images

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


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp('imagenet') / 'mini-imagenet', '--layout', 'imagenet')


def check(images, classes: list[int]) -> None:
    """Masks fit their images, and boxes their masks."""
    assert images.labels.tolist() == classes
    for index in range(len(images)):
        image = read_image(images.path(index))
        mask, ignored = read_true_mask(images.mask_path(images.segmentation, index))
        rows, columns = np.nonzero(mask)
        assert image.shape[:2] == mask.shape
        assert max(mask.shape) == SIZE
        assert not ignored.any()
        assert 0.02 < mask.mean() < 0.8
        if images.boxes is not None:
            assert images.boxes[index].tolist() == [[columns.min(), rows.min(), columns.max() + 1,
                                                     rows.max() + 1]]


def test_cub_lists_images_and_masks_agree(cub):
    for split, count in (('train', TRAIN_COUNT), ('val', VAL_COUNT)):
        check(cub_images(cub, f'{split}.txt', CLASSES), sorted([*range(CLASSES)] * count))
    assert len(content(cub)) == 2 * CLASSES * (TRAIN_COUNT + VAL_COUNT) + 3
    assert not [path for path in cub.parent.iterdir() if path != cub]
    marker = json.loads((cub / 'mini.json').read_text())
    assert (marker['drawn'], marker['seed'], marker['classes']) == (True, 0, CLASSES)


def test_imagenet_lists_images_and_boxes_agree(imagenet):
    wnids = WNIDS.read_text().split()
    train = imagenet_images(imagenet, 'train.txt', CLASSES)
    check(train, sorted([*range(CLASSES)] * TRAIN_COUNT))
    assert train.names.tolist() == [f'{wnid}/{wnid}_{k + 1}.JPEG' for wnid in wnids[:CLASSES]
                                    for k in range(TRAIN_COUNT)]
    val = imagenet_images(imagenet, 'val.txt', CLASSES, 'val', boxes=True)
    check(val, val.labels.tolist())
    assert val.names.tolist() == [f'ILSVRC2012_val_{k + 1:08d}.JPEG'
                                  for k in range(CLASSES * VAL_COUNT)]
    assert np.bincount(val.labels).tolist() == [VAL_COUNT] * CLASSES
    assert val.labels.tolist() != sorted(val.labels)


def test_the_images_depend_on_the_seed_alone(cub, tmp_path):
    """Not on how many others there are."""
    assert content(make(tmp_path / 'again')) == content(cub)
    fewer = content(make(tmp_path / 'fewer', '--classes', 2, '--train', 2, '--val', 1))
    images = {name for name in fewer if '/' in name}
    assert len(images) == 2 * 2 * 3
    assert {name: fewer[name] for name in images} == {name: content(cub)[name] for name in images}
    other = content(make(tmp_path / 'other', '--seed', 1))
    assert not {name for name in other if other[name] == content(cub).get(name)}


def test_the_species_all_have_different_heads():
    species = [make_species(label, np.random.default_rng(label)) for label in range(SPECIES_LIMIT)]
    assert len({(one.kind, *one.head) for one in species}) == SPECIES_LIMIT
    assert len({one.name for one in species}) == SPECIES_LIMIT


def test_a_bird_is_premultiplied_and_trimmed():
    rng = np.random.default_rng(0)
    bird = draw_bird(make_species(2, rng), 100, rng)
    assert (bird[..., :3] <= bird[..., 3:]).all()
    alpha = bird[..., 3]
    assert all(edge.any() for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]))


def test_prepare_imagenet_makes_the_same_lists(imagenet, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['prepare_imagenet.py', '--source', str(imagenet), '--boxes',
                                      str(imagenet / 'box'), '--out', str(tmp_path / 'out')])
    prepare_imagenet.main()
    made, prepared = content(imagenet), content(tmp_path / 'out')
    for name in ('train.txt', 'val.txt', 'box/ILSVRC2012_val_00000001.xml'):
        assert prepared[name] == made[name]


def test_a_finished_set_is_kept_and_another_one_replaced(cub, tmp_path, capsys):
    out = Path(shutil.copytree(cub, tmp_path / 'mini'))
    before = (out / 'train.txt').stat().st_mtime_ns
    make(out)
    assert 'already there' in capsys.readouterr().out
    assert (out / 'train.txt').stat().st_mtime_ns == before
    make(out, '--classes', 1, '--train', 1, '--val', 1)
    assert len(content(out)) == 2 * 2 + 3
    assert json.loads((out / 'mini.json').read_text())['classes'] == 1


def test_an_interrupted_set_leaves_nothing(cub, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    out = Path(shutil.copytree(cub, tmp_path / 'mini'))
    monkeypatch.setattr(make_mini, 'write_image', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(out, '--seed', 5)
    assert [path.name for path in tmp_path.iterdir()] == ['mini']
    assert content(out) == content(cub)


def test_a_folder_that_is_no_set_is_never_replaced(tmp_path):
    (tmp_path / 'thesis.txt').write_text('do not lose me')
    with pytest.raises(InputError, match='exists'):
        make(tmp_path)
    assert content(tmp_path) == {'thesis.txt': b'do not lose me'}


@pytest.mark.parametrize('arguments', [
    ('--size', 31), ('--classes', 0), ('--seed', -1), ('--train', 'many'), ('--layout', 'voc'),
    ('--classes', SPECIES_LIMIT + 1), ('--sise', 9), ('--cutouts', 'here')])
def test_bad_arguments(run_script, tmp_path, arguments):
    code, _, errors = run_script('dataset/make_mini.py', '--out', tmp_path / 'mini', *arguments)
    assert (code, errors.count('\n')) == (2, 1)
    assert arguments[0] in errors
    assert not list(tmp_path.iterdir())
