"""tools/predict.py: pictures and folders in; masks, boxes and files of predictions out."""

import json
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import png_header, refused
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
    (photos / '._a.jpg').write_bytes(b'Mac')
    code, out, err = call('--draw')
    assert code == 0, err
    for words in ('cub200-seg/out/model-1', '40 x 40', 'threshold=0.2', 'wrote 3 predictions'):
        assert words in out
    written = tmp_path / 'out'
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


def test_masks_of_nothing_are_reported(call, tmp_path, two_objects):
    code, _, err = call('--format', 'csv', '--threshold', 0.9999)
    assert (code, '3 of 3 masks cover less than 1%' in err) == (0, True)
    row = (tmp_path / 'out' / 'predictions.csv').read_text().splitlines()[1]
    assert row.split(',')[1:7] == ['60', '50', '', '', '', '']


def test_bad_files_are_reported_and_the_rest_is_done(call, photos):
    (photos / '00.jpg').write_bytes((photos / 'a.jpg').read_bytes()[:200])
    (photos / '10.jpg').symlink_to(photos / 'nothing.jpg')
    (photos / 'huge.png').write_bytes(png_header(20_000, 20_000))
    code, out, err = call()
    assert code == 1
    assert '3 files cannot be read' in err
    assert all(f'{photos}/{name}' in err for name in ('00.jpg', '10.jpg', 'huge.png'))
    assert 'wrote 3 predictions' in out


# ---------------------------------------------------------------- networks and paths


def networks(**given) -> dict:
    """The arguments of `load_spol` that are not None."""
    names = ('model', 'run', *predict.STAGES, 'backbone', 'arch', 'threshold', 'device')
    found = predict.networks(Namespace(**{**dict.fromkeys(names), **given}))
    return {name: value for name, value in found.items() if value is not None}


def test_the_networks_that_are_named(tiny_project, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, 'ROOT', tmp_path)
    for stage in ('cam', 'seg'):
        run = tmp_path / f'cub200-{stage}' / 'out' / 'mini'
        run.mkdir(parents=True)
        for number in (9, 10):
            (run / f'model-{number}').touch()
    mini = {stage: tmp_path / f'cub200-{stage}' / 'out' / 'mini' / 'model-10'
            for stage in ('cam', 'seg')}
    assert networks() == {'model': 'birds'}
    assert networks(model='butterflies') == {'model': 'butterflies'}
    assert networks(seg='model-8', device='cpu') == {'seg': 'model-8', 'device': 'cpu'}
    assert networks(run='mini') == mini
    assert networks(run='mini', seg='model-8') == {**mini, 'seg': 'model-8'}


@pytest.mark.parametrize(('line', 'words'), [
    ('in --run maxi', 'run demo.sh first'),
    ('in --model birds --seg model-8', 'without cam and seg'),
    ('in --model swans', "model 'swans': give one of resource/"),
    ('in --threshold 1.5', 'is not a number from 0 to below 1'),
    ('in/a.jpg in/a.jpg', 'have the same names'),
    ('in none', 'no picture at none'),
    ('in --out in', 'no pictures in in'),
    ('in/notes.txt empty --seg missing', 'missing')])
def test_what_is_refused(run_script, photos, tmp_path, monkeypatch, line, words):
    monkeypatch.setattr(spol, 'SHIPPED', tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    (photos / 'notes.txt').touch()
    refused(run_script('tools/predict.py', '--out', 'out', *line.split()), words)
    assert not (tmp_path / 'out').exists()


def test_links_are_followed_and_hidden_folders_are_not(tmp_path):
    for name in ('in/a/1.JPG', 'in/.ipynb_checkpoints/2.jpg', 'elsewhere/3.webp', 'in/out/4.png',
                 'in/a/notes.txt'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'in' / 'link').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere' / 'back').symlink_to(tmp_path / 'in')
    (tmp_path / 'in' / 'z').symlink_to(tmp_path / 'in' / 'a')
    pictures = predict.find_pictures([tmp_path / 'in'], tmp_path / 'in' / 'out')
    assert list(pictures) == ['a/1.JPG', 'link/3.webp']
    assert list(predict.find_pictures([tmp_path / 'in' / 'a', tmp_path / 'in'], tmp_path)) == [
        'a/1.JPG', 'in/link/3.webp', 'in/out/4.png']


def test_views_of_each_network():
    image, ones = np.zeros((30, 40, 3), np.uint8), np.ones((8, 8), np.float32)
    assert list(predict.views(Prediction(image, ones, 0.5, 1 * ones))) == [
        'image', 'fused CAM', 'Gaussian prior', 'probability', 'mask', 'box']
    assert list(predict.views(Prediction(image, ones, 0.5, ones))) == [
        'image', 'fused CAM', 'Gaussian prior', 'mask', 'box']
    assert list(predict.views(Prediction(image, ones, 0.5))) == [
        'image', 'probability', 'mask', 'box']
