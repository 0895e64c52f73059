"""The stage scripts as a user meets them: bad input gives one line and exit code 2, and whatever
was there before stays."""

import json
import shutil
from functools import partialmethod

import cv2
import numpy as np
import pytest
from conftest import TRAIN_NAMES, VAL_NAMES, encoded, refused

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
def test_bad_lists_are_refused(stage, project, name, kind):
    refused(stage(name, kind, '--datapath', project / 'none'), project / 'none', '--datapath')
    refused(stage(name, kind, '--list', 'other.txt'), 'other.txt', '--list')
    lists = [project / 'data' / f'{split}.txt' for split in ('train', 'val')]
    good = [path.read_text() for path in lists]
    for line, number, said in (('a.jpg;1;2', 7, 'a.jpg;1;2'), (f'{TRAIN_NAMES[0]},2,1 1 9 9', 7,
                                                               '--clsnum')):
        for path in lists:
            path.write_text(good[0] + line + '\n')
        refused(stage(name, kind), f'line {number}', said)


@every_stage
def test_images_that_are_missing_or_cannot_be_decoded(stage, project, name, kind):
    """Its header is whole: a process that reads finds the damage."""
    names = TRAIN_NAMES if kind == 'train' or name == 'cam' else VAL_NAMES
    path = project / 'data' / 'image' / names[3]
    path.write_bytes(encoded(cv2.imread(str(path)), '.jpg')[:1500])
    refused(stage(name, kind, '--num_workers', 1), f'error: {path} cannot be read as an image')
    path.unlink()
    refused(stage(name, kind), names[3], 'no image')
    assert not (out_of(project, name) / 'results.json').exists()


@pytest.mark.parametrize(('name', 'kind', 'flags', 'said'), [
    ('cam', 'test', ('--crop', 32), '--crop needs --evaluate'),
    ('cam', 'test', ('--amp', 'apex'), 'apex'),
    ('cam', 'train', ('--batch_size', 1), 'batch norm'),
    ('cam', 'train', ('--resume',), 'last.ckpt'),
    ('cam', 'train', ('--device', 'toaster'), '--device toaster'),
    ('seg', 'train', ('--maskpath', 'none'), 'the pseudo mask'),
    ('seg', 'test', ('--top1top5', 'none.npy'), 'none.npy'),
    ('seg', 'test', ('--select', 'val.txt'), 'are also tested'),
    ('seg', 'test', ('--save_maps', '--metrics', 'paper'), 'leave out --metrics paper')])
def test_what_cannot_be_is_told(stage, name, kind, flags, said):
    refused(stage(name, kind, *flags), said)


# ---------------------------------------------------------------- one run after another


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
    for name in TRAIN_NAMES:
        mask = cv2.imread(str((project / 'data' / 'mask' / name).with_suffix('.png')))
        assert not mask[..., 1:].any()


NEW_FASTER = {'': 0.02, 'backbone.': 0.002}
STEM = {'backbone.conv1.weight', 'backbone.bn1.weight', 'backbone.bn1.bias'}


@pytest.mark.parametrize(('script', 'rates', 'still', 'schedule'), [
    ('cub200-cls', {'': 0.005, 'fc.': 0.05}, set(), {'schedule': training.linear_decay}),
    ('cub200-cam', NEW_FASTER, set(), {}), ('imagenet-cam', NEW_FASTER, STEM,
                                            {'save_model_every': 2000}),
    ('cub200-seg', {'': 0.02}, set(), {'should_save': training.every_epoch}),
    ('imagenet-seg', {'': 0.02}, set(), {})])
def test_what_trains_at_which_rate(run_script, project, monkeypatch, script, rates, still,
                                   schedule):
    """`rates`: by the beginnings of the parameters' names."""
    found, given = {}, {}

    def note(model, dataset, groups, loss, options, *more, **named):
        names = {id(p): name for name, p in model.named_parameters()}
        found.update(dict.fromkeys(names.values()))
        found.update({names[id(p)]: group.get('lr', options.lr)
                      for group in groups for p in group['params']})
        given.update(named)

    data = project / 'data'
    (data / 'train').symlink_to(data / 'image')
    if script.startswith('imagenet'):
        (data / 'train.txt').write_text(''.join(f'{name} 0\n' for name in TRAIN_NAMES))
    monkeypatch.setattr(training, 'train', note)
    network = ('--arch', 'resnet50') if script.endswith('cls') else ()
    code, _, err = run_script(f'{script}/train.py', '--datapath', data, '--clsnum', 2, '--savepath',
                              project / 'out', '--pretrained', 'none', *network)
    assert code == 0, err
    for name, rate in found.items():
        expected = rates[max((part for part in rates if name.startswith(part)), key=len)]
        assert rate == (None if name in still else pytest.approx(expected)), name
    assert schedule.items() <= given.items()


# ---------------------------------------------------------------- by processes, as on CUDA


def test_processes_write_what_threads_write(stage, project, monkeypatch):
    out, found = out_of(project, 'seg'), []
    hits = out_of(project, 'cls') / 'top1top5.npy'
    for processes in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(ListInference, '__init__', partialmethod(ListInference.__init__,
                                                                   processes=processes))
            for name, *flags in (('cam',), ('cls',), ('seg', '--top1top5', hits, '--sweep')):
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
