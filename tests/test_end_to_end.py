"""Whole chains on tiny real data: what the stages hand to each other, and that they learn."""

import csv
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import LITE, ROOT

pytestmark = pytest.mark.end_to_end

CLASSES, TRAIN, VAL = 3, 16, 6
SIZES = ('--resize', 112, '--crop', 96)


def run(script, *arguments, cwd):
    result = subprocess.run([sys.executable, str(ROOT / script), *map(str, arguments)], cwd=cwd,
                            capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def make_mini(folder, *arguments):
    run('dataset/make_mini.py', '--out', folder / 'mini', '--classes', CLASSES, '--train', TRAIN,
        '--val', VAL, '--size', 128, *arguments, cwd=folder)
    return folder / 'mini'


@pytest.fixture(scope='module')
def chain(tmp_path_factory):
    """The CUB chain, run from a folder that is not the project's; its working folder."""
    folder = tmp_path_factory.mktemp('chain')
    data = ('--datapath', make_mini(folder), '--clsnum', CLASSES)
    train = (*data, *SIZES, '--batch_size', 8)

    def stage(name, kind, *arguments):
        network = '--arch' if name == 'cls' else '--backbone'
        run(f'cub200-{name}/{kind}.py', '--savepath', f'out/{name}', network, LITE, *arguments,
            cwd=folder)

    stage('cls', 'train', *train, '--epoch', 3)
    stage('cls', 'test', *data, *SIZES, '--snapshot', 'out/cls/model-3')
    stage('cam', 'train', *train, '--epoch', 6)
    cam = ('--snapshot', 'out/cam/model-6')
    stage('cam', 'test', *data, '--resize', 112, *cam)
    stage('cam', 'test', *data, *SIZES, *cam, '--evaluate', '--sweep')
    stage('seg', 'train', *train, '--epoch', 4)
    stage('seg', 'test', *data, *SIZES, '--snapshot', 'out/seg/model-4', '--sweep',
          '--top1top5', 'out/cls/top1top5.npy')
    return folder


def results(chain, stage):
    return json.loads((chain / 'out' / stage / 'results.json').read_text())


def test_checkpoints_by_the_papers_rule(chain):
    models = {stage: sorted(p.name for p in (chain / 'out' / stage).glob('model-*'))
              for stage in ('cls', 'cam', 'seg')}
    assert models == {'cls': ['model-3'], 'cam': ['model-5', 'model-6'],
                      'seg': ['model-1', 'model-2', 'model-3', 'model-4']}
    for stage in models:
        assert (chain / 'out' / stage / 'last.ckpt').is_file()
        assert list((chain / 'out' / stage).glob('events.out.tfevents.*'))


def test_top1top5_is_a_plain_array_of_the_val_list(chain):
    array = np.load(chain / 'out' / 'cls' / 'top1top5.npy', allow_pickle=False)
    names = [line.split(',')[0] for line in (chain / 'mini' / 'val.txt').read_text().splitlines()]
    assert array['name'].tolist() == names
    assert results(chain, 'cls')['top1'] == pytest.approx(array['top1'].mean())
    assert array['top5'].all()  # of three classes every one is among the first five


def test_a_pseudo_mask_for_every_training_image(chain):
    lines = (chain / 'mini' / 'train.txt').read_text().splitlines()
    assert len(lines) == CLASSES * TRAIN
    for line in lines:
        name = line.split(',')[0]
        image = cv2.imread(str(chain / 'mini' / 'image' / name))
        mask = cv2.imread(str(chain / 'mini' / 'mask' / name.replace('.jpg', '.png')))
        assert mask.shape == image.shape
        assert mask[..., 0].max() > 200
        assert not mask[..., 2].any()


def test_boxes_csv_agrees_with_results(chain):
    with open(chain / 'out' / 'seg' / 'boxes.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    figures = results(chain, 'seg')
    assert len(rows) == figures['count'] == CLASSES * VAL
    correct = sum(int(row['correct']) for row in rows)
    assert figures['strict']['gt_known'] == pytest.approx(correct / len(rows))
    assert all((float(row['iou']) > 0.5) == (row['correct'] == '1') for row in rows)
    assert sum(row['x0'] == '' for row in rows) == figures['no_contour']


def test_results_say_where_they_come_from(chain):
    for stage in ('cls', 'cam', 'seg'):
        content = results(chain, stage)
        for record in (content, content['training']):
            assert record['versions']['torch'] == torch.__version__
            assert record['seconds'] > 0
            assert record['images_per_second'] > 0
            assert record['arguments']['clsnum'] == CLASSES
    for key in ('paper', 'strict', 'max_box_acc', 'max_box_acc_v2', 'pxap', 'best_threshold',
                'no_contour', 'no_box', 'sweep'):
        assert key in results(chain, 'seg')


def test_the_networks_learn(chain):
    """Chance names a third of the images; and boxes drawn blindly around everything, as at a
    threshold of 0, are right far less often than those of the chain."""
    assert results(chain, 'cls')['top1'] >= 0.7
    sweep = results(chain, 'seg')['sweep']
    assert max(sweep['strict']) >= 0.5
    assert max(sweep['strict']) >= sweep['strict'][0] + 0.2


def test_the_same_seed_gives_the_same_bytes(chain):
    again = ('--datapath', chain / 'mini', '--clsnum', CLASSES, '--backbone', LITE)
    run('cub200-cam/train.py', *again, *SIZES, '--batch_size', 8, '--epoch', 6, '--max_steps', 7,
        '--savepath', 'out/again', '--num_workers', 2, cwd=chain)
    run('cub200-cam/train.py', *again, *SIZES, '--batch_size', 8, '--epoch', 6, '--resume',
        '--savepath', 'out/again', cwd=chain)
    first, second = (torch.load(chain / 'out' / name / 'model-6', weights_only=True)
                     for name in ('cam', 'again'))
    assert all(torch.equal(first[key], second[key]) for key in first)
    run('cub200-cam/test.py', *again, '--resize', 112, '--snapshot', 'out/again/model-6',
        '--maskpath', 'again', '--savepath', 'out/again', cwd=chain)
    for mask in (chain / 'mini' / 'mask').rglob('*.png'):
        other = chain / 'again' / mask.relative_to(chain / 'mini' / 'mask')
        assert mask.read_bytes() == other.read_bytes()
