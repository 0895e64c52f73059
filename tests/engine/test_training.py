"""The training loop: what is drawn, saved, resumed, and refused."""

import sys
from argparse import Namespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import Dataset

from utils.data.lists import ImageList, PackedNames
from utils.engine import trainer as training
from utils.engine.trainer import EpochBatches, Trainer, every_epoch, linear_decay, second_half
from utils.errors import InputError

IMAGES = 10


class Colours(Dataset):
    """Eight-pixel images of one colour, their class, and a change that hangs on the epoch."""

    images = ImageList(PackedNames(map(str, range(IMAGES))), np.arange(IMAGES) % 2, None)

    def __len__(self):
        return IMAGES

    def __getitem__(self, key):
        epoch, index = key
        image = torch.full((8, 8, 3), 20 * index + epoch, dtype=torch.uint8)
        return {'image': image, 'label': index % 2}


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


def arguments(savepath, **changes):
    return Namespace(**{**dict(
        savepath=savepath, lr=0.1, epoch=4, batch_size=4, momentum=0.9, nesterov=True,
        weight_decay=1e-4, num_workers=0, seed=0, amp='off', device='cpu', snapshot=None,
        resume=False, max_steps=None, save_every=None, skip_bad=False, resize=8,
        crop=8, list='train.txt'), **changes})


def train(args, loss=loss, **options):
    torch.manual_seed(args.seed)
    model = TinyNet()
    Trainer(args, model, Colours(), [{'params': model.parameters()}], loss, **options).run()
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_every_image_once_an_epoch_in_another_order_each():
    batches = EpochBatches(10, 4, seed=3)
    first = list(batches)
    batches.epoch = 1
    second = list(batches)
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(index for batch in first for _, index in batch) == list(range(10))
    assert {epoch for batch in second for epoch, _ in batch} == {1}
    assert [i for b in first for _, i in b] != [i for b in second for _, i in b]


def test_a_last_batch_of_one_image_is_left_out_and_no_other():
    assert [len(batch) for batch in EpochBatches(9, 4, 0)] == [4, 4]
    assert [len(batch) for batch in EpochBatches(8, 4, 0)] == [4, 4]
    assert len(EpochBatches(9, 4, 0)) == 2


def test_batches_go_on_from_where_they_are_told():
    batches = EpochBatches(10, 4, 0)
    whole = list(batches)
    batches.start = 1
    assert list(batches) == whole[1:]


def test_kept_epochs_are_the_papers():
    assert [e for e in range(1, 21) if second_half(e, 20)] == list(range(12, 21))
    assert [e for e in range(1, 33) if second_half(e, 32)] == list(range(18, 33))
    assert [linear_decay(e, 4) for e in range(4)] == [1, 0.75, 0.5, 0.25]


def test_same_seed_same_weights_whatever_the_workers(tmp_path):
    first = train(arguments(tmp_path / 'a'))
    assert equal(first, train(arguments(tmp_path / 'b', num_workers=2)))
    assert not equal(first, train(arguments(tmp_path / 'c', seed=1)))


def test_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(tmp_path):
    whole = train(arguments(tmp_path / 'whole'), keep=every_epoch)
    for stop in (2, 3, 5, 11):  # within and at the end of epochs of 3 steps
        part = tmp_path / str(stop)
        train(arguments(part, max_steps=stop), keep=every_epoch)
        resumed = train(arguments(part, resume=True), keep=every_epoch)
        assert equal(resumed, whole)


def test_tensorboard_reads_the_events(tmp_path):
    train(arguments(tmp_path))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars('loss/total')] == [3, 6, 9, 12]
    assert {event.value for event in events.Scalars('lr')} == {np.float32(0.1)}


def test_checkpoints_are_plain_state_dicts_and_the_last_always_is_kept(tmp_path):
    final = train(arguments(tmp_path, epoch=1))
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith('events')) == [
        'last.ckpt', 'model-1', 'results.json']
    assert equal(torch.load(tmp_path / 'model-1', weights_only=True), final)


def test_models_named_by_step(tmp_path):
    train(arguments(tmp_path, epoch=3), save_steps=4)
    assert {p.name for p in tmp_path.glob('model-*')} == {'model-4', 'model-8', 'model-9'}


def test_max_steps_ends_within_an_epoch(tmp_path):
    train(arguments(tmp_path, max_steps=7), save_steps=4)
    assert {p.name for p in tmp_path.glob('model-*')} == {'model-4', 'model-7'}


def test_rates_of_groups_follow_the_schedule(tmp_path):
    seen = []

    def spy(model, batch):
        seen.append([group['lr'] for group in trainer.optimizer.param_groups])
        return loss(model, batch)

    model = TinyNet()
    groups = [{'params': model.head.parameters()},
              {'params': model.layers.parameters(), 'lr': 0.01}]
    trainer = Trainer(arguments(tmp_path, epoch=2), model, Colours(), groups, spy,
                      schedule=linear_decay)
    trainer.run()
    assert seen == [[0.1, 0.01]] * 3 + [[0.05, 0.005]] * 3
    for group in trainer.optimizer.param_groups:
        assert (group['momentum'], group['nesterov'], group['weight_decay']) == (0.9, True, 1e-4)


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing(tmp_path):
    def explode(model, batch):
        return {'total': loss(model, batch)['total'] * float('inf')}

    with pytest.raises(InputError, match='the total loss became (inf|nan) by step 1'):
        train(arguments(tmp_path), explode)
    assert not list(tmp_path.glob('model-*'))


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(training.Meter, 'due', lambda self: False)

    def poison(model, batch):
        with torch.no_grad():
            model.head.bias.fill_(float('nan'))
        return {'total': loss(TinyNet(), batch)['total'] + 0 * model.head.weight.sum()}

    with pytest.raises(InputError, match='weights are no longer finite'):
        train(arguments(tmp_path), poison)
    assert not list(tmp_path.glob('*'))[1:]  # TensorBoard's events alone


def test_a_finished_run_is_not_resumed(tmp_path, capsys):
    train(arguments(tmp_path))
    before = (tmp_path / 'results.json').read_bytes()
    train(arguments(tmp_path, resume=True))
    assert 'all 12 steps are done already' in capsys.readouterr().out
    assert (tmp_path / 'results.json').read_bytes() == before


def test_resume_needs_the_same_run(tmp_path):
    with pytest.raises(InputError, match='no .*last.ckpt'):
        train(arguments(tmp_path, resume=True))
    train(arguments(tmp_path, max_steps=3))
    with pytest.raises(InputError, match='another batch_size, lr, number of steps'):
        train(arguments(tmp_path, resume=True, batch_size=5, lr=1.0))


def test_a_damaged_resume_state_is_named(tmp_path):
    train(arguments(tmp_path, max_steps=3))
    path = tmp_path / 'last.ckpt'
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match='last.ckpt is damaged'):
        train(arguments(tmp_path, resume=True))


def test_a_malicious_resume_state_does_nothing(tmp_path):
    from test_weights import Malicious

    torch.save({'model': Malicious(tmp_path / 'victim')}, tmp_path / 'last.ckpt')
    with pytest.raises(InputError, match='last.ckpt is damaged'):
        train(arguments(tmp_path, resume=True))
    assert not (tmp_path / 'victim').exists()


def test_snapshot_is_where_training_starts(tmp_path):
    torch.manual_seed(7)
    start = TinyNet().state_dict()
    torch.save(start, tmp_path / 'start')
    trained = train(arguments(tmp_path / 'out', snapshot=tmp_path / 'start', epoch=1, lr=1e-12))
    torch.testing.assert_close(trained['head.weight'], start['head.weight'])


def test_errors_of_workers_arrive_as_they_were_raised(tmp_path):
    class Broken(Colours):
        def __getitem__(self, key):
            raise InputError('no image at x.jpg: check the list')

    model = TinyNet()
    for workers in (0, 2):
        with pytest.raises(InputError, match='^no image at x.jpg: check the list$'):
            Trainer(arguments(tmp_path, num_workers=workers), model, Broken(),
                    [{'params': model.parameters()}], loss).run()


def test_too_few_images(tmp_path):
    class One(Colours):
        def __len__(self):
            return 1

    model = TinyNet()
    with pytest.raises(InputError, match='at least two images'):
        Trainer(arguments(tmp_path), model, One(), [{'params': model.parameters()}], loss)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'amp': 'fp16'}, 'needs CUDA'),
    ({'amp': 'apex'}, 'no apex with amp'),
    ({'device': 'cuda:77'}, 'cannot use it here'),
    ({'device': 'toaster'}, 'cannot use it here'),
])
def test_what_this_machine_cannot_do(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(arguments(tmp_path, **changes))


def test_bf16_trains_in_mixed_precision(tmp_path):
    dtypes = set()

    def spy(model, batch):
        logits = model(batch['image'])
        dtypes.add(logits.dtype)
        return {'total': nn.functional.cross_entropy(logits.float(), batch['label'])}

    state = train(arguments(tmp_path, amp='bf16'), spy)
    assert dtypes == {torch.bfloat16}
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}


FAKE_AMP = '''
import contextlib

calls = []

def initialize(model, optimizer, **options):
    calls.append(options)
    return model, optimizer

@contextlib.contextmanager
def scale_loss(loss, optimizer):
    calls.append('scaled')
    yield loss * 1
'''


def test_apex_is_used_where_it_is_installed(tmp_path, monkeypatch):
    package = tmp_path / 'packages' / 'apex'
    package.mkdir(parents=True)
    (package / '__init__.py').touch()
    (package / 'amp.py').write_text(FAKE_AMP)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, 'apex', raising=False)
    monkeypatch.delitem(sys.modules, 'apex.amp', raising=False)
    with_apex = train(arguments(tmp_path / 'apex', amp='apex', epoch=1))
    from apex import amp

    assert amp.calls[0]['opt_level'] == 'O2'
    assert amp.calls[1:] == ['scaled'] * 3
    assert equal(with_apex, train(arguments(tmp_path / 'plain', epoch=1)))
    for name in ('apex', 'apex.amp'):
        sys.modules.pop(name)
