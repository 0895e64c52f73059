"""label.sh and tools/label.py: class folders in, boxes and masks out."""

import json
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, TINY
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from utils.localization.threshold import STEPS, agreement, choose_threshold

# ---------------------------------------------------------------- the threshold

levels = st.integers(0, 255).map(lambda value: value / 255)
maps = st.lists(st.tuples(levels, levels), min_size=1, max_size=30)


@given(maps)
def test_agreement_is_the_correlation_of_mask_and_cam(values):
    probability, cam = np.array([values], np.float32).transpose(2, 0, 1)
    for step, value in enumerate(agreement(probability, cam)):
        mask = probability.astype(np.float64) * STEPS > step
        defined = mask.any() and not mask.all() and cam.min() < cam.max()
        expected = np.corrcoef(mask.ravel(), cam.ravel())[0, 1] if defined else 0
        assert value == pytest.approx(expected, abs=1e-6)


def test_the_threshold_separates_the_object_from_a_halo():
    """Background 0.1, a halo of 0.6 around the object, which is 0.95; the CAM is a blob in it."""
    probability, cam = np.full((40, 40), 0.1, np.float32), np.zeros((40, 40), np.float32)
    probability[5:35, 5:35], probability[15:25, 15:25], cam[16:24, 16:24] = 0.6, 0.95, 1
    assert 0.6 <= choose_threshold([agreement(probability, cam)] * 3) < 0.95


# ---------------------------------------------------------------- tools/label.py


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of two photographs, one of which has an EXIF rotation."""
    rng, exif = np.random.default_rng(0), Image.Exif()
    exif[0x0112] = 6
    for name, options in (('a/1.jpg', {'exif': exif}), ('a/2.png', {}), ('b/<i>.jpg', {}),
                          ('b/x y.jpg', {})):
        path = tmp_path / 'photos' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 64, 3), np.uint8)).save(path, **options)
    return tmp_path / 'photos'


@pytest.fixture
def checkpoint(tmp_path, untrained_run) -> Path:
    """Networks whose training had the classes b (0) and a (1); that of the seg stage."""
    untrained_run(tmp_path, 2)
    for stage in ('cam', 'seg'):
        (tmp_path / f'cub200-{stage}' / 'out' / 'mini' / 'model-1.json').write_text(json.dumps(
            {'backbone': TINY, 'resize': 96, 'class_names': ['b', 'a']}))
    return tmp_path / 'cub200-seg' / 'out' / 'mini' / 'model-1'


@pytest.fixture
def label(run_script, checkpoint, tmp_path):
    cam = tmp_path / 'cub200-cam' / 'out' / 'mini' / 'model-1'
    return lambda folder, *more: run_script('tools/label.py', folder, '--cam', cam, '--seg',
                                            checkpoint, '--out', tmp_path / 'out', *more)


def test_labels(photos, label, tmp_path):
    from pycocotools.coco import COCO

    code, out, err = label(photos)
    assert code == 0, err
    assert re.search(r'labelled 4 photographs at threshold 0\.\d+ \(chosen', out)
    labels = COCO(tmp_path / 'out' / 'labels.json')
    assert {entry['id']: entry['name'] for entry in labels.loadCats([1, 2])} == {1: 'b', 2: 'a'}
    assert [image['file_name'] for image in labels.imgs.values()] == [
        'a/1.jpg', 'a/2.png', 'b/<i>.jpg', 'b/x y.jpg']
    assert [image['height'] for image in labels.imgs.values()] == [64, 40, 40, 40]
    for annotation in labels.anns.values():
        name = labels.imgs[annotation['image_id']]['file_name']
        mask = labels.annToMask(annotation)
        png = tmp_path / 'out' / 'masks' / Path(name).with_suffix('.png')
        assert np.array_equal(cv2.imread(str(png), cv2.IMREAD_UNCHANGED), 255 * mask)
        assert annotation['bbox'] == list(cv2.boundingRect(mask))
        assert annotation['area'] == mask.sum() > 0
        assert annotation['category_id'] == (2 if name[0] == 'a' else 1)
        assert 0 <= annotation['score'] <= 1


def test_the_overview_has_relative_links_and_the_least_certain_first(photos, label, tmp_path):
    assert label(photos)[0] == 0
    page = (tmp_path / 'out' / 'overview.html').read_text()
    links = re.findall(r'src="([^"]+)"', page)
    assert set(links) == {'overview/a/1.jpg', 'overview/a/2.jpg', 'overview/b/%3Ci%3E.jpg',
                          'overview/b/x%20y.jpg'}
    assert all((tmp_path / 'out' / link.replace('%3C', '<').replace('%3E', '>')
                .replace('%20', ' ')).is_file() for link in links)
    scores = [float(score) for score in re.findall(r'<figcaption>(\S+)', page)]
    assert scores == sorted(scores)
    assert '<i>' not in page


def test_added_photographs_and_another_threshold_need_no_new_maps(photos, label, tmp_path):
    assert label(photos)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'out/maps').rglob('*.png')}
    shutil.copy(photos / 'a' / '2.png', photos / 'b' / 'new.png')
    code, out, _ = label(photos, '--threshold', '0.4')
    assert code == 0
    assert 'labelled 5 photographs at threshold 0.4 (given)' in out
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / 'out/maps').rglob('*.png')}
    assert len(after) == len(before) + 1
    assert before.items() < after.items()


def test_what_is_wrong(photos, label, checkpoint, tmp_path):
    (photos / 'a' / 'bad.jpg').write_text('no image')
    code, _, err = label(photos)
    assert code == 1
    assert err.endswith('1 files cannot be read as images: a/bad.jpg\n')
    assert len(json.loads((tmp_path / 'out' / 'labels.json').read_text())['images']) == 4
    (photos / 'a').rename(photos / 'c')
    code, _, err = label(photos)
    assert (code, 'not trained with the class folder c' in err) == (2, True)
    (photos / 'c').rename(photos / 'a')
    with open(checkpoint, 'ab') as file:
        file.write(b'another')
    code, _, err = label(photos)
    assert (code, 'another checkpoint' in err) == (2, True)
    for record in tmp_path.glob('cub200-*/out/mini/model-1.json'):
        record.unlink()
    code, _, err = label(photos)
    assert (code, 'are not known' in err) == (2, True)


def test_certainty():
    """A box of 10 x 10 pixels around one of 5 x 10: certain where both lie on one side of it."""
    tool = runpy.run_path(str(ROOT / 'tools' / 'label.py'))
    probability = np.zeros((20, 20), np.float32)
    probability[5:15, 5:15], probability[5:15, 5:10] = 0.55, 0.9
    assert [tool['certainty'](probability, t) for t in (0.3, 0.5, 0.7, 0.95)] == [1, 0.5, 1, 0]


# ---------------------------------------------------------------- label.sh

STUB = '''#!/bin/bash
echo "$@" >> calls
[ "$1" != -c ] || exit 0
case $1 in
  dataset/prepare_folder.py) mkdir -p "$4"; for k in 1 2 3; do echo "a/$k.jpg,$((k > 2))"; done \\
    > "$4/train.txt" ;;
  *train.py) mkdir -p "$3"; touch "$3/model-1414" "$3/model-774" ;;
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
        calls = (tmp_path / 'calls').read_text().splitlines() if (
            tmp_path / 'calls').exists() else []
        return result.returncode, result.stdout + result.stderr, [
            line for line in calls if '.py' in line.split()[0]]

    return call


def test_label_sh_trains_once(script, photos, tmp_path):
    code, out, calls = script(photos, '--out', 'labels of mine')
    assert code == 0, out
    assert [line.split()[0] for line in calls] == [
        'dataset/prepare_folder.py', 'cub200-cam/train.py', 'cub200-cam/test.py',
        'cub200-seg/train.py', 'tools/label.py']
    assert all(word in calls[1] for word in ('--clsnum 2', '--epoch 1414', '--resume auto'))
    assert '--epoch 774' in calls[3]
    assert '3 photographs of 2 classes: about 7 minutes' in out
    code, out, calls = script(photos, '--out', 'labels of mine', '--threshold', '0.6')
    assert code == 0
    assert [line.split()[0] for line in calls] == ['tools/label.py']
    assert calls[0].endswith(f'--out {tmp_path}/labels of mine --threshold 0.6')


@pytest.mark.parametrize(('arguments', 'words'), [
    ([], '--out'), (['photos'], '--out'), (['none', '--out', 'x'], 'no such folder'),
    (['photos', 'b', '--out', 'x'], 'two folders'), (['photos', '--out'], 'needs a value'),
    (['photos', '--out', 'photos/x'], 'lies in the folder'), (['--what'], 'unknown option'),
])
def test_label_sh_refuses(script, photos, tmp_path, arguments, words):
    before = sorted(tmp_path.rglob('*'))
    code, out, calls = script(*arguments)
    assert (code, calls) == (2, [])
    assert out.startswith('error: ')
    assert words in out
    assert sorted(tmp_path.rglob('*')) == before
