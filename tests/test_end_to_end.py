"""Whole chains on tiny real data: what the stages hand to each other, and that they learn."""

import csv
import json
import shutil

import cv2
import pytest
import torch
from conftest import LITE, TINY, call_script

pytestmark = pytest.mark.end_to_end

CLASSES, TRAIN, VAL = 3, 32, 10
SIZES = ('--resize', 112, '--crop', 96)


def run(script, *arguments, cwd):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        assert call_script(script, *arguments) == 0


def make_mini(folder, *arguments):
    run('dataset/make_mini.py', '--out', folder / 'mini', '--classes', CLASSES, '--train', TRAIN,
        '--val', VAL, '--size', 128, *arguments, cwd=folder)
    return folder / 'mini'


def copy_mini(made_once, folder):
    """The same set, drawn once for all tests, in a folder where it may be changed."""
    shutil.copytree(made_once('mini', make_mini) / 'mini', folder / 'mini')
    return folder / 'mini'


@pytest.fixture(scope='module')
def chain(tmp_path_factory, made_once):
    """The CUB chain, run from a folder that is not the project's; its working folder."""
    folder = tmp_path_factory.mktemp('chain')
    data = ('--datapath', copy_mini(made_once, folder), '--clsnum', CLASSES)
    train = (*data, *SIZES, '--batch_size', 8)

    def stage(name, kind, *arguments):
        network = '--arch' if name == 'cls' else '--backbone'
        run(f'cub200-{name}/{kind}.py', '--savepath', f'out/{name}', network, LITE, *arguments,
            cwd=folder)

    stage('cls', 'train', *train, '--epoch', 3)
    stage('cls', 'test', *data, *SIZES, '--snapshot', 'out/cls/model-3')
    stage('cam', 'train', *train, '--epoch', 8)
    cam = ('--snapshot', 'out/cam/model-8')
    stage('cam', 'test', *data, '--resize', 112, *cam)
    stage('cam', 'test', *data, *SIZES, *cam, '--evaluate', '--sweep')
    stage('seg', 'train', *train, '--epoch', 5)
    stage('seg', 'test', *data, *SIZES, '--snapshot', 'out/seg/model-5', '--sweep',
          '--top1top5', 'out/cls/top1top5.npy')
    return folder


def results(chain, stage):
    return json.loads((chain / 'out' / stage / 'results.json').read_text())


def test_checkpoints_by_the_papers_rule(chain):
    models = {stage: sorted(p.name for p in (chain / 'out' / stage).glob('model-?'))
              for stage in ('cls', 'cam', 'seg')}
    assert models == {'cls': ['model-3'], 'cam': ['model-6', 'model-7', 'model-8'],
                      'seg': [f'model-{epoch}' for epoch in range(1, 6)]}
    for stage in models:
        assert (chain / 'out' / stage / 'last.ckpt').is_file()
        assert list((chain / 'out' / stage).glob('events.out.tfevents.*'))


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


def test_the_networks_learn(chain):
    """Chance names a third of the images; and boxes drawn blindly around everything, as at a
    threshold of 0, are right less often than those of the chain."""
    assert results(chain, 'cls')['top1'] >= 0.7
    sweep = results(chain, 'seg')['sweep']
    assert max(sweep['strict']) >= 0.5
    assert max(sweep['strict']) > sweep['strict'][0] + 0.1


def test_the_same_seed_gives_the_same_bytes(chain):
    data = ('--datapath', chain / 'mini', '--clsnum', CLASSES)
    small = (*data, '--backbone', TINY, '--pretrained', 'none', *SIZES, '--batch_size', 8,
             '--epoch', 3)
    run('cub200-cam/train.py', *small, '--savepath', 'out/first', cwd=chain)
    run('cub200-cam/train.py', *small, '--max_steps', 17, '--savepath', 'out/again',
        '--num_workers', 2, cwd=chain)
    run('cub200-cam/train.py', *small, '--resume', '--savepath', 'out/again', cwd=chain)
    first, second = (torch.load(chain / 'out' / name / 'model-3', weights_only=True)
                     for name in ('first', 'again'))
    assert all(torch.equal(first[key], second[key]) for key in first)
    run('cub200-cam/test.py', *data, '--backbone', LITE, '--resize', 112, '--snapshot',
        'out/cam/model-8', '--maskpath', 'again', '--savepath', 'out/again', cwd=chain)
    for mask in (chain / 'mini' / 'mask').rglob('*.png'):
        other = chain / 'again' / mask.relative_to(chain / 'mini' / 'mask')
        assert mask.read_bytes() == other.read_bytes()


@pytest.fixture(scope='module')
def imagenet_chain(tmp_path_factory):
    """The ImageNet-1K chain, with several objects in some images; its working folder."""
    folder = tmp_path_factory.mktemp('imagenet')
    data = ('--datapath', make_mini(folder, '--layout', 'imagenet', '--train', 24),
            '--clsnum', CLASSES)

    def stage(name, kind, *arguments):
        network = ('--arch', TINY) if name == 'cls' else ('--backbone', LITE)
        assert call_script(f'imagenet-{name}/{kind}.py', *data, *SIZES, '--savepath',
                           folder / 'out' / name, *network, *arguments) == 0

    stage('cls', 'train', '--batch_size', 8, '--epoch', 1, '--pretrained', 'none')
    stage('cls', 'test', '--snapshot', folder / 'out' / 'cls' / 'model-1')
    stage('cam', 'train', '--batch_size', 8, '--epoch', 6, '--max_steps', 53)
    cam = ('--snapshot', folder / 'out' / 'cam' / 'model-53')
    stage('cam', 'test', *cam, '--crop', 0)
    stage('cam', 'test', *cam, '--evaluate')
    stage('seg', 'train', '--batch_size', 8, '--epoch', 4)
    stage('seg', 'test', '--snapshot', folder / 'out' / 'seg' / 'model-36', '--sweep',
          '--top1top5', folder / 'out' / 'cls' / 'top1top5.npy')
    return folder


def test_imagenet_models_are_named_by_step(imagenet_chain):
    models = {path.parent.name: path.name for path in imagenet_chain.glob('out/*/model-??')
              if path.parent.name != 'cls'}
    assert models == {'cam': 'model-53', 'seg': 'model-36'}  # 72 images, 8 a step: 9 an epoch


def test_imagenet_figures(imagenet_chain):
    figures = results(imagenet_chain, 'seg')
    assert figures['count'] == CLASSES * VAL
    assert figures['arguments']['threshold'] == 0.8
    assert set(results(imagenet_chain, 'cam')['evaluation']) >= {'fused'}
    assert 'deep' not in results(imagenet_chain, 'cam')['evaluation']
    for count in ('paper', 'strict'):
        assert 0 <= figures[count]['top1'] <= figures[count]['top5'] <= figures[count]['gt_known']
