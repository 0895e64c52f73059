"""spol.py: a picture through the networks by Python."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, complaint
from PIL import Image

import spol
from network import InputError
from spol import Prediction, as_rgb, load_spol

CLOSE = 2e-3  # of probabilities; untrained networks give large logits


def checkpoints(project: Path, *stages: str) -> dict[str, Path]:
    return {stage: project / f'cub200-{stage}' / 'out' / 'model-1' for stage in stages}


@pytest.fixture(scope='module')
def model(tiny_project):
    return load_spol(**checkpoints(tiny_project, 'cam', 'seg', 'cls'), device='cpu')


@pytest.fixture(scope='module')
def picture() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((120, 80)))


def with_map(picture, *boxes: tuple[int, int, int, int], threshold: float = 0.5) -> Prediction:
    """A prediction whose map is 1 in boxes of a 100 x 100 grid."""
    score_map = np.zeros((100, 100), np.float32)
    for x0, y0, x1, y1 in boxes:
        score_map[y0:y1, x0:x1] = 1
    return Prediction(picture, score_map, threshold)


# ---------------------------------------------------------------- predictions


def test_a_prediction_is_in_pixels_of_the_picture(model, picture):
    found = model(picture)
    assert found.cam.shape == found.mask.shape == picture.shape[:2]
    assert found.mask.dtype == bool
    assert 0 <= found.cam.min() <= found.cam.max() <= 1 + 1e-6
    assert found.classes[0][0] == model.class_names[found.label]
    assert sum(score for _, score in found.classes) == pytest.approx(1)
    assert found.at(1.0).box is None
    assert found.at(1.0).score is None
    assert found.overlay().shape == picture.shape


def test_objects_are_all_regions_of_one_percent(picture):
    """Regions of 16, 9, 1.44 and 0.64 % of the picture."""
    found = with_map(picture, (50, 50, 90, 90), (10, 10, 40, 40), (70, 10, 82, 22), (90, 2, 98, 10))
    assert [region.box for region in found.objects] == [
        pytest.approx(box, abs=1) for box in ((60, 40, 108, 72), (12, 8, 48, 32), (84, 8, 98, 18))]
    assert found.box == found.objects[0].box
    assert found.score == 1
    assert (found.overlay('all') != found.overlay()).any()
    assert with_map(picture).objects == []


def test_the_score_is_the_iou_of_the_boxes_at_nearby_thresholds(picture):
    """A box of 10 x 10 pixels around one of 5 x 10: stable where both thresholds lie on one side
    of it."""
    score_map = np.zeros((20, 20), np.float32)
    score_map[5:15, 5:15], score_map[5:15, 5:10] = 0.55, 0.9
    scores = [Prediction(picture, score_map, t).score for t in (0.3, 0.5, 0.7, 0.85)]
    assert scores == [1, 0.5, 1, 0]
    assert Prediction(picture, np.full((20, 20), 0.9999, np.float32), 0.995).score == 1


def test_the_class_of_the_cam_by_number_and_by_name(model, picture):
    best = model(picture)
    other = 1 - best.label
    name = model.class_names[other]
    by_number, by_name = model(picture, other), model(picture, name)
    assert by_number.asked == by_name.asked
    assert by_number.asked[0] == name
    assert by_number.classes == best.classes
    np.testing.assert_array_equal(by_number.cam, by_name.cam)
    assert f'{name} ' in by_name.caption
    assert '(best: ' in by_name.caption


@pytest.mark.parametrize('label', [-1, 2, 1.5, 'wasp'])
def test_a_class_that_is_not_known(model, picture, label):
    assert f'no class {label!r}: give 0 to 1, or one of' in complaint(model, picture, label)


@pytest.mark.parametrize('stages', [('cam',), ('seg',), ('seg', 'cls'), ('cam', 'seg')])
def test_each_network_may_be_missing(tiny_project, picture, stages):
    model = load_spol(**checkpoints(tiny_project, *stages), device='cpu')
    found = model(picture)
    assert (found.cam is None) == ('cam' not in stages)
    assert (found.label is None) == (not found.classes) == (stages == ('seg',))
    if 'cam' not in stages:
        assert 'load a CAM network' in complaint(model, picture, 0)


@pytest.mark.parametrize('label', [None, 1])
def test_a_list_is_as_picture_after_picture(model, picture, label):
    pictures = [np.roll(picture, 5 * k, axis=1)[:60 + k] for k in range(11)]
    for image, found in zip(pictures, model(pictures, label), strict=True):
        alone = model(image, label)
        np.testing.assert_array_equal(found.image, image)
        np.testing.assert_allclose(found.score_map, alone.score_map, atol=CLOSE)
        np.testing.assert_allclose(found.cam, alone.cam, atol=CLOSE)
        assert found.classes[0][1] == pytest.approx(alone.classes[0][1], abs=CLOSE)


def test_a_picture_that_cannot_be_read_keeps_its_place(model, picture, tmp_path):
    paths = [tmp_path / f'{k}.png' for k in range(4)]
    for path in paths[:3]:
        Image.fromarray(picture).save(path)
    paths[1].write_bytes(paths[1].read_bytes()[:100])
    assert [type(found) for found in model.predict(paths)] == [
        Prediction, InputError, Prediction, InputError]
    assert '1.png' in complaint(model, paths)


# ---------------------------------------------------------------- pictures


def test_pictures_of_all_kinds_are_the_same_picture(picture, tmp_path):
    """Upright ones: an EXIF orientation is applied."""
    path, exif = tmp_path / 'photo.png', Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    turned = Image.fromarray(np.rot90(picture))
    turned.save(path, exif=exif)
    rgba = np.dstack([picture, np.full(picture.shape[:2], 7, np.uint8)])
    for given in (path, str(path), Image.open(path), picture, rgba, Image.fromarray(picture)):
        np.testing.assert_array_equal(as_rgb(given), picture)
    for grey in (picture[..., 0], Image.fromarray(picture[..., 0])):
        np.testing.assert_array_equal(as_rgb(grey), picture[..., [0, 0, 0]])


@pytest.mark.parametrize('thing', [
    None, b'photo', 3, torch.zeros(3, 8, 9), Image.new('I', (9, 8)), Image.new('F', (9, 8)),
    Image.new('I;16', (9, 8)),
    *(np.zeros(shape, np.uint8) for shape in [(3, 8, 9), (8, 9, 2), (0, 0), (9,), (1, 8, 9, 3)]),
    *(np.zeros((8, 9, 3), kind) for kind in (np.float32, np.uint16, bool))])
def test_things_that_are_no_pictures(thing):
    assert 'is not a picture' in complaint(as_rgb, thing)


# ---------------------------------------------------------------- loading


@pytest.mark.parametrize(('arguments', 'message'), [
    ({'threshold': -0.1}, 'from 0 to 1'), ({'threshold': 20}, 'from 0 to 1'),
    ({'threshold': float('nan')}, 'from 0 to 1'), ({'cam': 'missing'}, 'missing'),
    ({'model': 'birds'}, 'without cam and seg'), ({'cam': None}, 'give cam or seg')])
def test_what_is_wrong_is_said_in_a_line(tiny_project, arguments, message):
    given = {**checkpoints(tiny_project, 'cam'), 'device': 'cpu', **arguments}
    assert message in complaint(load_spol, **given)


def test_networks_of_different_classes(project):
    paths = checkpoints(project, 'cam', 'seg')
    record = paths['seg'].with_name('model-1.json')
    record.write_text(record.read_text().replace('bee', 'wasp'))
    assert 'trained on different classes' in complaint(load_spol, **paths, device='cpu')


def test_the_file_beside_a_checkpoint_describes_it(project, capsys):
    """Without the threshold of another checkpoint's test, in results.json."""
    cam = checkpoints(project, 'cam')['cam']
    cam.with_name('model-1.json').write_text(json.dumps(
        {'backbone': TINY, 'resize': 64, 'threshold': 0.8, 'class_names': ['ant']}))
    model = load_spol(cam=cam, device='cpu')
    assert model.class_names == ['ant', 'class 1']
    assert (model.resize, model.threshold) == (64, 0.8)
    assert capsys.readouterr().err == ''
    cam.with_name('model-1.json').unlink()
    cam.with_name('results.json').write_text(json.dumps({'arguments': {'threshold': 0.7}}))
    model = load_spol(cam=cam, backbone=TINY, device='cpu')
    assert (model.resize, model.threshold) == (256, 0.2)
    assert 'has no model-1.json beside it: the settings are backbone' in capsys.readouterr().err


def test_networks_of_drawn_birds_are_named(project, capsys):
    cam = checkpoints(project, 'cam')['cam']
    record = cam.with_name('model-1.json')
    record.write_text(json.dumps({**json.loads(record.read_text()), 'datapath': str(project)}))
    (project / 'mini.json').write_text(json.dumps({'drawn': True}))
    load_spol(cam=cam, device='cpu')
    assert 'neither their boxes nor their classes' in capsys.readouterr().err


def test_a_shipped_model_is_float16_by_name(tiny_project, picture, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    monkeypatch.setattr(spol, 'SHIPPED', tmp_path)
    assert "model 'birds': give one of resource/ (none)" in complaint(load_spol, 'birds')
    (tmp_path / 'birds').mkdir()
    paths = checkpoints(tiny_project, 'cam', 'seg')
    for stage, path in paths.items():
        state = torch.load(path, weights_only=True)
        save_file({name: value.half() if value.is_floating_point() else value
                   for name, value in state.items()}, tmp_path / 'birds' / f'{stage}.safetensors')
        shutil.copy(path.with_name('model-1.json'), tmp_path / 'birds' / f'{stage}.json')
    model = load_spol('birds', device='cpu')
    assert (model.class_names, model.resize) == (['ant', 'bee'], 40)
    expected = load_spol(**paths, device='cpu')(picture)
    np.testing.assert_allclose(model(picture).score_map, expected.score_map, atol=0.05)


def test_values_that_are_not_finite(tiny_project, picture, monkeypatch):
    model = load_spol(**checkpoints(tiny_project, 'seg'), device='cpu')
    monkeypatch.setattr(model, 'seg', lambda batch: torch.full((len(batch), 1, 5, 5), torch.nan))
    assert 'not finite' in complaint(model, picture)


# ---------------------------------------------------------------- beside other modules


@pytest.mark.parametrize('program', [
    'from spol import load_spol; import utils',
    'import utils; from spol import load_spol; import network'])
def test_a_caller_with_modules_of_the_same_names(tiny_project, tmp_path, program):
    """The caller's modules stay the caller's, and ours work."""
    for name in ('utils', 'network'):
        (tmp_path / f'{name}.py').write_text('mine = 1')
    seg = checkpoints(tiny_project, 'seg')['seg']
    (tmp_path / 'mine.py').write_text(
        f'{program}\nassert utils.mine\nimport numpy\n'
        f'model = load_spol(seg={str(seg)!r}, device="cpu")\n'
        'print(model(numpy.zeros((40, 50, 3), "u1")).score_map.shape)\n'
        'import network\nassert network.mine')
    result = subprocess.run([sys.executable, 'mine.py'], cwd=tmp_path, capture_output=True,
                            text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert result.stdout == '(40, 40)\n', result.stderr
