"""The stage scripts as a user meets them: bad input gives one line and exit code 2, and whatever
was there before stays."""

import json
import shutil
from functools import partialmethod

import cv2
import numpy as np
import pytest
from conftest import (
    TRAIN_NAMES,
    VAL_NAMES,
    refused,
)

from utils import training
from utils.inference import ListInference

STAGES = [(name, kind) for name in ('cls', 'cam', 'seg') for kind in ('train', 'test')]
every_stage = pytest.mark.parametrize(('name', 'kind'), STAGES)


def out_of(project, name):
    return project / f'cub200-{name}' / 'out'


def results(project, name):
    return json.loads((out_of(project, name) / 'results.json').read_text())


# ---------------------------------------------------------------- input


@every_stage
def test_bad_lists_and_flags_are_refused(stage, project, name, kind):
    refused(stage(name, kind, '--datapath', project / 'none'), project / 'none', '--datapath')
    refused(stage(name, kind, '--list', 'other.txt'), 'other.txt', '--list')
    refused(stage(name, kind, '--batch_size', '1.5'), '--batch_size', '1.5')
    refused(stage(name, kind, '--no_such_flag', 3), '--no_such_flag')
    refused(stage(name, kind, '--mode', 'val'), '--mode')
    lists = [project / 'data' / f'{split}.txt' for split in ('train', 'val')]
    good = [path.read_text() for path in lists]
    for line, number, said in (('a.jpg;1;2', 7, 'a.jpg;1;2'), (f'{TRAIN_NAMES[0]},2,1 1 9 9', 7,
                                                               '--clsnum')):
        for path in lists:
            path.write_text(good[0] + line + '\n')
        refused(stage(name, kind), f'line {number}', said)


@every_stage
def test_images_that_are_missing_or_cannot_be_decoded(stage, project, name, kind):
    names = TRAIN_NAMES if kind == 'train' or name == 'cam' else VAL_NAMES
    path = project / 'data' / 'image' / names[3]
    path.write_bytes(b'\xff\xd8 this is no picture')
    refused(stage(name, kind), names[3], 'cannot be read', '--skip_bad')
    (project / 'data' / 'mask' / names[3]).with_suffix('.png').unlink(missing_ok=True)
    code, out, err = stage(name, kind, '--skip_bad')
    assert code == 0, err
    assert (out_of(project, name) / 'bad_images.txt').read_text() == names[3] + '\n'
    assert 'left out 1 images' in out
    if (name, kind) == ('cam', 'test'):  # nothing is left but the bad one
        assert stage(name, kind, '--skip_bad', '--resume')[0] == 0
    before = (out_of(project, name) / 'results.json').read_bytes()
    path.unlink()
    refused(stage(name, kind, '--skip_bad'), names[3], 'no image')
    assert (out_of(project, name) / 'results.json').read_bytes() == before


@pytest.mark.parametrize(('name', 'kind', 'flags', 'said'), [
    ('cam', 'test', ('--snapshot', 'model-9'), 'no checkpoint'),
    ('cam', 'test', ('--crop', 32), '--crop needs --evaluate'),
    ('cam', 'test', ('--amp', 'apex'), 'apex'),
    ('cam', 'train', ('--momentum', 0), '--nesterov false'),
    ('cam', 'train', ('--batch_size', 1), 'batch norm'),
    ('cam', 'train', ('--resume',), 'last.ckpt'),
    ('cam', 'train', ('--device', 'toaster'), '--device toaster'),
    ('seg', 'train', ('--maskpath', 'none'), 'the pseudo mask'),
    ('seg', 'test', ('--top1top5', 'none.npy'), 'none.npy'),
    ('seg', 'test', ('--select', 'val.txt'), 'are also tested'),
    ('seg', 'test', ('--select', 'none.txt'), 'none.txt'),
    ('seg', 'test', ('--save_maps', '--metrics', 'paper'), 'leave out --metrics paper')])
def test_what_cannot_be_is_told(stage, name, kind, flags, said):
    refused(stage(name, kind, *flags), said)


# ---------------------------------------------------------------- one run after another


def test_a_second_training_replaces_the_models_and_the_tests_take_the_newest(stage, project):
    out = out_of(project, 'seg')
    assert stage('seg', 'train', '--epoch', 3)[0] == 0
    assert sorted(path.name for path in out.glob('model-?')) == ['model-1', 'model-2', 'model-3']
    code, said, err = stage('seg', 'train', '--epoch', 2)
    assert code == 0, err
    assert 'removed' in said
    assert sorted(path.name for path in out.glob('model-?')) == ['model-1', 'model-2']
    assert stage('seg', 'test')[0] == 0
    assert results(project, 'seg')['arguments']['snapshot'] == str(out / 'model-2')
    assert results(project, 'seg')['training']['arguments']['epoch'] == 2


def test_an_unfinished_training_is_continued_or_given_up_on_purpose(stage, project, monkeypatch):
    """SystemExit after step 2, as by a signal."""
    out = out_of(project, 'cam')
    with monkeypatch.context() as patch:
        codes = iter([None, 143])
        patch.setattr(training.Interruption, 'exit_code', lambda self: next(codes))
        code, said, _ = stage('cam', 'train', '--epoch', 2)
    assert code == 143
    assert f'stopped after step 2 of 4, saved in {out}/last.ckpt' in said
    refused(stage('cam', 'train', '--epoch', 2), 'unfinished run, at step 2 of 4', '--resume no')
    assert stage('cam', 'train', '--epoch', 2, '--resume')[0] == 0
    assert results(project, 'cam')['training']['steps'] == 4
    assert stage('cam', 'train', '--epoch', 1, '--resume', 'no')[0] == 0
    assert results(project, 'cam')['training']['steps'] == 2


# ---------------------------------------------------------------- variants of the network


@pytest.mark.parametrize(('flags', 'recorded'), [
    (('--stages', '2345', '--fusion', 'concatenate'),
     {'stages': '2345', 'fusion': 'concatenate', 'no_attention': False}),
    (('--stages', '5', '--fusion', 'add', '--no_attention', '--no_distillation'),
     {'stages': '5', 'fusion': 'add', 'no_attention': True})])
def test_a_variant_is_recorded_and_built_again_by_the_test(stage, project, flags, recorded):
    code, _, err = stage('cam', 'train', *flags)
    assert code == 0, err
    found = json.loads((out_of(project, 'cam') / 'model-1.json').read_text())
    assert {name: found[name] for name in recorded} == recorded
    code, _, err = stage('cam', 'test', '--evaluate')
    assert code == 0, err
    assert stage('cam', 'test', '--no_prior')[0] == 0
    assert json.loads((project / 'data' / 'mask' / 'masks.json').read_text())['prior'] is False
    for name in TRAIN_NAMES:
        mask = cv2.imread(str((project / 'data' / 'mask' / name).with_suffix('.png')))
        assert not mask[..., 1:].any()


class Stop(BaseException):
    pass


@pytest.fixture
def groups(run_script, project, monkeypatch):
    """groups(script) -> each trained parameter's name and its group's rate, as the script has them;
    the others' names."""
    def build(script, *arguments):
        made = []

        def stop(model, dataset, groups, loss, options, *more, **named):
            names = {id(p): name for name, p in model.named_parameters()}
            rates = {names[id(p)]: group.get('lr', options.lr)
                     for group in groups for p in group['params']}
            made.append((rates, set(names.values()) - rates.keys(), options, named))

        monkeypatch.setattr(training, 'train', stop)
        code, _, err = run_script(script, '--datapath', project / 'data', '--clsnum', 2,
                                  '--pretrained', 'none', '--savepath', project / 'out', *arguments)
        assert code == 0, err
        return made[0]

    return build


def test_what_trains_at_which_rate_on_cub(groups):
    rates, left, options, _ = groups('cub200-cam/train.py')
    assert rates == {name: pytest.approx(0.002 if name.startswith('backbone.') else 0.02)
                     for name in rates}
    assert left == set()
    assert (options.momentum, options.nesterov, options.weight_decay) == (0.9, True, 1e-4)
    rates, left, _, named = groups('cub200-seg/train.py')
    assert set(rates.values()) == {0.02}
    assert left == set()
    assert named['should_save'] is training.every_epoch
    rates, left, _, named = groups('cub200-cls/train.py', '--arch', 'resnet50')
    assert rates == {name: pytest.approx(0.05 if name.startswith('fc.') else 0.005)
                     for name in rates}
    assert left == set()
    assert named['schedule'] is training.linear_decay


def test_what_trains_at_which_rate_on_imagenet(groups, project):
    data = project / 'data'
    (data / 'image').rename(data / 'train')
    (data / 'train.txt').write_text(''.join(f'{name} {number % 2}\n'
                                            for number, name in enumerate(TRAIN_NAMES)))
    rates, left, _, named = groups('imagenet-cam/train.py')
    assert left == {'backbone.conv1.weight', 'backbone.bn1.weight', 'backbone.bn1.bias'}
    assert rates == {name: pytest.approx(0.002 if name.startswith('backbone.') else 0.02)
                     for name in rates}
    assert named['save_model_every'] == 2000
    rates, left, _, _ = groups('imagenet-seg/train.py')
    assert (set(rates.values()), left) == ({0.02}, set())


# ---------------------------------------------------------------- by processes, as on CUDA


def test_processes_write_what_threads_write(stage, project, monkeypatch):
    out, found = out_of(project, 'seg'), []
    hits = out_of(project, 'cls') / 'top1top5.npy'
    for processes in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(ListInference, '__init__', partialmethod(ListInference.__init__,
                                                                   processes=processes))
            for name, *flags in (('cam', '--overwrite'), ('cls',), ('seg', '--top1top5', hits,
                                                                   '--sweep')):
                code, _, err = stage(name, 'test', *flags)
                assert code == 0, err
        figures = results(project, 'seg')
        masks = [cv2.imread(str((project / 'data' / 'mask' / name).with_suffix('.png'))).astype(int)
                 for name in TRAIN_NAMES]
        found.append((masks, (out / 'boxes.csv').read_text(), hits.read_bytes(),
                      {name: figures[name] for name in ('strict', 'paper', 'max_box_acc', 'pxap',
                                                        'sweep')}))
        shutil.rmtree(project / 'data' / 'mask')
    assert found[0][1:] == found[1][1:]
    for one, other in zip(found[0][0], found[1][0], strict=True):
        assert np.abs(one - other).max() <= 1
        assert (one != other).mean() < 1e-3
