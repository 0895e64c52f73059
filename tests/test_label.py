"""label.sh and tools/label.py: class folders in, boxes and masks out."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, refused
from PIL import Image

from network import SegNet


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of two photographs, one of which has an EXIF rotation."""
    rng, exif = np.random.default_rng(0), Image.Exif()
    exif[0x0112] = 6
    for name, more in (('ant/1.jpg', {'exif': exif}), ('ant/2.png', {}), ('bee/<i>.jpg', {}),
                       ('bee/x y.jpg', {})):
        path = tmp_path / 'photos' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 64, 3), np.uint8)).save(path, **more)
    return tmp_path / 'photos'


@pytest.fixture
def label(run_script, project, tmp_path):
    """label(folder, *flags) -> (exit code, stdout, stderr)."""
    return lambda folder, *more: run_script(
        'tools/label.py', folder, '--seg', project / 'cub200-seg' / 'out' / 'model-1', '--out',
        tmp_path / 'out', *more)


def two_objects(monkeypatch, level: float = 9.0) -> None:
    """The segmentation network finds two objects in every photograph."""
    logits = torch.full((1, 1, 40, 40), -level)
    logits[..., 4:20, 4:20] = logits[..., 6:30, 24:36] = level
    monkeypatch.setattr(SegNet, 'forward',
                        lambda self, images: logits.expand(len(images), 1, 40, 40))


@pytest.mark.parametrize('objects', ['largest', 'all'])
def test_labels(photos, label, tmp_path, monkeypatch, objects):
    from pycocotools.coco import COCO

    two_objects(monkeypatch)
    code, out, err = label(photos, '--objects', objects, '--threshold', '0.5')
    assert code == 0, err
    assert 'labelled 4 photographs at threshold 0.5' in out
    labels = COCO(tmp_path / 'out' / 'labels.json')
    labels.info()
    assert {entry['id']: entry['name'] for entry in labels.loadCats([1, 2])} == {1: 'ant', 2: 'bee'}
    assert [image['file_name'] for image in labels.imgs.values()] == [
        'ant/1.jpg', 'ant/2.png', 'bee/<i>.jpg', 'bee/x y.jpg']
    assert [image['height'] for image in labels.imgs.values()] == [64, 40, 40, 40]
    assert len(labels.anns) == 4 * (1 if objects == 'largest' else 2)
    for number, image in labels.imgs.items():
        found = labels.loadAnns(labels.getAnnIds(number))
        masks = [labels.annToMask(annotation) for annotation in found]
        png = tmp_path / 'out' / 'masks' / Path(image['file_name']).with_suffix('.png')
        assert np.array_equal(cv2.imread(str(png), cv2.IMREAD_UNCHANGED), 255 * sum(masks))
        for annotation, mask in zip(found, masks, strict=True):
            assert annotation['bbox'] == list(cv2.boundingRect(mask))
            assert annotation['area'] == mask.sum() > 0
            assert annotation['category_id'] == (1 if image['file_name'][0] == 'a' else 2)
            assert 0.8 < annotation['score'] <= 1


def test_the_overview_has_relative_links_and_the_least_certain_first(photos, label, tmp_path):
    assert label(photos)[0] == 0
    page = (tmp_path / 'out' / 'overview.html').read_text()
    links = [unquote(link) for link in re.findall(r'src="([^"]+)"', page)]
    assert sorted(links) == ['overview/ant/1.jpg', 'overview/ant/2.jpg', 'overview/bee/<i>.jpg',
                             'overview/bee/x y.jpg']
    assert all((tmp_path / 'out' / link).is_file() for link in links)
    scores = [float(score) for score in re.findall(r'<figcaption>(\S+)', page)]
    assert scores == sorted(scores)
    assert '<i>' not in page


def test_the_threshold_that_is_recorded_beside_the_checkpoint_is_used(photos, label, project):
    assert 'at threshold 0.2' in label(photos)[1]
    record = project / 'cub200-seg' / 'out' / 'model-1.json'
    record.write_text(json.dumps({**json.loads(record.read_text()), 'threshold': 0.31}))
    assert 'at threshold 0.31' in label(photos)[1]


@pytest.mark.parametrize(('level', 'share'), [(200.0, 0), (3.0, 288 / 1600)])
def test_a_threshold_that_nothing_exceeds(photos, label, tmp_path, monkeypatch, level, share):
    """Of a map of zeros nothing is labelled; else half of the maximum is the threshold."""
    if level == 200:
        monkeypatch.setattr(SegNet, 'forward', lambda self, images: torch.full(
            (len(images), 1, 40, 40), -level))
    else:
        two_objects(monkeypatch, level)
    assert label(photos, '--threshold', '0.99')[0] == 0
    mask = cv2.imread(str(tmp_path / 'out' / 'masks' / 'ant' / '2.png'), cv2.IMREAD_UNCHANGED)
    assert (mask > 0).mean() == pytest.approx(share, abs=0.03)


def test_what_is_wrong(photos, label, tmp_path):
    (photos / 'ant' / 'bad.jpg').write_text('no image')
    code, _, err = label(photos)
    assert code == 1
    assert '1 files cannot be read:' in err
    assert f'{photos}/ant/bad.jpg' in err
    assert len(json.loads((tmp_path / 'out' / 'labels.json').read_text())['images']) == 4
    (photos / 'ant').rename(photos / 'cat')
    refused(label(photos), 'not trained with the class folder cat')
    refused(label(photos, '--seg', tmp_path / 'missing'), 'missing')


# ---------------------------------------------------------------- label.sh

STUB = '''#!/bin/bash
echo "$@" >> calls
[ "$1" != -c ] || exit 0
case $1 in
  dataset/prepare_folder.py) mkdir -p "$4"; for k in 1 2 3; do echo "a/$k.jpg,$((k > 2))"; done \\
    > "$4/train.txt" ;;
  *train.py) mkdir -p "$3"
    touch "$3/model-$(sed 's/.*--epoch \\([0-9]*\\).*/\\1/' <<<"$*")" ;;
  cub200-seg/test.py) [ ! -e fails ] || exit 143
    echo threshold_rule > "$(sed 's/.*--snapshot \\(.*\\) --maskpath.*/\\1/' <<<"$*").json" ;;
esac
'''


@pytest.fixture
def script(tmp_path):
    """label.sh with a Python that only notes its calls: script(arguments) -> (exit code, output,
    the scripts that it called)."""
    (tmp_path / 'tools').mkdir()
    for name in ('label.sh', 'tools/venv.sh', 'tools/recipe.sh', 'requirements.txt',
                 'requirements-dev.txt'):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / '.venv' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text(STUB)
    python.chmod(0o755)

    def call(*arguments):
        (tmp_path / 'calls').unlink(missing_ok=True)
        result = subprocess.run(['bash', tmp_path / 'label.sh', *arguments], cwd=tmp_path,
                                capture_output=True, text=True, env=dict(os.environ))
        calls = (tmp_path / 'calls').read_text().splitlines() if result.returncode == 0 else []
        return result.returncode, result.stdout + result.stderr, [
            line for line in calls if '.py' in line.split()[0]]

    return call


TRAINING = ['cub200-cam/train.py', 'cub200-cam/test.py', 'cub200-seg/train.py']


def test_label_sh_trains_and_chooses_a_threshold_once(script, photos, tmp_path):
    """A threshold is chosen where none is given; after an interruption the same call continues."""
    command = photos, '--out', 'labels of mine'
    code, out, calls = script(*command, '--threshold', '0.6')
    assert code == 0, out
    assert [line.split()[0] for line in calls] == [
        'dataset/prepare_folder.py', *TRAINING, 'tools/label.py']
    assert all('--clsnum 2' in line for line in calls if line.startswith('cub200'))
    assert f'--out {tmp_path}/labels of mine --threshold 0.6' in calls[-1]
    (tmp_path / 'fails').touch()
    assert script(*command)[0] == 143
    (tmp_path / 'fails').unlink()
    code, out, calls = script(*command)
    assert (code, [line.split()[0] for line in calls]) == (
        0, ['cub200-seg/test.py', 'tools/label.py']), out
    assert '--resize 256 --crop 224' in calls[0]
    assert f'--maskpath {tmp_path}/labels of mine/pseudo-masks --threshold auto' in calls[0]
    assert [line.split()[0] for line in script(*command)[2]] == ['tools/label.py']


@pytest.mark.parametrize(('arguments', 'words'), [
    ([], '--out'), (['photos'], '--out'), (['none', '--out', 'x'], 'no such folder'),
    (['photos', 'b', '--out', 'x'], 'two folders'), (['photos', '--out'], 'needs a value'),
    (['photos', '--out', 'photos/x'], 'lies in the folder'), (['--what'], 'unknown option')])
def test_label_sh_refuses(script, photos, tmp_path, arguments, words):
    before = sorted(tmp_path.rglob('*'))
    code, out, _ = script(*arguments)
    assert code == 2
    assert out.startswith('error: ')
    assert words in out
    assert sorted(tmp_path.rglob('*')) == before
