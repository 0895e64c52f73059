"""Whole chains on tiny real data: what the stages hand to each other, and that they learn."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from conftest import LITE, TINY, call_script

from utils.pseudo_mask import seg_target

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
        show = () if name == 'cls' else ('--show', 2)
        run(f'cub200-{name}/{kind}.py', '--savepath', f'out/{name}', network, LITE, *show,
            *arguments, cwd=folder)

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
    assert results(chain, 'seg').keys() > {
        'paper', 'strict', 'max_box_acc', 'max_box_acc_v2', 'pxap', 'best_threshold', 'no_contour',
        'no_box', 'sweep', 'intervals', 'classification'}
    model = json.loads((chain / 'out' / 'seg' / 'model-5.json').read_text())
    assert (model['backbone'], model['threshold'], len(model['class_names'])) == (LITE, 0.2, CLASSES)


def test_tables_agree_with_results(chain):
    figures = results(chain, 'seg')
    with open(chain / 'out' / 'seg' / 'classes.csv', newline='') as file:
        classes = list(csv.DictReader(file))
    assert [int(row['images']) for row in classes] == [VAL] * CLASSES
    for name in ('top1', 'gt_known'):
        assert np.mean([float(row[name]) for row in classes]) == pytest.approx(
            figures['strict'][name], abs=1e-5)
    with open(chain / 'out' / 'seg' / 'sweep.csv', newline='') as file:
        strict = [float(row['strict']) for row in csv.DictReader(file)]
    assert strict == pytest.approx(figures['sweep']['strict'], abs=1e-5)
    assert cv2.imread(str(chain / 'out' / 'seg' / 'sweep.png')).std() > 10
    for kind in ('deep', 'fused'):
        assert (chain / 'out' / 'cam' / f'{kind}-classes.csv').is_file()


def test_the_networks_learn(chain):
    """Chance names a third of the images; and boxes drawn blindly around everything, as at a
    threshold of 0, are right less often than those of the chain."""
    assert results(chain, 'cls')['top1'] >= 0.7
    sweep = results(chain, 'seg')['sweep']
    assert max(sweep['strict']) >= 0.5
    assert max(sweep['strict']) > sweep['strict'][0] + 0.1


def test_a_threshold_is_chosen_without_boxes(chain):
    """And recorded for the next test."""
    data = ('--datapath', chain / 'mini', '--clsnum', CLASSES)
    shutil.copytree(chain / 'out' / 'seg', chain / 'out' / 'auto')
    for flags in (('--threshold', 'auto'), ()):
        run('cub200-seg/test.py', *data, '--savepath', 'out/auto', '--top1top5', 'none', *flags,
            cwd=chain)
        found = results(chain, 'auto')
        assert found['arguments']['threshold'] != 0.2
        assert found['paper_threshold']['threshold'] == 0.2
        assert found['paper_threshold']['strict']['gt_known'] == (
            results(chain, 'seg')['strict']['gt_known'])


def test_the_same_seed_gives_the_same_bytes(chain):
    data = ('--datapath', chain / 'mini', '--clsnum', CLASSES)
    small = (*data, '--backbone', TINY, '--pretrained', 'none', *SIZES, '--batch_size', 8,
             '--epoch', 3, '--show', 0)
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
        network = ('--arch', TINY) if name == 'cls' else ('--backbone', LITE, '--show', 1)
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


def test_imagenet_pseudo_masks_lie_by_wnid(imagenet_chain):
    names = {path.relative_to(imagenet_chain / 'mini' / 'mask').with_suffix('.JPEG').as_posix()
             for path in (imagenet_chain / 'mini' / 'mask').rglob('*.png')}
    listed = {line.split()[0]
              for line in (imagenet_chain / 'mini' / 'train.txt').read_text().splitlines()}
    assert names == listed


def test_imagenet_figures(imagenet_chain):
    figures = results(imagenet_chain, 'seg')
    assert figures['count'] == CLASSES * VAL
    assert figures['arguments']['threshold'] == 0.8
    assert set(results(imagenet_chain, 'cam')['evaluation']) >= {'fused'}
    assert 'deep' not in results(imagenet_chain, 'cam')['evaluation']
    masks = imagenet_chain.glob('mini/segmentation/*.png')  # of the val images
    chance = np.mean([(cv2.imread(str(path), 0) > 0).mean() for path in masks])
    assert figures['pxap'] > chance + 0.1  # which a constant map has
    for count in ('paper', 'strict'):
        assert 0 <= figures[count]['top1'] <= figures[count]['top5'] <= figures[count]['gt_known']


def test_own_images_without_boxes_run_through_the_chain(chain, tmp_path, capsys):
    """A folder of images with labels: everything but the localization figures."""
    data = tmp_path / 'mine'
    data.mkdir()
    (data / 'image').symlink_to(chain / 'mini' / 'image')
    for split in ('train.txt', 'val.txt'):
        lines = (chain / 'mini' / split).read_text().splitlines()
        (data / split).write_text(''.join(f'{line.rsplit(",", 1)[0]}\n' for line in lines))
    common = ('--datapath', data, '--clsnum', CLASSES, '--savepath', tmp_path / 'out')
    small = (*common, *SIZES, '--backbone', TINY, '--show', 0)
    train = (*small, '--pretrained', 'none', '--batch_size', 8, '--epoch', 1)
    for script, *arguments in (
            ('cub200-cam/train.py', *train),
            ('cub200-cam/test.py', *small, '--crop', 0, '--snapshot',
             tmp_path / 'out' / 'model-1'),
            ('cub200-seg/train.py', *train),
            ('cub200-seg/test.py', *small, '--snapshot', tmp_path / 'out' / 'model-1',
             '--top1top5', 'none')):
        capsys.readouterr()
        assert call_script(script, *arguments) == 0
    assert 'has no boxes: no localization metrics' in capsys.readouterr().out
    with open(tmp_path / 'out' / 'boxes.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == CLASSES * VAL
    assert {(row['iou'], row['correct']) for row in rows} == {('', '')}
    assert any(row['x0'] for row in rows)
    assert 'strict' not in json.loads((tmp_path / 'out' / 'results.json').read_text())


def test_pseudo_labels_in_bf16_agree_with_float32(chain):
    """Of every third image: bf16 is slow on most CPUs."""
    lines = (chain / 'mini' / 'train.txt').read_text().splitlines(keepends=True)[::3]
    (chain / 'mini' / 'third.txt').write_text(''.join(lines))
    run('cub200-cam/test.py', '--datapath', 'mini', '--clsnum', CLASSES, '--backbone', LITE,
        '--resize', 112, '--amp', 'bf16', '--snapshot', 'out/cam/model-8', '--maskpath', 'bf16',
        '--savepath', 'out/bf16', '--list', 'third.txt', '--show', 0, cwd=chain)
    ious = []
    for path in (chain / 'bf16').rglob('*.png'):
        a, b = (seg_target(cv2.imread(str(p)))[0]
                for p in (path, chain / 'mini' / 'mask' / path.relative_to(chain / 'bf16')))
        ious.append((a & b).sum() / (a | b).sum())
    assert len(ious) == len(lines) == CLASSES * TRAIN // 3
    assert np.mean(ious) >= 0.85  # 0.897 on one CPU
