"""tools/predict.py: pictures and folders in; masks, boxes and files of predictions out."""

import json
import shutil
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import TINY, png_header
from PIL import Image
from pycocotools.coco import COCO

import spol
from network import SegNet
from spol import Prediction
from tools import predict

BLOBS = ((4, 4, 20, 20), (24, 6, 36, 30))  # of the map of 40 x 40, in front of 0


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of three photographs of 60 x 50 pixels."""
    folder = tmp_path / 'in'
    (folder / 'deep').mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ('a.jpg', 'b.png', 'deep/c.JPG'):
        Image.fromarray(rng.integers(0, 256, (50, 60, 3), np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def call(run_script, tiny_project, photos, tmp_path):
    """call(*flags) -> (exit code, stdout, stderr) of predictions by cam and seg."""
    networks = [part for stage in ('cam', 'seg')
                for part in (f'--{stage}', tiny_project / f'cub200-{stage}' / 'out' / 'model-1')]
    return lambda *flags: run_script('tools/predict.py', photos, *networks, '--device', 'cpu',
                                     '--out', tmp_path / 'out', *flags)


@pytest.fixture
def two_objects(monkeypatch):
    """The segmentation network finds two objects in every picture."""
    logits = torch.full((1, 1, 40, 40), -9.0)
    for x0, y0, x1, y1 in BLOBS:
        logits[..., y0:y1, x0:x1] = 9
    monkeypatch.setattr(SegNet, 'forward',
                        lambda self, images: logits.expand(len(images), 1, 40, 40))


def records_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_predictions_masks_and_pictures(call, photos, tmp_path, two_objects):
    (photos / 'notes.txt').write_text('not an image')
    (photos / '._a.jpg').write_bytes(b'Mac')
    (photos / 'deep' / 'loop').symlink_to(photos)
    code, out, err = call('--draw', '--save_maps')
    assert code == 0, err
    for words in ('cub200-seg/out/model-1', 'sheet.png', 'wrote 3 predictions', '2 hidden files'):
        assert words in out
    written = tmp_path / 'out'
    settings = json.loads((written / 'settings.json').read_text())
    assert (settings['resize'], settings['threshold']) == (40, 0.2)
    assert 'torch' in settings['versions']
    records = records_of(written / 'predictions.jsonl')
    assert [record['name'] for record in records] == ['a.jpg', 'b.png', 'deep/c.JPG']
    last = records[-1]
    assert last['file'] == str(photos / 'deep' / 'c.JPG')
    assert (last['width'], last['height'], last['mask']) == (60, 50, 'masks/deep/c.JPG.png')
    assert last['box'] == pytest.approx([36, 7.5, 54, 37.5], abs=1.5)
    assert last['score'] > 0.8
    assert last['class'] in ('ant', 'bee')
    assert last['class_score'] == last['classes'][0][1]
    assert 'objects' not in last
    mask = cv2.imread(str(written / last['mask']), cv2.IMREAD_UNCHANGED)
    assert (mask > 0).mean() == pytest.approx(last['foreground'], abs=1e-5)
    assert set(np.unique(mask)) == {0, 255}
    assert cv2.imread(str(written / 'cams' / 'a.jpg.png'), -1).shape == (50, 60)
    assert np.load(written / 'maps' / 'deep' / 'c.JPG.npy').shape == (40, 40)
    drawn = [cv2.imread(str(written / 'pictures' / f'{record["name"]}.png')) for record in records]
    np.testing.assert_array_equal(cv2.imread(str(written / 'sheet.png')), np.vstack(drawn))
    assert cv2.imread(str(written / 'overlays' / 'a.jpg.png')).shape == (50, 60, 3)


@pytest.mark.parametrize('objects', ['largest', 'all'])
def test_coco_is_read_by_pycocotools(call, tmp_path, two_objects, objects):
    code, _, err = call('--format', 'coco', '--objects', objects)
    assert code == 0, err
    coco = COCO(str(tmp_path / 'out' / 'predictions.json'))
    coco.info()
    assert [image['file_name'] for image in coco.imgs.values()] == ['a.jpg', 'b.png', 'deep/c.JPG']
    assert len(coco.anns) == 3 * (1 if objects == 'largest' else 2)
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        assert annotation['bbox'] == list(cv2.boundingRect(mask))
        assert annotation['area'] == mask.sum()
        assert annotation['score'] > 0.8
        name = coco.imgs[annotation['image_id']]['file_name']
        png = cv2.imread(str(tmp_path / 'out' / 'masks' / f'{name}.png'), cv2.IMREAD_UNCHANGED)
        assert (png[mask > 0] == 255).all()
    again = coco.loadRes(list(coco.anns.values()))
    assert len(again.anns) == len(coco.anns)


def test_all_objects_in_json_lines_and_csv(call, tmp_path, two_objects):
    assert call('--objects', 'all')[0] == 0
    for record in records_of(tmp_path / 'out' / 'predictions.jsonl'):
        assert [found['box'] for found in record['objects']] == [
            pytest.approx(box, abs=1.5) for box in ([36, 7.5, 54, 37.5], [6, 5, 30, 25])]
        assert record['objects'][0]['segmentation']['size'] == [50, 60]
    assert call('--objects', 'all', '--format', 'csv')[0] == 0
    header, *rows = (tmp_path / 'out' / 'predictions.csv').read_text().splitlines()
    assert header.startswith('file,width,height,x0,y0,x1,y1,label,class,class_score,score')
    assert [Path(row.split(',')[0]).name for row in rows] == [
        'a.jpg', 'a.jpg', 'b.png', 'b.png', 'c.JPG', 'c.JPG']


def test_bad_files_are_reported_and_the_rest_is_done(call, photos):
    (photos / '00.jpg').write_bytes((photos / 'a.jpg').read_bytes()[:200])
    (photos / '10.jpg').symlink_to(photos / 'nothing.jpg')
    (photos / 'huge.png').write_bytes(png_header(20_000, 20_000))
    code, out, err = call()
    assert code == 1
    assert '3 files cannot be read' in err
    assert all(f'{photos}/{name}' in err for name in ('00.jpg', '10.jpg', 'huge.png'))
    assert '--skip_bad' not in err
    assert 'wrote 3 predictions' in out


# ---------------------------------------------------------------- interrupted runs


@pytest.fixture
def interrupted(call, tmp_path, monkeypatch):
    """The output folder of a run that was killed while it wrote its second record, and what the
    whole run has written."""
    assert call('--draw')[0] == 0
    whole = (tmp_path / 'out' / 'predictions.jsonl').read_text()
    with monkeypatch.context() as patch:
        patch.setattr(Path, 'unlink', lambda path: None)
        call('--draw')
    part = tmp_path / 'out' / '.predictions.jsonl.part'
    settings, *records = part.read_text().splitlines(keepends=True)
    part.write_text(settings + records[0] + records[1][:30])
    shutil.rmtree(tmp_path / 'out' / 'masks')
    return tmp_path / 'out', whole


def test_an_interrupted_run_is_continued(call, interrupted):
    out, whole = interrupted
    code, stdout, err = call('--draw')
    assert code == 0, err
    assert 'wrote 3 predictions' in stdout
    assert (out / 'predictions.jsonl').read_text() == whole
    assert sorted(path.name for path in (out / 'masks').rglob('*.png')) == ['b.png.png',
                                                                            'c.JPG.png']
    assert not (out / '.predictions.jsonl.part').exists()


@pytest.mark.parametrize('change', ['settings', 'name', 'content'])
def test_another_run_is_not_continued(call, interrupted, photos, change):
    if change == 'name':
        (photos / 'a.jpg').rename(photos / 'aa.jpg')
    elif change == 'content':
        Image.new('RGB', (9, 9)).save(photos / 'a.jpg')
    before = (interrupted[0] / '.predictions.jsonl.part').read_text()
    code, _, err = call('--draw', *(['--threshold', 0.5] if change == 'settings' else []))
    assert code == 2
    assert ('threshold): finish that run' if change == 'settings' else 'on other pictures') in err
    assert (interrupted[0] / '.predictions.jsonl.part').read_text().startswith(before[:500])


# ---------------------------------------------------------------- networks and paths


def parsed(**given) -> Namespace:
    return Namespace(**{**dict.fromkeys(('model', 'run', *predict.STAGES)), **given})


def test_the_networks_that_are_named(tiny_project, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, 'ROOT', tmp_path)
    for stage in ('cam', 'seg'):
        run = tmp_path / f'cub200-{stage}' / 'out' / 'mini'
        run.mkdir(parents=True)
        for number in (9, 10):
            (run / f'model-{number}').touch()
    assert predict.networks(parsed()) == {'model': 'birds'}
    assert predict.networks(parsed(model='butterflies')) == {'model': 'butterflies'}
    assert predict.networks(parsed(seg='model-8')) == {'seg': 'model-8'}
    assert predict.networks(parsed(run='mini')) == {
        stage: tmp_path / f'cub200-{stage}' / 'out' / 'mini' / 'model-10'
        for stage in ('cam', 'seg')}


@pytest.mark.parametrize(('flags', 'words'), [
    (['--run', 'none of mine'], 'run demo.sh first'),
    (['--model', 'birds', '--run', 'mini'], 'give one of them'),
    (['--model', 'birds', '--seg', 'model-8'], 'give one of them'),
    (['--model', 'swans'], "model 'swans': give one of resource/"),
    (['--seg', 'missing'], 'no weights at missing'),
    (['--threshold', '1.5'], 'is not a number from 0 to below 1')])
def test_networks_that_are_refused(run_script, photos, tmp_path, monkeypatch, flags, words):
    monkeypatch.setattr(spol, 'SHIPPED', tmp_path)
    code, _, err = run_script('tools/predict.py', photos, '--out', tmp_path / 'out', *flags)
    assert (code, words in err) == (2, True), err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('paths', 'words'), [
    (['in', 'in'], 'two of the paths are called in'), (['in', 'none'], 'no picture at'),
    (['out'], 'is the folder of the pictures'), (['empty'], 'no pictures in'),
    (['in/notes.txt', 'empty'], 'no weights at')])
def test_paths_that_are_refused(run_script, photos, tmp_path, paths, words):
    for name in ('out', 'empty'):
        (tmp_path / name).mkdir()
    (photos / 'notes.txt').touch()
    code, _, err = run_script('tools/predict.py', *(tmp_path / path for path in paths), '--out',
                              tmp_path / 'out', '--seg', tmp_path / 'model-9', '--backbone', TINY)
    assert (code, words in err) == (2, True), err
    assert not any((tmp_path / 'out').iterdir())


def test_links_are_followed_and_hidden_folders_are_not(tmp_path):
    for name in ('in/a/1.JPG', 'in/.ipynb_checkpoints/2.jpg', 'elsewhere/3.webp', 'in/out/4.png',
                 'in/a/notes.txt'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'in' / 'link').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere' / 'back').symlink_to(tmp_path / 'in')
    (tmp_path / 'in' / 'z').symlink_to(tmp_path / 'in' / 'a')
    pictures, left_out = predict.find_pictures([tmp_path / 'in'], tmp_path / 'in' / 'out')
    assert ([str(name) for _, name in pictures], left_out) == (['a/1.JPG', 'link/3.webp'], 1)


def test_useless_masks_are_reported(capsys):
    predict.warn_of_useless_masks([0.95, 0.99, 0.4])
    assert '2 of 3 masks cover over 90%' in capsys.readouterr().err


def test_views_of_each_network():
    image, ones = np.zeros((30, 40, 3), np.uint8), np.ones((8, 8), np.float32)
    assert list(predict.views(Prediction(image, ones, 0.5, 1 * ones))) == [
        'image', 'fused CAM', 'Gaussian prior', 'probability', 'mask', 'box']
    assert list(predict.views(Prediction(image, ones, 0.5, ones))) == [
        'image', 'fused CAM', 'Gaussian prior', 'mask', 'box']
    assert list(predict.views(Prediction(image, ones, 0.5))) == [
        'image', 'probability', 'mask', 'box']
