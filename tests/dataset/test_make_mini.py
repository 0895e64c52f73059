"""dataset/make_mini.py: small sets in both layouts, exact masks and boxes, the same bytes again."""

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from defusedxml.ElementTree import parse as parse_xml
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'dataset'))

import compositing
import make_mini
import mini_layouts
import prepare_imagenet
from compositing import compose, mask_box, overlap
from draw_birds import SPECIES_LIMIT, draw_bird, make_species
from mini_sources import make_samples

from utils.data.images import read_binary_mask, read_image
from utils.data.lists import read_cub_list, read_imagenet_list, read_wnids
from utils.errors import InputError

WNIDS = read_wnids(make_mini.WNIDS)
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


@pytest.fixture(scope='module')
def photos(tmp_path_factory) -> tuple:
    """Arguments for three discs on transparent ground and three plain photographs."""
    folder = tmp_path_factory.mktemp('photos')
    for part in ('cutouts', 'backgrounds'):
        (folder / part).mkdir()
    for k, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        disc = np.zeros((60, 60, 4), np.uint8)
        cv2.circle(disc, (30, 30), 25, (*colour, 255), -1)
        cv2.imwrite(str(folder / 'cutouts' / f'disc {k}.png'), disc)
        plain = np.full((80, 90, 3), 60 * k, np.uint8)
        cv2.imwrite(str(folder / 'backgrounds' / f'{k}.jpg'), plain)
    return '--cutouts', folder / 'cutouts', '--backgrounds', folder / 'backgrounds'


# ---------------------------------------------------------------- CUB layout


@pytest.mark.parametrize(('split', 'count'), [('train', TRAIN_COUNT), ('val', VAL_COUNT)])
def test_cub_lists_images_and_masks_agree(cub, split, count):
    images = read_cub_list(cub / f'{split}.txt', CLASSES)
    assert list(images.labels) == [label for label in range(CLASSES) for _ in range(count)]
    for name, (box,) in zip(images.names, images.boxes, strict=True):
        image = read_image(cub / 'image' / name)
        mask = read_binary_mask((cub / 'segmentation' / name).with_suffix('.png'))
        rows, columns = np.nonzero(mask)
        assert image.shape[:2] == mask.shape
        assert max(mask.shape) == SIZE
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert 0.02 < mask.mean() < 0.8


def test_nothing_but_the_layout_is_there(cub):
    per_class = 2 * CLASSES * (TRAIN_COUNT + VAL_COUNT)
    assert len(content(cub)) == per_class + len(['train.txt', 'val.txt', 'mini.json'])
    assert not list(cub.parent.glob('*.tmp'))


def test_the_same_arguments_give_the_same_bytes(cub, tmp_path):
    assert content(make(tmp_path / 'again')) == content(cub)


def test_an_image_does_not_depend_on_how_many_others_there_are(cub, tmp_path):
    fewer = content(make(tmp_path / 'fewer', '--classes', 2, '--train', 2, '--val', 1))
    images = {name for name in fewer if '/' in name}
    assert len(images) == 2 * 2 * 3
    assert {name: fewer[name] for name in images} == {name: content(cub)[name] for name in images}


def test_another_seed_gives_other_images(cub, tmp_path):
    other = content(make(tmp_path / 'other', '--seed', 1))
    assert not {name for name in other if other[name] == content(cub).get(name)}


def test_photographs_make_exact_masks(photos, tmp_path):
    out = make(tmp_path / 'mini', *photos, '--train', 1, '--val', 1)
    images = read_cub_list(out / 'train.txt', CLASSES)
    assert {name.split('/')[0][4:-2] for name in images.names} == {'disc'}
    for name, (box,) in zip(images.names, images.boxes, strict=True):
        mask = read_binary_mask((out / 'segmentation' / name).with_suffix('.png'))
        width, height = box[2:] - box[:2]
        assert abs(width - height) <= 1
        assert mask.sum() == pytest.approx(np.pi / 4 * width * height, rel=0.05)


def test_first_species_all_have_another_head():
    species = [make_species(label, np.random.default_rng(label)) for label in range(SPECIES_LIMIT)]
    heads = {(one.kind, *one.head) for one in species}
    assert len(heads) == SPECIES_LIMIT
    assert len({one.name for one in species}) == SPECIES_LIMIT


def test_a_bird_is_premultiplied_and_trimmed():
    rng = np.random.default_rng(0)
    bird = draw_bird(make_species(2, rng), 100, rng)
    assert (bird[..., :3] <= bird[..., 3:]).all()
    alpha = bird[..., 3]
    assert all(edge.any() for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]))


# ---------------------------------------------------------------- ImageNet layout


def test_imagenet_lists_name_the_images(imagenet):
    train = read_imagenet_list(imagenet / 'train.txt', CLASSES)
    assert list(train.names) == [f'{wnid}/{wnid}_{k + 1}.JPEG' for wnid in WNIDS[:CLASSES]
                                 for k in range(TRAIN_COUNT)]
    assert list(train.labels) == [label for label in range(CLASSES) for _ in range(TRAIN_COUNT)]
    val = read_imagenet_list(imagenet / 'val.txt', CLASSES)
    assert list(val.names) == [f'ILSVRC2012_val_{k + 1:08d}.JPEG'
                               for k in range(CLASSES * VAL_COUNT)]
    assert np.bincount(val.labels).tolist() == [VAL_COUNT] * CLASSES
    assert list(val.labels) != sorted(val.labels)
    for split, images in (('train', train), ('val', val)):
        for name in images.names:
            mask = read_binary_mask((imagenet / 'segmentation' / name).with_suffix('.png'))
            assert read_image(imagenet / split / name).shape[:2] == mask.shape


def test_imagenet_boxes_enclose_the_masks(imagenet):
    val = read_imagenet_list(imagenet / 'val.txt', CLASSES, boxes=imagenet / 'box', wnids=WNIDS)
    for name, boxes in zip(val.names, val.boxes, strict=True):
        mask = read_binary_mask((imagenet / 'segmentation' / name).with_suffix('.png'))
        rows, columns = np.nonzero(mask)
        assert [*boxes[:, :2].min(0), *boxes[:, 2:].max(0)] == [
            columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        inside = np.zeros_like(mask)
        for xmin, ymin, xmax, ymax in boxes.astype(int):
            inside[ymin:ymax, xmin:xmax] = True
        assert not mask[~inside].any()


def test_xml_has_the_elements_of_the_release(imagenet):
    root = parse_xml(imagenet / 'box' / 'ILSVRC2012_val_00000001.xml').getroot()
    image = read_image(imagenet / 'val' / 'ILSVRC2012_val_00000001.JPEG')
    assert [child.tag for child in root][:5] == ['folder', 'filename', 'source', 'size',
                                                 'segmented']
    assert root.findtext('filename') == 'ILSVRC2012_val_00000001'
    assert root.findtext('source/database') == 'ILSVRC_2012'
    assert [int(side.text) for side in root.find('size')] == [image.shape[1], image.shape[0], 3]
    assert [child.tag for child in root.find('object')] == ['name', 'pose', 'truncated',
                                                            'difficult', 'bndbox']
    assert [child.tag for child in root.find('object/bndbox')] == ['xmin', 'ymin', 'xmax', 'ymax']


def test_a_third_of_the_images_have_two_objects_that_hardly_overlap():
    background = np.full((90, 90, 3), 128, np.uint8)
    disc = np.zeros((30, 30, 4), np.uint8)
    cv2.circle(disc, (15, 15), 14, (200, 200, 200, 255), -1)

    class Discs:
        names = ('disc',)

        def cutout(self, label, rng):
            return disc

        def background(self, split, rng):
            return background

    masks = [sample.masks for sample in make_samples(Discs(), (150, 150), 48, 0, 1 / 3)]
    pairs = [pair for pair in masks if len(pair) == 2]
    assert {len(objects) for objects in masks} == {1, 2}
    assert 0.25 < len(pairs) / len(masks) < 0.42
    for first, second in pairs:
        assert not (first & second).any()
        assert overlap(mask_box(first), mask_box(second)) < 0.2
        side = np.subtract(mask_box(first)[2:], mask_box(first)[:2]).max()
        assert (first > 0).sum() > 0.7 * np.pi / 4 * side**2


def test_an_object_without_a_free_place_is_left_out(monkeypatch):
    monkeypatch.setattr(compositing, 'OBJECT_SCALE', {2: (0.94, 0.95)})
    disc = np.full((20, 20, 4), 255, np.uint8)
    _, masks = compose([disc, disc], np.zeros((40, 40, 3), np.uint8), 40,
                                 np.random.default_rng(0))
    assert len(masks) == 1
    assert masks[0].any()


SIDES = st.tuples(*[st.integers(0, 50)] * 2, *[st.integers(51, 100)] * 2)


@given(SIDES, SIDES)
def test_overlap_is_a_symmetric_share(a, b):
    assert 0 <= overlap(a, b) == overlap(b, a) <= 1
    assert overlap(a, a) == 1


def test_prepare_imagenet_makes_the_same_lists(imagenet, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['prepare_imagenet.py', '--source', str(imagenet), '--boxes',
                                      str(imagenet / 'box'), '--out', str(tmp_path / 'out')])
    prepare_imagenet.main()
    made, prepared = content(imagenet), content(tmp_path / 'out')
    for name in ('train.txt', 'val.txt', 'box/ILSVRC2012_val_00000001.xml'):
        assert prepared[name] == made[name]


# ---------------------------------------------------------------- replacing and bad input


def test_a_finished_set_is_kept_and_another_one_replaced(cub, tmp_path, capsys):
    out = Path(shutil.copytree(cub, tmp_path / 'mini'))
    before = (out / 'train.txt').stat().st_mtime_ns
    make(out)
    assert 'already there' in capsys.readouterr().out
    assert (out / 'train.txt').stat().st_mtime_ns == before
    make(out, '--classes', 1, '--train', 1, '--val', 1)
    assert len(content(out)) == 2 * 2 + 3
    assert json.loads((out / 'mini.json').read_text())['classes'] == 1


def test_an_interrupted_set_is_begun_anew(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    one = ('--classes', 1, '--train', 1, '--val', 1)
    with monkeypatch.context() as patch:
        patch.setattr(mini_layouts, 'write_image', interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / 'mini', *one)
    assert not (tmp_path / 'mini').exists()
    make(tmp_path / 'mini', *one)
    assert [path.name for path in tmp_path.iterdir()] == ['mini']


def test_a_folder_that_is_no_set_is_never_replaced(tmp_path):
    (tmp_path / 'thesis.txt').write_text('do not lose me')
    with pytest.raises(InputError, match='not a mini set'):
        make(tmp_path)
    assert content(tmp_path) == {'thesis.txt': b'do not lose me'}


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--size', 31], '--size 31'),
    (['--classes', 0], '--classes'),
    (['--seed', -1], '--seed'),
    (['--train', 'many'], '--train'),
    (['--classes', SPECIES_LIMIT + 1], f'only {SPECIES_LIMIT} birds'),
    (['--classes', 1001, '--layout', 'imagenet'], 'ImageNet has 1000'),
    (['--layout', 'voc'], '--layout'),
    (['--cutouts', 'here'], '--cutouts without --backgrounds'),
    (['--cutouts', 'here', '--backgrounds', 'there'], 'no such folder'),
])
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        make(tmp_path / 'mini', *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(('image', 'message'), [
    (np.full((9, 9, 3), 255, np.uint8), 'not an 8-bit RGBA PNG'),
    (np.full((9, 9, 4), 255, np.uint8), 'no transparent pixels'),
    (np.zeros((9, 9, 4), np.uint8), 'no opaque pixels'),
])
def test_a_bad_cutout_is_named(photos, tmp_path, image, message):
    cutouts = Path(shutil.copytree(photos[1], tmp_path / 'cutouts'))
    cv2.imwrite(str(cutouts / 'disc 1.png'), image)
    with pytest.raises(InputError, match=rf'disc 1\.png: {message}'):
        make(tmp_path / 'mini', '--cutouts', cutouts, *photos[2:])


def test_too_few_photographs(photos, tmp_path):
    with pytest.raises(InputError, match='at least 4'):
        make(tmp_path / 'mini', *photos, '--classes', 4)


def test_command_line(cub, run_script):
    code, printed, _ = run_script('dataset/make_mini.py', '--out', cub, *SMALL)
    assert code == 0
    assert 'already there' in printed
    code, _, errors = run_script('dataset/make_mini.py', '--out', cub, '--sise', 9)
    assert code == 2
    assert errors.count('\n') == 1
    code, printed, _ = run_script('dataset/make_mini.py', '--help')
    assert code == 0
    assert 'ILSVRC2012_val_<number>.JPEG' in printed
