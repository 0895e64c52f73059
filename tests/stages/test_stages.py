"""The stage scripts as a user meets them: bad input gives one line and exit code 2, and whatever
was there before stays."""

import os
import re
import shutil
from functools import partialmethod

import cv2
import numpy as np
import pytest
import torch
from conftest import LITE, TINY

from network import CamNet, SegNet
from utils.engine.inference import Inference
from utils.engine.trainer import Trainer
from utils.outputs.top1top5 import write_top1top5

CLASSES = 2
SMALL = ('--clsnum', CLASSES, '--resize', 40, '--crop', 32, '--num_workers', 0)
NAMES = [f'{number % CLASSES}/{number}.jpg' for number in range(6)]


@pytest.fixture
def data(tmp_path):
    """Six images of two classes in the CUB layout, with pseudo masks."""
    rng = np.random.default_rng(0)
    lines = []
    for number, name in enumerate(NAMES):
        for folder, path in (('image', name), ('mask', name.replace('.jpg', '.png'))):
            file = tmp_path / 'data' / folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), rng.integers(0, 255, (50, 60, 3), np.uint8))
        lines.append(f'{name},{number % CLASSES},5 6 40 45')
    for split in ('train.txt', 'val.txt'):
        (tmp_path / 'data' / split).write_text('\n'.join(lines) + '\n')
    return tmp_path / 'data'


@pytest.fixture(scope='module')
def snapshots(tmp_path_factory):
    folder = tmp_path_factory.mktemp('snapshots')
    torch.save(CamNet(CLASSES, TINY, pretrained='none').state_dict(), folder / 'cam')
    torch.save(SegNet(TINY, pretrained='none').state_dict(), folder / 'seg')
    return folder


@pytest.fixture
def stage(run_script, data, snapshots, tmp_path):
    """stage('cam', 'train', ...) runs a CUB stage on the data above."""
    def call(name, kind, *arguments):
        network = '--arch' if name == 'cls' else '--backbone'
        extra = []
        if kind == 'train':
            extra = ['--batch_size', 3, '--epoch', 1, '--pretrained', 'none']
        elif name in ('cam', 'seg') and '--snapshot' not in arguments:
            extra = ['--snapshot', snapshots / name]
        if (name, kind) == ('cam', 'test'):
            extra += ['--crop', 0] * ('--evaluate' not in arguments)
        return run_script(f'cub200-{name}/{kind}.py', '--datapath', data, '--savepath',
                          tmp_path / 'out', *SMALL, network, TINY, *extra, *arguments)

    return call


def assert_refused(result, *parts):
    code, out, err = result
    errors = [line for line in err.splitlines() if line.startswith('error:')]
    assert code == 2, err
    assert len(errors) == 1
    assert 'Traceback' not in err + out
    for part in parts:
        assert str(part) in errors[0]


@pytest.mark.parametrize(('name', 'kind'), [(n, k) for n in ('cls', 'cam', 'seg')
                                            for k in ('train', 'test')])
class TestEveryStage:
    def test_missing_data_folder(self, run_script, name, kind, tmp_path):
        assert_refused(run_script(f'cub200-{name}/{kind}.py', '--datapath', tmp_path / 'none'),
                       tmp_path / 'none', '--datapath')

    def test_missing_list(self, stage, name, kind):
        assert_refused(stage(name, kind, '--list', 'other.txt'), 'other.txt', '--list')

    def test_malformed_line(self, stage, data, name, kind):
        for split in ('train.txt', 'val.txt'):
            path = data / split
            path.write_text(path.read_text() + 'a.jpg;1;2\n')
        assert_refused(stage(name, kind), 'line 7', 'a.jpg;1;2')

    def test_label_outside_the_classes(self, stage, data, name, kind):
        for split in ('train.txt', 'val.txt'):
            (data / split).write_text(f'{NAMES[0]},0,1 1 9 9\n{NAMES[1]},2,1 1 9 9\n')
        assert_refused(stage(name, kind), 'line 2', "'2'", '--clsnum')

    def test_wrong_flags(self, stage, name, kind):
        assert_refused(stage(name, kind, '--batch_size', '1.5'), '--batch_size', '1.5')
        assert_refused(stage(name, kind, '--no_such_flag', 3), '--no_such_flag')
        assert_refused(stage(name, kind, '--mode', 'val'), '--mode')


@pytest.mark.parametrize(('name', 'kind'), [('cls', 'train'), ('cam', 'train'), ('cam', 'test'),
                                            ('seg', 'train'), ('seg', 'test')])
def test_image_that_is_missing_or_cannot_be_decoded(stage, data, tmp_path, name, kind):
    write_top1top5(tmp_path / 'hits.npy', NAMES, [True] * 6, [True] * 6)
    more = ('--top1top5', tmp_path / 'hits.npy') if (name, kind) == ('seg', 'test') else ()
    (data / 'image' / NAMES[4]).write_bytes(b'\xff\xd8 this is no picture')
    assert_refused(stage(name, kind, *more), NAMES[4], 'cannot be read')
    (data / 'image' / NAMES[4]).unlink()
    assert_refused(stage(name, kind, *more), NAMES[4], 'no image')
    assert not (tmp_path / 'out' / 'results.json').exists()


def test_missing_masks(stage, data):
    shutil.rmtree(data / 'mask')
    assert_refused(stage('seg', 'train'), data / 'mask', 'no pseudo mask')


def test_missing_checkpoint(stage, tmp_path):
    assert_refused(stage('cam', 'test', '--snapshot', tmp_path / 'model-9'), 'model-9')


def test_truncated_checkpoint(stage, snapshots, tmp_path):
    content = (snapshots / 'seg').read_bytes()
    (tmp_path / 'short').write_bytes(content[:len(content) // 2])
    assert_refused(stage('seg', 'test', '--top1top5', 'none', '--snapshot', tmp_path / 'short'),
                   'short', 'truncated')


def test_checkpoint_of_another_network(stage, snapshots):
    result = stage('seg', 'test', '--top1top5', 'none', '--snapshot', snapshots / 'cam')
    assert_refused(result, 'head.weight (2, 128, 1, 1) instead of (1, 128, 1, 1)')


def test_hits_without_an_image_of_the_list(stage, tmp_path):
    write_top1top5(tmp_path / 'hits.npy', NAMES[:5], [True] * 5, [True] * 5)
    assert_refused(stage('seg', 'test', '--top1top5', tmp_path / 'hits.npy'), NAMES[5],
                   'hits.npy')
    assert_refused(stage('seg', 'test', '--top1top5', tmp_path / 'none.npy'), 'none.npy')


def test_pseudo_masks_need_the_whole_image(stage):
    assert_refused(stage('cam', 'test', '--crop', 32), '--crop 32')


def test_flags_that_contradict_each_other(stage):
    assert_refused(stage('cam', 'train', '--momentum', 0), '--nesterov false')
    assert_refused(stage('cam', 'train', '--batch_size', 1), 'batch norm')
    assert_refused(stage('cam', 'test', '--amp', 'apex'), 'apex')


def test_a_snapshot_needs_no_pretrained_weights(run_script, data, tmp_path, monkeypatch):
    from network import weights

    monkeypatch.setattr(weights, 'TORCHVISION_URL', 'http://127.0.0.1:9/')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr(Trainer, 'run', lambda self: None)
    torch.save(CamNet(CLASSES, pretrained='none').state_dict(), tmp_path / 'model')
    code, _, err = run_script('cub200-cam/train.py', '--datapath', data, *SMALL, '--savepath',
                              tmp_path / 'out', '--snapshot', tmp_path / 'model')
    assert code == 0, err


def test_output_folder_that_cannot_be_made(run_script, data, tmp_path):
    (tmp_path / 'file').touch()
    assert_refused(run_script('cub200-cam/train.py', '--datapath', data, '--savepath',
                              tmp_path / 'file' / 'out', *SMALL, '--backbone', LITE,
                              '--epoch', 1, '--batch_size', 3), tmp_path / 'file')


def test_never_silently_from_random_weights(run_script, data, tmp_path, monkeypatch):
    from network import weights

    monkeypatch.setattr(weights, 'RESOURCE', tmp_path)
    monkeypatch.setattr(weights, 'TORCHVISION_URL', 'http://127.0.0.1:9/')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    assert_refused(run_script('cub200-cam/train.py', '--datapath', data, *SMALL),
                   'resnet50-19c8e357.pth', tmp_path)


def test_grey_rgba_and_16_bit_images_are_read(stage, data, tmp_path):
    rng = np.random.default_rng(1)
    for name, shape, dtype in ((NAMES[0], (50, 60), np.uint8), (NAMES[1], (50, 60, 4), np.uint8),
                               (NAMES[2], (50, 60, 3), np.uint16)):
        png = cv2.imencode('.png', rng.integers(0, 255, shape).astype(dtype))[1]
        (data / 'image' / name).write_bytes(png)  # the content tells the format
    code, out, err = stage('cam', 'test')
    assert code == 0, err
    assert '6 pseudo masks' in out
    assert len(list((data / 'mask').rglob('*.png'))) == 6


def test_masks_are_not_mixed_with_those_of_another_checkpoint(stage, data, snapshots, tmp_path):
    first, second = data / 'mask' / '0' / '0.png', data / 'mask' / '1' / '1.png'
    assert stage('cam', 'test')[0] == 0
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    os.utime(first, (1, 1))  # from before masks.json: --resume makes it again
    code, _, err = stage('cam', 'test', '--resume')
    assert code == 0, err
    assert first.read_bytes() == content
    other = tmp_path / 'other' / 'model-1'
    other.parent.mkdir()
    other.write_bytes((snapshots / 'cam').read_bytes() + b' ')
    assert_refused(stage('cam', 'test', '--snapshot', other), snapshots / 'cam', '--overwrite')
    code, out, err = stage('seg', 'train', '--max_steps', 1)
    assert code == 0, err
    assert f'made by {snapshots / "cam"} at --resize 40\n' in out


def test_flags_have_the_documented_defaults(run_script):
    """The paper's settings, as --help shows them."""
    expected = {
        'cub200-cls/train.py': dict(batch_size=16, epoch=20, lr=0.05, resize=685, crop=600),
        'cub200-cls/test.py': dict(batch_size=16, resize=685, crop=0, list='val.txt'),
        'cub200-cam/train.py': dict(batch_size=64, epoch=32, lr=0.02, resize=256, crop=224),
        'cub200-cam/test.py': dict(resize=256, amp='off', threshold=0.2),
        'cub200-seg/train.py': dict(batch_size=128, epoch=8, lr=0.02, resize=256, crop=224),
        'cub200-seg/test.py': dict(resize=256, crop=224, list='val.txt', threshold=0.2),
        'imagenet-cam/train.py': dict(batch_size=128, epoch=1, lr=0.02, clsnum=1000),
        'imagenet-seg/train.py': dict(batch_size=128, epoch=1, lr=0.02, clsnum=1000),
        'imagenet-seg/test.py': dict(threshold=0.8, list='val.txt', crop=224),
    }
    for script, defaults in expected.items():
        code, out, _ = run_script(script, '--help')
        assert code == 0
        for name, value in defaults.items():
            entry = re.search(rf'^ +--{name} .*?\(default:\s+(\S+)\)', out,
                              re.DOTALL | re.MULTILINE)
            assert entry[1] == str(value), (script, name)


@pytest.fixture
def trainer(monkeypatch, data):
    """trainer(script, ...) -> the Trainer that the script would run."""
    def build(run_script, script, *arguments):
        made = []
        monkeypatch.setattr(Trainer, 'run', lambda self: made.append(self))
        code, _, err = run_script(script, '--datapath', data, *SMALL, '--pretrained', 'none',
                                  *arguments)
        assert code == 0, err
        return made[0]

    return build


def rates(trainer):
    """Each trained parameter's name -> (rate, momentum, Nesterov, weight decay)."""
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    return {names[id(p)]: (group['lr'], group['momentum'], group['nesterov'],
                           group['weight_decay'])
            for group in trainer.optimizer.param_groups for p in group['params']}


def test_what_trains_at_which_rate_on_cub(run_script, trainer, data):
    made = trainer(run_script, 'cub200-cam/train.py', '--savepath', data / 'out')
    names = {name for name, _ in made.model.named_parameters()}
    assert rates(made) == {name: (pytest.approx(0.002 if name.startswith('backbone.') else 0.02),
                                  0.9, True, 1e-4) for name in names}
    made = trainer(run_script, 'cub200-seg/train.py', '--savepath', data / 'out')
    assert rates(made) == dict.fromkeys(names, (0.02, 0.9, True, 1e-4))
    made = trainer(run_script, 'cub200-cls/train.py', '--savepath', data / 'out', '--arch',
                   'resnet50')
    assert rates(made) == {name: (pytest.approx(0.05 if name.startswith('fc.') else 0.005),
                                  0.9, True, 1e-4) for name, _ in made.model.named_parameters()}


@pytest.fixture
def imagenet_data(data):
    """The same images in the ImageNet layout, in `train/`."""
    (data / 'image').rename(data / 'train')
    (data / 'train.txt').write_text(''.join(f'{name} {k % CLASSES}\n'
                                            for k, name in enumerate(NAMES)))
    return data


def test_what_trains_at_which_rate_on_imagenet(run_script, trainer, imagenet_data):
    made = trainer(run_script, 'imagenet-cam/train.py', '--savepath', imagenet_data / 'out')
    frozen = {'backbone.conv1.weight', 'backbone.bn1.weight', 'backbone.bn1.bias'}
    names = {name for name, _ in made.model.named_parameters()}
    assert rates(made) == {name: (pytest.approx(0.002 if name.startswith('backbone.') else 0.02),
                                  0.9, True, 1e-4) for name in names - frozen}
    assert made.model.backbone.bn1.training
    made = trainer(run_script, 'imagenet-seg/train.py', '--savepath', imagenet_data / 'out')
    assert rates(made) == dict.fromkeys(names, (0.02, 0.9, True, 1e-4))


def test_a_pipeline_writes_the_masks_that_threads_write(stage, data, monkeypatch, tmp_path):
    """The way of CUDA on the CPU: resized as a batch, so equal but for rounding."""
    assert stage('cam', 'test', '--maskpath', tmp_path / 'threads')[0] == 0
    monkeypatch.setattr(Inference, '__init__', partialmethod(Inference.__init__, pipelined=True))
    assert stage('cam', 'test', '--maskpath', tmp_path / 'pipeline')[0] == 0
    for name in NAMES:
        one, other = (cv2.imread(str((tmp_path / folder / name).with_suffix('.png'))).astype(int)
                      for folder in ('threads', 'pipeline'))
        assert (one != other).mean() < 0.01
        assert np.abs(one - other).max() <= 1
