"""The training loop: what is logged, saved, resumed, and refused."""

import json
import os
import re
import signal
import subprocess
import sys
from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import Dataset

from utils import training
from utils.errors import InputError
from utils.lists import ImageList
from utils.results import RunFolder
from utils.training import every_epoch, late_epochs, linear_decay, train

CPU = torch.device('cpu')
IMAGES = 10
NAMES = np.array([f'{number}.jpg' for number in range(IMAGES)])


class Colours(Dataset):
    """Eight-pixel images of one colour, their class, and a change that depends on the epoch."""

    images = ImageList(NAMES, np.arange(IMAGES) % 2, None, Path())

    def __len__(self):
        return IMAGES

    def __getitem__(self, key):
        epoch, index = key
        image = torch.full((8, 8, 3), 20 * index + epoch, dtype=torch.uint8)
        return {'image': image, 'label': index % 2}

    def fingerprint(self):
        return {'content of the list': self.images.checksum()}


class TinyNet(nn.Module):
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
                                    nn.Dropout(0.5))
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        return self.head(self.layers(images).mean((2, 3)))


def loss(model, batch):
    return {'total': nn.functional.cross_entropy(model(batch['image']), batch['label'])}


OPTIONS = dict(epoch=4, batch_size=4, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4,
               seed=0, amp='off', num_workers=0, snapshot=None, resume=None, save_every=None,
               max_steps=None)


def run(folder, loss=loss, dataset=None, device=CPU, groups=None, **changes):
    """Train a TinyNet in `folder`; its weights at the end. `changes`: options, or parameters of
    `train`."""
    options = Namespace(**{name: changes.pop(name, value) for name, value in OPTIONS.items()})
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    model = TinyNet()
    train(model, dataset or Colours(), groups(model) if groups else
          [{'params': model.parameters()}], loss, options, device,
          RunFolder(folder, vars(options)), **changes)
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def files(folder):
    return sorted(path.name for path in folder.iterdir() if 'tfevents' not in path.name)


# ---------------------------------------------------------------- the loop


def test_kept_epochs_and_rates_are_the_papers():
    assert [e for e in range(1, 21) if late_epochs(e, 20)] == list(range(12, 21))
    assert [e for e in range(1, 33) if late_epochs(e, 32)] == list(range(18, 33))
    assert [linear_decay(e, 4) for e in range(4)] == [1, 0.75, 0.5, 0.25]


def test_same_seed_same_weights_whatever_the_workers(tmp_path):
    first = run(tmp_path / 'a')
    assert equal(first, run(tmp_path / 'b', num_workers=2))
    assert not equal(first, run(tmp_path / 'c', seed=1))


def test_rates_of_groups_follow_the_schedule(tmp_path, monkeypatch):
    seen, made = [], []
    sgd = torch.optim.SGD

    def groups(model):
        return [{'params': model.head.parameters()}, {'params': model.layers.parameters(),
                                                      'lr': 0.01}]

    def spy(model, batch):
        seen.append([group['lr'] for group in made[0].param_groups])
        return loss(model, batch)

    monkeypatch.setattr(torch.optim, 'SGD', lambda *a, **k: made.append(sgd(*a, **k)) or made[0])
    run(tmp_path, spy, groups=groups, epoch=2, schedule=linear_decay)
    assert seen == [[0.1, 0.01]] * 3 + [[0.05, 0.005]] * 3
    for group in made[0].param_groups:
        assert (group['momentum'], group['nesterov'], group['weight_decay']) == (0.9, True, 1e-4)


def test_models_are_plain_state_dicts_and_the_last_always_is_kept(tmp_path):
    final = run(tmp_path, epoch=1)
    assert files(tmp_path) == ['last.ckpt', 'model-1', 'model-1.json', 'results.json']
    assert equal(torch.load(tmp_path / 'model-1', weights_only=True), final)
    recorded = json.loads((tmp_path / 'results.json').read_text())['training']
    assert (recorded['steps'], recorded['amp'], recorded['device']) == (3, 'off', 'cpu')
    assert json.loads((tmp_path / 'model-1.json').read_text())['seed'] == 0


@pytest.mark.parametrize(('changes', 'names'), [
    (dict(), {'model-4'}), (dict(should_save=every_epoch, epoch=3), {'model-1', 'model-2',
                                                                    'model-3'}),
    (dict(save_model_every=4, epoch=3), {'model-4', 'model-8', 'model-9'}),
    (dict(save_model_every=4, max_steps=7), {'model-4', 'model-7'}),
    (dict(max_steps=7), {'model-3'})])
def test_which_models_are_saved(tmp_path, changes, names):
    run(tmp_path, **changes)
    assert {path.name for path in tmp_path.glob('model-?')} == names


def test_apex_scales_the_loss(tmp_path, monkeypatch):
    calls = []

    @contextmanager
    def scale_loss(loss, optimizer):
        calls.append('scaled')
        yield loss.float()

    amp = Namespace(scale_loss=scale_loss, initialize=lambda model, optimizer, opt_level,
                    verbosity: calls.append(opt_level))
    monkeypatch.setitem(sys.modules, 'apex', Namespace(amp=amp))
    found, expected = run(tmp_path / 'a', amp='apex'), run(tmp_path / 'b')
    assert calls == ['O2', *['scaled'] * 12]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


# ---------------------------------------------------------------- the log


def points(folder, name):
    events = EventAccumulator(str(folder), size_guidance={'images': 0})
    events.Reload()
    return [event.step for event in events.Scalars(name)]


def test_a_second_run_in_a_folder_is_the_only_one_in_tensorboard(tmp_path):
    run(tmp_path, epoch=3)
    run(tmp_path, epoch=2)
    assert points(tmp_path, 'loss/total') == [3, 6]
    run(tmp_path / 'part', max_steps=6)
    run(tmp_path / 'part', resume='yes')
    assert points(tmp_path / 'part', 'loss/total') == [3, 6, 9, 12]


@pytest.mark.parametrize(('changes', 'said'), [
    (dict(batch_size=4), ['training: 12 steps', '12 steps are few', "paper's run has 376",
                          '--batch_size 4 --epoch 126']),
    (dict(batch_size=64), ['training: 4 steps', '--batch_size 64 exceeds the 10 images',
                           '--batch_size 10 --epoch 376'])])
def test_too_few_steps_are_named_at_the_start(tmp_path, capsys, changes, said):
    run(tmp_path, **changes, paper_steps=376)
    out = capsys.readouterr().out
    assert all(words in out for words in said)


# ---------------------------------------------------------------- resuming


def test_a_resumed_run_ends_where_an_undisturbed_one_does(tmp_path):
    whole = run(tmp_path / 'whole', should_save=every_epoch)
    for stop in (1, 2, 3, 4, 6, 11):  # within and at the end of epochs of 3 steps
        part = tmp_path / str(stop)
        run(part, should_save=every_epoch, max_steps=stop)
        assert equal(run(part, should_save=every_epoch, resume='yes'), whole)


def test_a_finished_run_is_not_resumed_but_completed(tmp_path, capsys):
    """As after a kill between the last checkpoint and the results."""
    weights = run(tmp_path)
    before = (tmp_path / 'results.json').read_bytes()
    run(tmp_path, resume='yes')
    assert 'all 12 steps are done already' in capsys.readouterr().out
    assert (tmp_path / 'results.json').read_bytes() == before
    for name in ('results.json', 'model-4'):
        (tmp_path / name).unlink()
    run(tmp_path, resume='yes')
    assert json.loads((tmp_path / 'results.json').read_text())['training']['steps'] == 12
    assert equal(torch.load(tmp_path / 'model-4', weights_only=True), weights)


def interrupt_in_step(stop, number=signal.SIGTERM):
    steps = []

    def interrupted(model, batch):
        steps.append(1)
        if len(steps) == stop:
            os.kill(os.getpid(), number)
        return loss(model, batch)

    return interrupted


def stopped(folder, **changes):
    with pytest.raises(SystemExit):
        run(folder, interrupt_in_step(5), **changes)


def test_an_unfinished_run_is_not_overwritten_by_accident(tmp_path):
    """Where --resume is forgotten."""
    whole = run(tmp_path / 'whole')
    stopped(tmp_path / 'part')
    before = (tmp_path / 'part' / 'last.ckpt').read_bytes()
    with pytest.raises(InputError, match='unfinished run, at step 5 of 12: .*--resume no'):
        run(tmp_path / 'part')
    assert (tmp_path / 'part' / 'last.ckpt').read_bytes() == before
    assert equal(run(tmp_path / 'part', resume='no'), whole)
    assert equal(run(tmp_path / 'part'), whole)  # it was finished


@pytest.mark.parametrize(('resume', 'epoch', 'left'), [(None, 2, 'model-2'), ('no', 1, 'model-1')])
def test_a_new_training_removes_the_models_of_the_run_before(tmp_path, capsys, resume, epoch, left):
    """Else a test would take them for its own."""
    run(tmp_path, epoch=4, should_save=every_epoch)
    run(tmp_path, epoch=epoch, resume=resume)
    assert sorted(path.name for path in tmp_path.glob('model-*')) == [left, f'{left}.json']
    assert 'removed 3 models of the run before' in capsys.readouterr().out
    run(tmp_path, epoch=epoch, resume='auto')
    assert (tmp_path / left).exists()


def test_a_model_that_was_not_trained_here_is_not_removed(tmp_path):
    """As one of tools/download.py."""
    (tmp_path / 'model-8').write_bytes(b'downloaded')
    with pytest.raises(InputError, match='model-8 was not trained here'):
        run(tmp_path)
    assert (tmp_path / 'model-8').read_bytes() == b'downloaded'


def change(state, **values):
    state['run'].update({name.replace('_', ' '): value for name, value in values.items()})


@pytest.mark.parametrize(('changes', 'recorded', 'said'), [
    (dict(batch_size=5, lr=1.0), {}, '--batch_size 4 instead of 5, --lr 0.1 instead of 1'),
    (dict(amp='bf16'), {}, 'precision off instead of bf16'),
    (dict(max_steps=2), {}, '3 steps are done already'),
    (dict(epoch=8), {}, '--epoch 4 instead of 8'),
    ({}, {'number_of_ranks': 2}, 'number of ranks 2 instead of 1'),
    ({}, {'content_of_the_list': 1}, 'content of the list 1 instead of')])
def test_resume_needs_the_same_run(tmp_path, changes, recorded, said):
    run(tmp_path, max_steps=3)
    state = torch.load(tmp_path / 'last.ckpt', weights_only=True)
    change(state, **recorded)
    torch.save(state, tmp_path / 'last.ckpt')
    with pytest.raises(InputError, match=re.escape(said)):
        run(tmp_path, resume='yes', **changes)


def test_states_that_cannot_be_read_are_named(tmp_path):
    from test_weights import Malicious

    path = tmp_path / 'last.ckpt'
    with pytest.raises(InputError, match='last.ckpt cannot be resumed .*No such file'):
        run(tmp_path, resume='yes')
    run(tmp_path, max_steps=3)
    whole = path.read_bytes()
    torch.save({'model': Malicious(tmp_path / 'victim')}, path)
    malicious = path.read_bytes()
    torch.save(TinyNet().state_dict(), path)
    for content in (whole[:-500], malicious, path.read_bytes()):
        path.write_bytes(content)
        for resume in ('yes', 'auto', None):
            with pytest.raises(InputError, match='last.ckpt cannot be resumed .*--resume no'):
                run(tmp_path, resume=resume)
    assert not (tmp_path / 'victim').exists()
    run(tmp_path, resume='no')


# ---------------------------------------------------------------- signals, locks, saving


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130),
                                              (signal.SIGHUP, 129)])
def test_a_signal_saves_and_tells_how_to_go_on(tmp_path, capsys, number, code):
    whole = run(tmp_path / 'whole')
    with pytest.raises(SystemExit) as end:
        run(tmp_path / 'part', interrupt_in_step(5, number))
    assert end.value.code == code
    out = capsys.readouterr().out
    assert 'stopped after step 5 of 12' in out
    assert '--resume' in out
    assert not (tmp_path / 'part' / 'model-4').exists()
    assert equal(run(tmp_path / 'part', resume='yes'), whole)


HOLD = ('import sys, time; from pathlib import Path; from utils.training import locked\n'
        'with locked(Path(sys.argv[1])): print("locked", flush=True); time.sleep(100)')


def test_two_trainings_in_one_folder_are_refused_and_a_dead_ones_lock_is_not(tmp_path):
    with subprocess.Popen([sys.executable, '-c', HOLD, tmp_path], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == 'locked\n'
        with pytest.raises(InputError, match='another process is training in'):
            run(tmp_path)
        assert files(tmp_path) == ['training.lock']
        other.kill()
    run(tmp_path, epoch=1)
    assert 'training.lock' not in files(tmp_path)


def test_the_state_is_saved_by_time(tmp_path, monkeypatch):
    saved = []
    save = torch.save
    monkeypatch.setattr(torch, 'save', lambda state, file: (
        saved.append(state.get('step')), save(state, file)))
    run(tmp_path, should_save=late_epochs)
    assert saved == [None, 12]  # the model and the state, at the end
    saved.clear()
    monkeypatch.setattr(training, 'SECONDS_BETWEEN_SAVES', -1)
    run(tmp_path)
    assert [step for step in saved if step] == list(range(1, 13))


# ---------------------------------------------------------------- what ends a training


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing(tmp_path):
    def explode(model, batch):
        return {'total': loss(model, batch)['total'] * float('inf')}

    with pytest.raises(InputError, match='the total loss is (inf|nan) at step 1'):
        run(tmp_path, explode)
    assert not list(tmp_path.glob('model-*'))


@pytest.mark.parametrize('name', ['head.bias', 'layers.1.running_var'])
def test_parameters_and_buffers_that_are_not_finite_are_not_saved(tmp_path, name):
    def poison(model, batch):
        with torch.no_grad():
            model.state_dict()[name].fill_(float('nan'))
        return {'total': loss(TinyNet(), batch)['total'] + 0 * model.head.weight.sum()}

    with pytest.raises(InputError, match=f'{name} is no longer finite'):
        run(tmp_path, poison)
    assert not {'last.ckpt', 'model-4'} & set(files(tmp_path))
