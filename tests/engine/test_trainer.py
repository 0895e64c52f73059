"""The training loop: what is drawn, saved, resumed, and refused."""

import json
import re
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import Dataset

from utils.data.lists import ImageList
from utils.data.loader import EpochSampler
from utils.engine import training_log
from utils.engine.checkpoint import save_model
from utils.engine.precision import Precision
from utils.engine.trainer import (
    Trainer,
    TrainingOptions,
    every_epoch,
    late_epochs,
    linear_decay,
)
from utils.errors import InputError
from utils.outputs.results import RunFolder, commit

CPU = torch.device('cpu')
IMAGES = 10


class Colours(Dataset):
    """Eight-pixel images of one colour, their class, and a change that depends on the epoch."""

    images = ImageList(np.array(list(map(str, range(IMAGES)))), np.arange(IMAGES) % 2, None, Path())

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


def options(**changes):
    return TrainingOptions(**{**dict(epoch=4, batch_size=4, lr=0.1, amp='off', num_workers=0),
                              **changes})


def build(folder, loss=loss, dataset=None, device=CPU, schedule=None, should_save=None,
          save_model_every=None, draw=None, random_guess=None, paper_steps=None, **changes):
    """A Trainer of a TinyNet that writes to `folder`; `changes` are of the options."""
    chosen = options(**changes)
    torch.manual_seed(chosen.seed)
    model = TinyNet()
    more = {name: value for name, value in (('schedule', schedule), ('should_save', should_save))
            if value}
    return Trainer(model, dataset or Colours(), [{'params': model.parameters()}], loss, chosen,
                   device, RunFolder(folder), save_model_every=save_model_every, draw=draw,
                   random_guess=random_guess, paper_steps=paper_steps, **more)


def train(folder, loss=loss, **changes):
    trainer = build(folder, loss, **changes)
    trainer.run()
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_every_image_once_an_epoch_in_another_order_each():
    batches = EpochSampler(10, 4, seed=3)
    first = list(batches)
    batches.epoch = 1
    second = list(batches)
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(index for batch in first for _, index in batch) == list(range(10))
    assert {epoch for batch in second for epoch, _ in batch} == {1}
    assert [i for b in first for _, i in b] != [i for b in second for _, i in b]


def test_a_last_batch_of_one_image_is_left_out_and_no_other():
    assert [len(batch) for batch in EpochSampler(9, 4, 0)] == [4, 4]
    assert [len(batch) for batch in EpochSampler(8, 4, 0)] == [4, 4]
    assert len(EpochSampler(9, 4, 0)) == 2


def test_batches_continue_from_the_start_that_is_set():
    batches = EpochSampler(10, 4, 0)
    whole = list(batches)
    batches.start = 1
    assert list(batches) == whole[1:]


def test_kept_epochs_are_the_papers():
    assert [e for e in range(1, 21) if late_epochs(e, 20)] == list(range(12, 21))
    assert [e for e in range(1, 33) if late_epochs(e, 32)] == list(range(18, 33))
    assert [linear_decay(e, 4) for e in range(4)] == [1, 0.75, 0.5, 0.25]


def test_same_seed_same_weights_whatever_the_workers(tmp_path):
    first = train(tmp_path / 'a')
    assert equal(first, train(tmp_path / 'b', num_workers=2))
    assert not equal(first, train(tmp_path / 'c', seed=1))


def test_resumed_run_ends_bit_for_bit_as_an_undisturbed_one(tmp_path):
    whole = train(tmp_path / 'whole', should_save=every_epoch)
    for stop in (2, 3, 5, 11):  # within and at the end of epochs of 3 steps
        part = tmp_path / str(stop)
        train(part, should_save=every_epoch, max_steps=stop)
        resumed = train(part, should_save=every_epoch, resume='yes')
        assert equal(resumed, whole)


def points(folder, name):
    events = EventAccumulator(str(folder), size_guidance={'images': 0})
    events.Reload()
    return [event.step for event in events.Scalars(name)]


def test_tensorboard_gets_a_point_after_each_epoch(tmp_path):
    train(tmp_path)
    assert points(tmp_path, 'loss/total') == [3, 6, 9, 12]
    assert points(tmp_path, 'lr') == points(tmp_path, 'images_per_second') == [3, 6, 9, 12]


def test_tensorboard_gets_a_point_every_so_many_steps_within_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(training_log, 'STEPS_BETWEEN_POINTS', 2)
    train(tmp_path, epoch=1, batch_size=2)
    assert sorted(set(points(tmp_path, 'loss/total'))) == [2, 4, 5]


def test_a_picture_is_drawn_after_each_epoch(tmp_path):
    seen = []

    def draw(model):
        seen.append(model.training)
        return np.full((8, 9, 3), len(seen), np.uint8)

    trainer = build(tmp_path, draw=draw, epoch=2)
    trainer.run()
    assert seen == [False, False]
    assert trainer.model.training
    assert (tmp_path / 'training.png').read_bytes().startswith(b'\x89PNG')
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [image.step for image in events.Images('training')] == [3, 6]


def test_a_picture_does_not_change_the_training(tmp_path):
    def draw(model):
        torch.rand(5)
        model(torch.zeros(2, 3, 8, 8))
        return np.zeros((4, 4, 3), np.uint8)

    assert equal(train(tmp_path / 'a'), train(tmp_path / 'b', draw=draw))


def test_checkpoints_are_plain_state_dicts_and_the_last_always_is_kept(tmp_path):
    final = train(tmp_path, epoch=1)
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith('events')) == [
        'last.ckpt', 'model-1', 'model-1.json', 'results.json']
    assert equal(torch.load(tmp_path / 'model-1', weights_only=True), final)


def test_a_file_beside_each_model_says_what_it_is(tmp_path):
    arguments = {'stage': 'cub200-cam', 'backbone': 'timm/lite0', 'resize': 72, 'crop': 64,
                 'clsnum': 2, 'list': 'train.txt', 'datapath': tmp_path, 'seed': 0, 'lr': 0.1}
    trainer = Trainer(TinyNet(), Colours(), [{'params': [nn.Parameter(torch.zeros(1))]}], loss,
                      options(), CPU,
                      RunFolder(tmp_path, arguments))
    save_model(trainer.model, tmp_path / 'model-7', trainer.run_folder)
    found = json.loads((tmp_path / 'model-7.json').read_text())
    assert found.pop('versions')['torch'] == torch.__version__
    assert re.fullmatch('[0-9a-f]{40}|None', str(found.pop('commit')))
    del arguments['lr']
    assert found == {**arguments, 'datapath': str(tmp_path), 'class_names': []}


def test_no_commit_without_git(monkeypatch):
    commit.cache_clear()
    monkeypatch.setenv('PATH', '')
    assert commit() is None
    commit.cache_clear()


@pytest.mark.parametrize(('changes', 'said'), [
    (dict(batch_size=4), ['training: 12 steps', '12 steps are few', "paper's run has 376",
                          '--batch_size 4 --epoch 126']),
    (dict(batch_size=64), ['training: 4 steps', '--batch_size 64 exceeds the 10 images',
                           '--batch_size 10 --epoch 376'])])
def test_too_few_steps_are_named_at_the_start(tmp_path, capsys, changes, said):
    build(tmp_path, **changes, paper_steps=376).run()
    out = capsys.readouterr().out
    assert all(words in out for words in said)


def test_many_steps_and_no_papers_run_are_no_reason_to_warn(tmp_path, capsys, monkeypatch):
    build(tmp_path / 'a').run()
    monkeypatch.setattr(training_log, 'FEW_STEPS', 12)
    build(tmp_path / 'b', paper_steps=376).run()
    assert 'few' not in capsys.readouterr().out


def test_the_last_loss_stands_beside_that_of_a_random_guess(tmp_path, capsys):
    build(tmp_path, random_guess=0.6931).run()
    assert re.search(r'loss [0-9.]+ \(a random guess has 0.6931\); wrote', capsys.readouterr().out)


def test_memory_that_runs_out_in_a_worker_is_named(tmp_path):
    class Large(Colours):
        def __getitem__(self, key):
            raise MemoryError

    for workers in (0, 1):
        with pytest.raises(InputError, match='out of memory at --batch_size 4: try --batch_size 2'):
            train(tmp_path, dataset=Large(), num_workers=workers)


def test_a_fault_in_a_worker_is_not_taken_for_a_killed_one(tmp_path):
    class Faulty(Colours):
        def __getitem__(self, key):
            raise RuntimeError('a fault of ours')

    with pytest.raises(RuntimeError, match='a fault of ours'):
        train(tmp_path, dataset=Faulty(), num_workers=1)


def test_models_named_by_step(tmp_path):
    train(tmp_path, save_model_every=4, epoch=3)
    assert {p.name for p in tmp_path.glob('model-?')} == {'model-4', 'model-8', 'model-9'}


def test_max_steps_ends_within_an_epoch(tmp_path):
    train(tmp_path, save_model_every=4, max_steps=7)
    assert {p.name for p in tmp_path.glob('model-?')} == {'model-4', 'model-7'}


def test_rates_of_groups_follow_the_schedule(tmp_path):
    seen = []

    def spy(model, batch):
        seen.append([group['lr'] for group in trainer.optimizer.param_groups])
        return loss(model, batch)

    model = TinyNet()
    groups = [{'params': model.head.parameters()},
              {'params': model.layers.parameters(), 'lr': 0.01}]
    trainer = Trainer(model, Colours(), groups, spy, options(epoch=2), CPU, RunFolder(tmp_path),
                      schedule=linear_decay)
    trainer.run()
    assert seen == [[0.1, 0.01]] * 3 + [[0.05, 0.005]] * 3
    for group in trainer.optimizer.param_groups:
        assert (group['momentum'], group['nesterov'], group['weight_decay']) == (0.9, True, 1e-4)


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing(tmp_path):
    def explode(model, batch):
        return {'total': loss(model, batch)['total'] * float('inf')}

    with pytest.raises(InputError, match='the total loss is (inf|nan) at step 1'):
        train(tmp_path, explode)
    assert not list(tmp_path.glob('model-*'))


@pytest.mark.parametrize('name', ['head.bias', 'layers.1.running_var'])
def test_parameters_and_buffers_that_are_not_finite_are_not_saved(tmp_path, name):
    def poison(model, batch):
        with torch.no_grad():
            model.state_dict()[name].fill_(float('nan'))
        return {'total': loss(TinyNet(), batch)['total'] + 0 * model.head.weight.sum()}

    with pytest.raises(InputError, match=f'{name} is no longer finite'):
        train(tmp_path, poison)
    assert [path for path in tmp_path.iterdir() if 'tfevents' not in path.name] == []


def test_a_finished_run_is_not_resumed(tmp_path, capsys):
    train(tmp_path)
    before = (tmp_path / 'results.json').read_bytes()
    train(tmp_path, resume='yes')
    assert 'all 12 steps are done already' in capsys.readouterr().out
    assert (tmp_path / 'results.json').read_bytes() == before


def test_resuming_a_finished_run_writes_what_it_has_not_written(tmp_path):
    """As after a kill between the last checkpoint and the results."""
    weights = train(tmp_path)
    (tmp_path / 'results.json').unlink()
    (tmp_path / 'model-4').unlink()
    train(tmp_path, resume='yes')
    assert json.loads((tmp_path / 'results.json').read_text())['training']['steps'] == 12
    assert equal(torch.load(tmp_path / 'model-4', weights_only=True), weights)


def test_a_run_that_starts_anew_forgets_the_bad_images_of_another(tmp_path):
    (tmp_path / 'bad_images.txt').write_text('old.jpg\n')
    assert not build(tmp_path, resume='auto', skip_bad=True).log.bad.names
    trainer = build(tmp_path, resume='auto', skip_bad=True)
    trainer.run()
    assert trainer.log.bad.names == set()


def test_resume_needs_the_same_run(tmp_path):
    with pytest.raises(InputError, match='no .*last.ckpt'):
        train(tmp_path, resume='yes')
    train(tmp_path, max_steps=3)
    with pytest.raises(InputError, match='with --batch_size 4 instead of 5, --lr 0.1 instead of 1'):
        train(tmp_path, resume='yes', batch_size=5, lr=1.0)


def test_resume_names_another_precision(tmp_path):
    train(tmp_path, max_steps=3, amp='bf16')
    with pytest.raises(InputError, match='precision bf16 instead of off'):
        train(tmp_path, resume='yes')


def test_resume_names_another_number_of_ranks_and_another_mask_folder(tmp_path):
    train(tmp_path, max_steps=3)
    state = torch.load(tmp_path / 'last.ckpt', weights_only=True)
    state['run'].update({'number of ranks': 2, '--maskpath': 'there'})
    torch.save(state, tmp_path / 'last.ckpt')

    class Masks(Colours):
        def fingerprint(self):
            return {**super().fingerprint(), '--maskpath': 'here'}

    with pytest.raises(InputError, match='ranks 2 instead of 1, --maskpath there instead of here'):
        train(tmp_path, dataset=Masks(), resume='yes')


def test_resume_auto_starts_and_restarts(tmp_path):
    whole = train(tmp_path / 'whole', resume='auto')
    train(tmp_path / 'part', resume='auto', max_steps=5)
    assert equal(train(tmp_path / 'part', resume='auto'), whole)


def test_a_file_that_is_no_resume_state_is_named(tmp_path):
    torch.save(TinyNet().state_dict(), tmp_path / 'last.ckpt')
    with pytest.raises(InputError, match='is not the state of a run'):
        train(tmp_path, resume='yes')


def test_a_fault_of_ours_while_resuming_keeps_its_traceback(tmp_path, monkeypatch):
    train(tmp_path, max_steps=3)
    monkeypatch.setattr(TinyNet, 'load_state_dict', lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(tmp_path, resume='yes')


def test_an_old_state_does_not_bring_fused_sgd_back(tmp_path, monkeypatch):
    train(tmp_path, max_steps=3)
    state = torch.load(tmp_path / 'last.ckpt', weights_only=True)
    assert state['optimizer']['param_groups'][0]['fused']
    monkeypatch.setattr(Precision, 'allows_fused_sgd', False)
    trainer = build(tmp_path, resume='yes')
    trainer.run()
    assert not any(group['fused'] for group in trainer.optimizer.param_groups)


def test_a_damaged_resume_state_is_named(tmp_path):
    train(tmp_path, max_steps=3)
    path = tmp_path / 'last.ckpt'
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match='last.ckpt is corrupted'):
        train(tmp_path, resume='yes')


def test_a_malicious_resume_state_does_nothing(tmp_path):
    from test_weights import Malicious

    torch.save({'model': Malicious(tmp_path / 'victim')}, tmp_path / 'last.ckpt')
    with pytest.raises(InputError, match='last.ckpt is corrupted'):
        train(tmp_path, resume='yes')
    assert not (tmp_path / 'victim').exists()


def test_snapshot_is_where_training_starts(tmp_path):
    torch.manual_seed(7)
    start = TinyNet().state_dict()
    torch.save(start, tmp_path / 'start')
    trained = train(tmp_path / 'out', snapshot=tmp_path / 'start', epoch=1, lr=1e-12)
    torch.testing.assert_close(trained['head.weight'], start['head.weight'])


def test_errors_of_workers_arrive_as_they_were_raised(tmp_path):
    class Broken(Colours):
        def __getitem__(self, key):
            raise InputError('no image at x.jpg: check the list')

    for workers in (0, 2):
        with pytest.raises(InputError, match='^no image at x.jpg: check the list$'):
            train(tmp_path, dataset=Broken(), num_workers=workers)


def test_too_few_images(tmp_path):
    class One(Colours):
        def __len__(self):
            return 1

    with pytest.raises(InputError, match='at least two images'):
        build(tmp_path, dataset=One())
    with pytest.raises(InputError, match='--batch_size 1 is too small'):
        build(tmp_path, batch_size=1)


@pytest.mark.parametrize(('amp', 'message'), [('fp16', 'needs CUDA'), ('apex', 'no apex with amp')])
def test_precisions_that_this_machine_does_not_have(tmp_path, amp, message):
    with pytest.raises(InputError, match=message):
        train(tmp_path, amp=amp)


def test_bf16_trains_in_mixed_precision(tmp_path):
    dtypes = set()

    def spy(model, batch):
        logits = model(batch['image'])
        dtypes.add(logits.dtype)
        return {'total': nn.functional.cross_entropy(logits.float(), batch['label'])}

    state = train(tmp_path, spy, amp='bf16')
    assert dtypes == {torch.bfloat16}
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}


# A stand-in with the signatures of apex's: at O2, initialize replaces the optimizer's zero_grad.
FAKE_AMP = '''
import contextlib
import types

calls = []

def initialize(models, optimizers=None, enabled=True, opt_level='O1', cast_model_type=None,
               patch_torch_functions=None, keep_batchnorm_fp32=None, master_weights=None,
               loss_scale=None, cast_model_outputs=None, num_losses=1, verbosity=1,
               min_loss_scale=None, max_loss_scale=2.**24):
    calls.append(opt_level)

    def zero_grad(self):
        calls.append('zero_grad')
        for group in self.param_groups:
            for parameter in group['params']:
                parameter.grad = None

    optimizers.zero_grad = types.MethodType(zero_grad, optimizers)
    return models, optimizers

@contextlib.contextmanager
def scale_loss(loss, optimizers, loss_id=0, model=None, delay_unscale=False,
               delay_overflow_check=False):
    calls.append('scaled')
    yield loss.float() * 1
'''


@pytest.fixture
def amp(tmp_path, monkeypatch):
    package = tmp_path / 'packages' / 'apex'
    package.mkdir(parents=True)
    (package / '__init__.py').touch()
    (package / 'amp.py').write_text(FAKE_AMP)
    monkeypatch.syspath_prepend(str(package.parent))
    for name in ('apex', 'apex.amp'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    from apex import amp

    yield amp
    for name in ('apex', 'apex.amp'):
        sys.modules.pop(name)


def test_apex_is_used_where_it_is_installed(tmp_path, amp):
    with_apex = train(tmp_path / 'apex', amp='apex', epoch=1)
    assert amp.calls == ['O2'] + ['zero_grad', 'scaled'] * 3
    plain = train(tmp_path / 'plain', epoch=1)
    for name, value in with_apex.items():  # fused SGD rounds differently
        torch.testing.assert_close(value, plain[name], rtol=1e-4, atol=1e-5)


def test_apex_cannot_resume(tmp_path, amp):
    train(tmp_path, amp='apex', max_steps=2)
    with pytest.raises(InputError, match='--resume: apex keeps weights'):
        train(tmp_path, amp='apex', resume='yes')


def test_results_have_the_arguments_and_where_the_run_took_place(tmp_path):
    assert {field.name for field in fields(TrainingOptions)} > {'epoch', 'lr', 'amp', 'resume'}
    train(tmp_path, max_steps=3)
    training = json.loads((tmp_path / 'results.json').read_text())['training']
    assert (training['steps'], training['amp'], training['device']) == (3, 'off', 'cpu')
