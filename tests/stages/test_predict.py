"""A picture through the whole chain, by Python and by tools/predict.py."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import TINY, png_header
from PIL import Image
from pycocotools.coco import COCO

from network import CamNet, InputError, SegNet, build_classifier
from spol import as_rgb, load_spol
from tools.judge.score_maps import find_score_map
from tools.predictions import part_in_box, run_lengths
from utils.arguments import ROOT
from utils.data.images import BadImageError, read_image
from utils.engine.inference import Predictor
from utils.outputs.drawing import GAP, TITLE_HEIGHT
from utils.outputs.files import write_png
from utils.outputs.results import newest_checkpoint

CLASSES = 4
NAMES = ['ant', 'bee', 'cat', 'dog']
CLOSE = 2e-3  # of probabilities; untrained networks give logits up to 80


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Checkpoints of untrained networks, with the results.json of their runs, and a photo."""
    folder = tmp_path_factory.mktemp('predict')
    torch.manual_seed(0)
    networks = {'cam': CamNet(CLASSES, TINY, pretrained='none'),
                'seg': SegNet(TINY, pretrained='none'),
                'cls': build_classifier(TINY, CLASSES, 'none')}
    for stage, network in networks.items():
        (folder / stage).mkdir()
        torch.save(network.state_dict(), folder / stage / 'model-1')
        (folder / stage / 'results.json').write_text(json.dumps({'training': {'arguments': {
            'backbone' if stage != 'cls' else 'arch': TINY, 'resize': 96}}}))
    photo = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    cv2.imwrite(str(folder / 'photo.jpg'), cv2.resize(photo, (120, 80))[..., ::-1])
    return folder


def checkpoint(folder, stage):
    return folder / stage / 'model-1'


@pytest.fixture(scope='module')
def model(folder):
    return load_spol(**{stage: checkpoint(folder, stage) for stage in ('cam', 'seg', 'cls')},
                     class_names=NAMES, device='cpu')


def test_a_prediction_is_in_pixels_of_the_picture(model, folder):
    result = model(folder / 'photo.jpg')
    assert result.image.shape == (80, 120, 3)
    assert result.cam.shape == result.mask.shape == (80, 120)
    assert result.mask.dtype == bool
    assert 0 <= result.cam.min() <= result.cam.max() <= 1 + 1e-6
    assert result.classes[0] == (NAMES[result.label], result.score)
    assert sum(score for _, score in result.classes) == pytest.approx(1)
    for threshold in (0.0, 0.3, 0.5):
        box = result.at(threshold).box
        if box:
            x0, y0, x1, y1 = box
            assert 0 <= x0 < x1 <= 120
            assert 0 <= y0 < y1 <= 80
    assert result.at(1.0).box is None
    assert result.draw().shape[2] == 3


def test_the_box_encloses_the_largest_part_of_the_map(model, folder):
    score_map = np.zeros((96, 96), np.float32)
    score_map[24:72, 48:96] = 1
    result = model(folder / 'photo.jpg')
    result = type(result)(result.image, score_map, 0.5)
    assert result.box == pytest.approx((60, 20, 120, 60))


def test_pictures_of_a_prediction(model, folder, tmp_path):
    result = model(folder / 'photo.jpg')
    assert list(result.views()) == ['image', 'fused CAM', 'Gaussian prior', 'probability', 'mask',
                                    'box']
    assert result.prior.shape == (80, 120)
    assert result.overlay().shape == (80, 120, 3)
    result.save(tmp_path / 'overlay.png')
    np.testing.assert_array_equal(read_image(tmp_path / 'overlay.png'), result.overlay())
    with pytest.raises(InputError, match=r'end the name with .png'):
        result.save(tmp_path / 'overlay.jpg')
    cam_alone = replace(result, score_map=result.cam_map)
    assert 'probability' not in cam_alone.views()
    assert model.settings['seg']['checkpoint'] == str(checkpoint(folder, 'seg'))
    assert str(checkpoint(folder, 'cam')) in repr(model)
    assert '\n' not in repr(model) + repr(result)
    assert len(repr(result)) < 200


def test_the_class_of_the_cam_by_number_and_by_name(model, folder):
    best = model(folder / 'photo.jpg')
    other = 1 + best.label if best.label < CLASSES - 1 else 0
    by_number, by_name = (model(folder / 'photo.jpg', which) for which in (other, NAMES[other]))
    assert by_number.asked == by_name.asked
    assert by_number.asked[0] == NAMES[other]
    assert by_number.classes == best.classes
    assert best.asked is None
    np.testing.assert_array_equal(by_number.cam, by_name.cam)
    assert by_name.caption.startswith(f'{NAMES[other]} ')
    assert f'(best: {NAMES[best.label]} ' in by_name.caption


@pytest.mark.parametrize('label', [-1, CLASSES, 1.5, 'caat'])
def test_a_class_that_is_not_known(model, folder, label):
    with pytest.raises(InputError, match=f'no class {label!r}: give 0 to 3, or one of'):
        model(folder / 'photo.jpg', label)


def test_a_class_needs_a_cam(folder):
    model = load_spol(seg=checkpoint(folder, 'seg'), device='cpu')
    with pytest.raises(InputError, match='load a CAM network'):
        model(folder / 'photo.jpg', 0)


@pytest.mark.parametrize('threshold', [-0.1, 1.1, 20, float('nan')])
def test_a_threshold_out_of_range(model, folder, threshold):
    with pytest.raises(InputError, match='from 0 to 1'):
        model(folder / 'photo.jpg').at(threshold)
    with pytest.raises(InputError, match='from 0 to 1'):
        load_spol(seg=checkpoint(folder, 'seg'), threshold=threshold)


def test_pictures_of_all_kinds_are_the_same_picture(model, folder):
    path = folder / 'photo.jpg'
    image = model(path).image
    rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    for picture in (str(path), image, rgba, Image.fromarray(image)):
        found = model(picture)
        np.testing.assert_array_equal(found.image, image)
        np.testing.assert_allclose(found.score_map, model(path).score_map, atol=1e-6)
    grey = model(image[..., 0])
    assert grey.image.shape == image.shape
    assert [r.label for r in model([path, image])] == [model(path).label] * 2
    np.testing.assert_array_equal(model(image[..., :1]).image, grey.image)
    assert len(model((path, image))) == 2


@pytest.mark.parametrize('shape', [(3, 8, 9), (8, 9, 2), (8, 9, 5), (0, 0), (0, 9, 3), (9,),
                                   (1, 8, 9, 3)])
def test_arrays_that_are_no_pictures(shape):
    with pytest.raises(InputError, match='is not an image: give uint8'):
        as_rgb(np.zeros(shape, np.uint8))


@pytest.mark.parametrize('kind', [np.float32, np.uint16, bool])
def test_arrays_of_other_numbers(kind):
    with pytest.raises(InputError, match='is not an image: give uint8'):
        as_rgb(np.zeros((8, 9, 3), kind))


@pytest.mark.parametrize('thing', [None, b'photo', 3, torch.zeros(3, 8, 9)])
def test_things_that_are_no_pictures(thing):
    with pytest.raises(InputError, match='is not a picture: give a path'):
        as_rgb(thing)


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGBA', 'CMYK', 'YCbCr', 'I;16'])
def test_pil_images_are_as_their_files(mode, tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    if mode == 'I;16':
        image = Image.fromarray(levels[..., 0].astype(np.uint16) * 256 + 77)
    else:
        image = Image.fromarray(levels).convert('RGB').convert(
            mode if mode != 'LA' else 'L').convert(mode)
    path = tmp_path / ('a.tif' if mode in ('CMYK', 'YCbCr') else 'a.png')
    image.save(path)
    close = 40 if mode in ('CMYK', 'YCbCr') else 1
    assert np.abs(as_rgb(image).astype(int) - as_rgb(path)).max() <= close


@pytest.mark.parametrize('mode', ['I', 'F'])
def test_pil_images_without_a_range(mode):
    with pytest.raises(InputError, match=f'mode {mode} has no known range'):
        as_rgb(Image.new(mode, (9, 8)))


def test_a_damaged_pil_image(folder, tmp_path):
    path = tmp_path / 'damaged.jpg'
    path.write_bytes((folder / 'photo.jpg').read_bytes()[:900])
    with pytest.raises(BadImageError, match='PIL image cannot be decoded'):
        as_rgb(Image.open(path))
    with pytest.raises(BadImageError) as error:
        as_rgb(path)
    assert '--skip_bad' not in str(error.value)


def test_a_lack_of_memory_is_not_a_bad_picture(model, monkeypatch, folder):
    def read(path):
        raise InputError('out of memory') from MemoryError()

    monkeypatch.setattr('spol.read_upright_image', read)
    with pytest.raises(InputError, match='out of memory'):
        list(model.predict([folder / 'photo.jpg']))


def test_values_that_are_not_finite(folder, tmp_path):
    state = torch.load(checkpoint(folder, 'seg'), weights_only=True)
    name = next(name for name, value in state.items() if value.is_floating_point())
    state[name][:] = float('nan')
    torch.save(state, tmp_path / 'model-1')
    with pytest.raises(InputError, match='finite'):
        load_spol(seg=tmp_path / 'model-1', backbone=TINY, resize=96,
                  device='cpu')(folder / 'photo.jpg')


@pytest.fixture
def many(folder, tmp_path):
    """Twenty different pictures of different sizes."""
    photo = cv2.imread(str(folder / 'photo.jpg'))
    paths = [tmp_path / f'{number:02}.png' for number in range(20)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), np.roll(photo, 5 * number, axis=1)[:60 + number])
    return paths


@pytest.mark.parametrize('stages', [('cam', 'seg', 'cls'), ('cam',)])
@pytest.mark.parametrize('label', [None, 2])
def test_a_list_is_as_picture_after_picture(folder, many, stages, label):
    model = load_spol(**{stage: checkpoint(folder, stage) for stage in stages}, device='cpu')
    for path, found in zip(many, model(many, label), strict=True):
        alone = model(path, label)
        np.testing.assert_array_equal(found.image, alone.image)
        np.testing.assert_allclose(found.score_map, alone.score_map, atol=CLOSE)
        np.testing.assert_allclose(found.cam, alone.cam, atol=CLOSE)
        assert found.label == alone.label
        np.testing.assert_allclose([score for _, score in found.classes],
                                   [score for _, score in alone.classes], atol=CLOSE)


@pytest.fixture
def batches(monkeypatch):
    """The sizes of all batches that a network has seen."""
    sizes, call = [], Predictor.__call__
    monkeypatch.setattr(Predictor, '__call__', lambda predictor, images, *more:
                        (sizes.append(len(images)), call(predictor, images, *more))[1])
    return sizes


def test_pictures_run_in_batches_except_huge_ones(folder, many, batches, monkeypatch):
    model = load_spol(seg=checkpoint(folder, 'seg'), device='cpu')
    together = list(model.predict(many))
    assert batches == [20]
    batches.clear()
    monkeypatch.setattr('spol.MOST_HELD', 3 * 120 * 80)
    apart = list(model.predict(many))
    assert batches == [4] * 5  # the fourth picture of 120 x 60 and more exceeds the bound
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.score_map, other.score_map, atol=CLOSE)


def test_a_picture_that_cannot_be_read_keeps_its_place(model, many, folder):
    many[3].write_bytes(many[3].read_bytes()[:100])
    many[7].unlink()
    found = list(model.predict(many))
    assert [number for number, one in enumerate(found) if isinstance(one, InputError)] == [3, 7]
    assert [one.image.shape[0] for one in found if not isinstance(one, InputError)] == [
        60 + number for number in range(20) if number not in (3, 7)]
    assert list(map(type, model.predict([many[3]]))) == [BadImageError]
    with pytest.raises(BadImageError, match=r'03.png cannot be read'):
        model(many)


def test_an_exif_rotation_is_applied(model, folder, tmp_path):
    image = Image.open(folder / 'photo.jpg')
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / 'turned.jpg', exif=exif)
    assert model(tmp_path / 'turned.jpg').image.shape == (120, 80, 3)
    assert model(Image.open(tmp_path / 'turned.jpg')).image.shape == (120, 80, 3)


@pytest.mark.parametrize('stages', [('cam',), ('seg',), ('seg', 'cls'), ('cam', 'seg')])
def test_each_network_may_be_missing(folder, stages):
    model = load_spol(**{stage: checkpoint(folder, stage) for stage in stages}, device='cpu')
    result = model(folder / 'photo.jpg')
    assert (result.cam is None) == ('cam' not in stages)
    assert (result.label is None) == (stages == ('seg',))
    if result.label is not None:
        assert result.classes[0][0] == f'class {result.label}'


def test_without_cam_and_seg_there_is_nothing_to_localize_with(folder):
    with pytest.raises(InputError, match='a box needs a CAM or a segmentation'):
        load_spol(cls=checkpoint(folder, 'cls'))


def test_the_program_writes_predictions_masks_and_pictures(run_script, folder, tmp_path):
    (tmp_path / 'in' / 'deep').mkdir(parents=True)
    for name in ('a.jpg', 'deep/b.JPG'):
        (tmp_path / 'in' / name).write_bytes((folder / 'photo.jpg').read_bytes())
    (tmp_path / 'in' / 'notes.txt').write_text('not an image')
    (tmp_path / 'in' / '._a.jpg').write_bytes(b'Mac')
    (tmp_path / 'in' / 'deep' / 'loop').symlink_to(tmp_path / 'in')
    flags = [part for stage in ('cam', 'seg', 'cls')
             for part in (f'--{stage}', checkpoint(folder, stage))]
    code, out, err = run_script('tools/predict.py', tmp_path / 'in', *flags, '--out',
                                tmp_path / 'out', '--draw', '--save_maps', '--device', 'cpu')
    assert code == 0, err
    assert str(checkpoint(folder, 'seg')) in out
    assert str(tmp_path / 'out' / 'sheet.png') in out
    assert '1 files that are not images by their names' in out
    assert '1 hidden files' in out
    assert '1 links to folders that are there already' in out
    settings = json.loads((tmp_path / 'out' / 'settings.json').read_text())
    assert settings['cam']['checkpoint'] == str(checkpoint(folder, 'cam'))
    assert (settings['resize'], settings['threshold']) == (96, 0.2)
    assert 'torch' in settings['versions']
    lines = [json.loads(line) for line in
             (tmp_path / 'out' / 'predictions.jsonl').read_text().splitlines()]
    assert [line['file'] for line in lines] == [str(tmp_path / 'in' / 'a.jpg'),
                                                str(tmp_path / 'in' / 'deep' / 'b.JPG')]
    assert (lines[0]['width'], lines[0]['height']) == (120, 80)
    assert lines[1]['name'] == 'deep/b.JPG'
    assert lines[1]['mask'] == 'masks/deep/b.JPG.png'
    score_map = np.load(find_score_map(tmp_path / 'out' / 'maps', 'deep/b.JPG'))
    assert score_map.shape == (96, 96)
    assert score_map.dtype == np.float32
    assert cv2.imread(str(tmp_path / 'out' / 'overlays' / 'a.jpg.png')).shape == (80, 120, 3)
    for kind in ('masks', 'cams'):
        image = cv2.imread(str(tmp_path / 'out' / kind / 'deep' / 'b.JPG.png'),
                           cv2.IMREAD_UNCHANGED)
        assert image.shape == (80, 120)
        assert kind == 'cams' or set(np.unique(image)) <= {0, 255}
    assert (tmp_path / 'out' / 'pictures' / 'a.jpg.png').is_file()
    sheet = cv2.imread(str(tmp_path / 'out' / 'sheet.png'))
    assert sheet.shape[0] == TITLE_HEIGHT + 2 * (160 + TITLE_HEIGHT + GAP)  # one header


def test_the_program_reports_bad_files_and_goes_through_the_rest(run_script, folder, many,
                                                                  tmp_path):
    whole = (folder / 'photo.jpg').read_bytes()
    (tmp_path / '00.jpg').write_bytes(whole[:200])
    (tmp_path / '10.jpg').symlink_to(tmp_path / 'nothing.jpg')
    (tmp_path / '19.jpg').write_bytes(whole)
    (tmp_path / 'huge.png').write_bytes(png_header(20_000, 20_000))
    code, out, err = run_script('tools/predict.py', tmp_path, '--seg', checkpoint(folder, 'seg'),
                                '--out', tmp_path / 'out', '--device', 'cpu')
    assert code == 1
    assert '3 files cannot be read' in err
    assert all(f'{tmp_path}/{name}' in err for name in ('00.jpg', '10.jpg', 'huge.png'))
    assert '--skip_bad' not in err
    assert 'wrote 21 predictions' in out
    lines = (tmp_path / 'out' / 'predictions.jsonl').read_text().splitlines()
    assert [Path(json.loads(line)['file']).name for line in lines] == sorted(
        ['19.jpg', *(path.name for path in many)])


def test_the_program_without_checkpoints_names_the_demo(run_script, tmp_path, monkeypatch):
    import utils.arguments

    monkeypatch.setattr(utils.arguments, 'ROOT', tmp_path)
    code, _, err = run_script('tools/predict.py', tmp_path)
    assert code == 2
    assert 'run demo.sh first' in err


@pytest.fixture
def three_pictures(folder, tmp_path):
    (tmp_path / 'in').mkdir()
    for name in 'abc':
        (tmp_path / 'in' / f'{name}.jpg').write_bytes((folder / 'photo.jpg').read_bytes())
    return tmp_path / 'in'


def predict_all(run_script, folder, pictures, out, *flags):
    stages = [part for stage in ('cam', 'cls')
              for part in (f'--{stage}', checkpoint(folder, stage))]
    return run_script('tools/predict.py', pictures, *stages, '--out', out, '--device', 'cpu',
                      *flags)


@pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')
def test_coco_is_read_by_pycocotools(run_script, folder, three_pictures, tmp_path):
    out = tmp_path / 'out'
    code, _, err = predict_all(run_script, folder, three_pictures, out, '--format', 'coco',
                               '--threshold', 0.3)
    assert code == 0, err
    coco = COCO(str(out / 'predictions.json'))
    assert [image['width'] for image in coco.imgs.values()] == [120] * 3
    assert [image['file_name'] for image in coco.imgs.values()] == ['a.jpg', 'b.jpg', 'c.jpg']
    for annotation in coco.anns.values():
        name = coco.imgs[annotation['image_id']]['file_name']
        mask = cv2.imread(str(out / 'masks' / f'{name}.png'), cv2.IMREAD_GRAYSCALE) > 0
        part = coco.annToMask(annotation) > 0
        assert not (part & ~mask).any()
        assert annotation['area'] == part.sum() > 0
        x, y, width, height = annotation['bbox']
        np.testing.assert_allclose(cv2.boundingRect(part.astype(np.uint8)), (x, y, width, height),
                                   atol=2 * 120 / 96)


def test_the_part_of_a_mask_in_a_box():
    mask = np.zeros((20, 30), bool)
    mask[2:8, 2:8] = mask[10:18, 12:28] = True
    part = part_in_box(mask, (11.6, 9.7, 28.2, 18))
    assert part.sum() == 8 * 16
    assert not part[:9].any()
    assert not part_in_box(mask, None).any()
    assert part_in_box(mask, (2, 2, 8, 8)).sum() == 36


def test_run_lengths_go_down_the_columns():
    mask = np.array([[True, False], [True, True], [False, True]])
    assert run_lengths(mask) == {'size': [3, 2], 'counts': [0, 2, 2, 2]}
    assert run_lengths(~mask)['counts'] == [2, 2, 2]


def test_csv_has_a_line_for_each_picture(run_script, folder, three_pictures, tmp_path):
    code, _, err = predict_all(run_script, folder, three_pictures, tmp_path / 'out', '--format',
                               'csv')
    assert code == 0, err
    lines = (tmp_path / 'out' / 'predictions.csv').read_text().splitlines()
    assert lines[0].startswith('file,width,height,x0')
    assert [Path(line.split(',')[0]).name for line in lines[1:]] == ['a.jpg', 'b.jpg', 'c.jpg']


@pytest.fixture
def interrupted(run_script, folder, three_pictures, tmp_path, monkeypatch):
    """interrupted(*flags): the output folder of a run that was killed while it wrote its second
    record, and what the whole run has written."""
    def run(*flags):
        out = tmp_path / 'out'
        with monkeypatch.context() as patch:
            patch.setattr('tools.predictions.PredictionWriter.finish',
                          lambda writer: writer.path)
            predict_all(run_script, folder, three_pictures, out, *flags)
        part = out / '.predictions.jsonl.part'
        settings, *records = part.read_text().splitlines(keepends=True)
        part.write_text(settings + records[0] + records[1][:30])
        return out, ''.join(records)

    return run


def test_an_interrupted_run_is_continued(run_script, folder, three_pictures, interrupted):
    out, whole = interrupted('--draw')
    sheet = cv2.imread(str(out / 'sheet.png'))
    for path in (out / 'masks').iterdir():
        path.unlink()
    code, stdout, err = predict_all(run_script, folder, three_pictures, out, '--draw')
    assert code == 0, err
    assert 'wrote 3 predictions' in stdout
    assert (out / 'predictions.jsonl').read_text() == whole
    assert sorted(path.name for path in (out / 'masks').iterdir()) == ['b.jpg.png', 'c.jpg.png']
    again = cv2.imread(str(out / 'sheet.png'))
    assert again.shape == sheet.shape
    assert (again == sheet).mean() > 0.99  # batches of other sizes
    assert not (out / '.predictions.jsonl.part').exists()


def test_other_settings_do_not_continue_a_run(run_script, folder, three_pictures, interrupted):
    out, _ = interrupted()
    code, _, err = predict_all(run_script, folder, three_pictures, out, '--threshold', 0.5)
    assert code == 2
    assert 'belongs to a run with other settings' in err


def test_other_pictures_do_not_continue_a_run(run_script, folder, three_pictures, interrupted):
    out, _ = interrupted()
    (three_pictures / 'a.jpg').rename(three_pictures / 'd.jpg')
    code, _, err = predict_all(run_script, folder, three_pictures, out)
    assert code == 2
    assert 'belongs to a run on other pictures' in err


def test_the_output_folder_is_not_that_of_the_pictures(run_script, folder, three_pictures):
    code, _, err = predict_all(run_script, folder, three_pictures, three_pictures)
    assert code == 2
    assert 'is the folder of the pictures' in err


def test_a_checkpoint_is_described_by_the_file_beside_it(folder, tmp_path):
    """Without the run's folder."""
    (tmp_path / 'model-1').write_bytes(checkpoint(folder, 'cam').read_bytes())
    (tmp_path / 'model-1.json').write_text(json.dumps(
        {'backbone': TINY, 'resize': 64, 'threshold': 0.8, 'class_names': ['ant', 'bee', 'zebra']}))
    model = load_spol(cam=tmp_path / 'model-1', device='cpu')
    assert model.class_names == ['ant', 'bee', 'zebra', 'class 3']
    assert (model.resize, model.threshold) == (64, 0.8)


@pytest.mark.parametrize('record', [
    {'class_names': 5}, {'class_names': {'ant': 0}}, {'resize': 'big', 'threshold': [0.2]},
    {'backbone': 50, 'datapath': 7}])
def test_what_is_recorded_wrongly_is_not_used(folder, tmp_path, record):
    (tmp_path / 'model-1').write_bytes(checkpoint(folder, 'cam').read_bytes())
    (tmp_path / 'model-1.json').write_text(json.dumps({'backbone': TINY, **record}))
    (tmp_path / 'results.json').write_text(json.dumps({'training': 3, 'arguments': []}))
    model = load_spol(cam=tmp_path / 'model-1', device='cpu', backbone=TINY)
    assert (model.resize, model.threshold) == (256, 0.2)
    assert model.class_names[0] == 'class 0'


def test_the_classifier_has_its_own_size(folder, tmp_path):
    (tmp_path / 'cls').write_bytes(checkpoint(folder, 'cls').read_bytes())  # no results.json
    model = load_spol(seg=checkpoint(folder, 'seg'), cls=tmp_path / 'cls', arch=TINY, resize=64,
                      device='cpu')
    inputs = model._read(folder / 'photo.jpg')
    assert inputs.image.shape == (64, 64, 3)
    assert inputs.cls_image.shape == (685, 685, 3)


@pytest.mark.parametrize(('stage', 'other', 'message'), [
    ('cam', 'cls', 'is not a checkpoint of the cam stage'),
    ('cam', 'seg', 'has one class, as those of the seg stage'),
    ('cls', 'seg', 'is not a checkpoint of timm/.*architecture')])
def test_a_checkpoint_of_another_stage_is_named(folder, stage, other, message):
    with pytest.raises(InputError, match=f'model-1 {message}'):
        load_spol(**{'seg': checkpoint(folder, 'seg'), stage: checkpoint(folder, other)},
                  arch=TINY, device='cpu')


def test_paths_of_one_name_are_refused(run_script, three_pictures):
    code, _, err = run_script('tools/predict.py', three_pictures, three_pictures)
    assert code == 2
    assert 'two of the paths are called in' in err


def test_the_newest_checkpoint_is_that_of_the_run(tmp_path):
    def checkpoints(*numbers):
        """Their times fall, as after a copy."""
        for number in numbers:
            (tmp_path / f'model-{number}').touch()
            os.utime(tmp_path / f'model-{number}', (10**9 - number, 10**9 - number))

    def record(steps, epoch):
        (tmp_path / 'results.json').write_text(json.dumps(
            {'training': {'steps': steps, 'arguments': {'epoch': epoch}}}))

    assert newest_checkpoint(tmp_path) is None
    checkpoints(9, 10, 11, 12)
    (tmp_path / 'model-12.json').touch()
    assert newest_checkpoint(tmp_path).name == 'model-12'
    record(800, 12)
    checkpoints(20)  # of an earlier, longer run
    assert newest_checkpoint(tmp_path).name == 'model-12'
    record(6000, 20)  # on ImageNet, N counts steps
    checkpoints(4000, 6000, 8000)
    assert newest_checkpoint(tmp_path).name == 'model-6000'


@pytest.mark.parametrize('suffix', sorted(
    ['.jpg', '.jpe', '.jfif', '.apng', '.webp', '.gif', '.bmp', '.tiff', '.jp2', '.ppm', '.pgm']))
def test_pictures_of_all_formats_are_found_in_folders_and_read(script, suffix, tmp_path):
    Image.new('RGB', (30, 20), (200, 30, 30)).save(tmp_path / f'a{suffix.upper()}')
    (file, name), = script.Pictures([tmp_path], tmp_path / 'out')
    assert name == Path(f'a{suffix.upper()}')
    assert as_rgb(file).shape == (20, 30, 3)


@pytest.fixture(scope='module')
def script():
    """tools/predict.py as a module."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / 'tools' / 'predict.py')))


def test_links_are_followed_and_hidden_folders_are_not(script, tmp_path):
    for name in ('in/a/1.jpg', 'in/.ipynb_checkpoints/2.jpg', 'elsewhere/3.jpg', 'in/out/4.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'in' / 'link').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere' / 'back').symlink_to(tmp_path / 'in')
    (tmp_path / 'in' / 'again').symlink_to(tmp_path / 'in' / 'a')
    pictures = script.Pictures([tmp_path / 'in'], tmp_path / 'in' / 'out')
    assert [str(name) for _, name in pictures] == ['a/1.jpg', 'link/3.jpg']
    assert pictures.left_out() == (
        ' (left out: 1 hidden folders, 2 links to folders that are there already)')


def test_a_folder_without_pictures(run_script, folder, tmp_path):
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'notes.txt').touch()
    code, _, err = run_script('tools/predict.py', tmp_path / 'in', '--seg',
                              checkpoint(folder, 'seg'), '--out', tmp_path / 'out')
    assert code == 2
    assert 'no pictures in' in err
    assert '1 files that are not images' in err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('length', [200, 240, 251, 252, 255])
def test_long_names(script, length, tmp_path):
    name = Path('ü' * ((length - 5) // 2) + 'x' * ((length - 5) % 2 + 1) + '.jpg')
    assert len(os.fsencode(name)) == length
    stem = script.output_name('folder' / name)
    assert (stem == 'folder' / name) == (length <= 251)
    write_png(tmp_path / f'{stem}.png', np.zeros((2, 2), np.uint8))


def test_useless_masks_are_reported(script, capsys):
    done = script.Done()
    for share in (0.95, 0.99, 0.4):
        done.add({'name': 'a', 'mask': 'masks/a.png', 'foreground': share})
    done.report()
    assert '2 of 3 masks cover over 90%' in capsys.readouterr().err


def test_checkpoints_without_settings_and_of_drawn_birds_are_named(folder, tmp_path, capsys):
    shutil.copy(checkpoint(folder, 'cam'), tmp_path / 'model-7')
    load_spol(cam=tmp_path / 'model-7', backbone=TINY, resize=96, device='cpu')
    err = capsys.readouterr().err
    assert 'neither model-7.json nor results.json beside it: the settings are backbone' in err
    assert 'drawn birds' not in err
    (tmp_path / 'mini.json').write_text(json.dumps({'cutouts': None}))
    (tmp_path / 'results.json').write_text(json.dumps({'training': {'arguments': {
        'backbone': TINY, 'resize': 96, 'datapath': str(tmp_path)}}}))
    assert load_spol(cam=tmp_path / 'model-7', device='cpu').settings['drawn']
    err = capsys.readouterr().err
    assert 'neither' not in err
    assert 'trained on drawn birds' in err


def test_networks_of_different_data(folder, tmp_path):
    torch.save(build_classifier(TINY, 7, 'none').state_dict(), tmp_path / 'cls')
    with pytest.raises(InputError, match='has 7 classes and .* has 4'):
        load_spol(cam=checkpoint(folder, 'cam'), cls=tmp_path / 'cls', arch=TINY, device='cpu')


def test_names_that_the_encoding_of_stdout_does_not_have():
    program = 'from utils.errors import run; run(lambda: print("wrote", chr(0xe9), chr(0xdcff)))'
    result = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True,
                            env={**os.environ, 'PYTHONIOENCODING': 'ascii'}, text=True)
    assert (result.returncode, result.stdout) == (0, 'wrote \\xe9 \\udcff\n')
