"""The training step as a graph; a stand-in takes the place of CUDA's capture."""

import pytest
import torch
from test_trainer import build, equal, train

from utils.engine import trainer as trainer_module
from utils.engine.graph import WARM_UP_STEPS, GraphedStep
from utils.errors import InputError


class Recorder:
    """Records how each step is run: eagerly, as warm-up, captured, replayed."""

    def __init__(self, error=None):
        self.calls, self.rate, self.error = [], 0.1, error

    def step(self, batch, size):
        self.calls.append('eager')
        return {'total': batch['image'].sum()}

    def warm_up(self, step, batch, size):
        self.calls.append('warm')
        return {'total': batch['image'].sum()}

    def capture(self, step, batch, size):
        self.calls.append('capture')
        if self.error:
            raise self.error

        def replay(batch):
            self.calls.append('replay')
            return {'total': batch['image'].sum()}

        return replay

    def graphed(self, size=4):
        return GraphedStep(self.step, size, lambda: self.rate, self.warm_up, self.capture)


def batch_of(size):
    return {'image': torch.arange(float(size))}


def test_the_first_steps_warm_up_and_the_others_replay():
    recorder = Recorder()
    step = recorder.graphed()
    assert [step(batch_of(4), 4)['total'].item() for _ in range(6)] == [6.0] * 6
    assert recorder.calls == ['warm'] * WARM_UP_STEPS + ['capture'] + ['replay'] * 3


def test_a_smaller_batch_is_eager_wherever_it_comes():
    recorder = Recorder()
    step = recorder.graphed()
    for size in (2, 4, 4, 2, 4, 4, 2, 4):
        assert step(batch_of(size), size)['total'].item() == sum(range(size))
    assert recorder.calls == ['eager', 'warm', 'warm', 'eager', 'warm', 'capture', 'replay',
                              'eager', 'replay']


def test_another_learning_rate_is_captured_anew():
    recorder = Recorder()
    step = recorder.graphed()
    for _ in range(5):
        step(batch_of(4), 4)
    recorder.rate, recorder.calls = 0.05, []
    step(batch_of(4), 4)
    step(batch_of(4), 4)
    assert recorder.calls == ['capture', 'replay', 'replay']


@pytest.mark.parametrize('error', [RuntimeError('operation not permitted\nmore'),
                                   InputError('out of memory')])
def test_what_cannot_be_captured_runs_eagerly_and_says_so_once(capsys, error):
    recorder = Recorder(error)
    step = recorder.graphed()
    for _ in range(6):
        assert step(batch_of(4), 4)['total'].item() == 6
    assert recorder.calls == ['warm'] * WARM_UP_STEPS + ['capture'] + ['eager'] * 3
    said = capsys.readouterr().err
    assert said.count('\n') == 1
    assert str(error).splitlines()[0] in said


def test_a_training_by_graphs_ends_as_an_eager_one(tmp_path, monkeypatch):
    """The stand-in copies into static tensors, and computes the step when it is replayed."""
    replayed = []

    def capture(step, batch, size):
        static = {name: value.clone() for name, value in batch.items()}

        def replay(batch):
            replayed.append(size)
            for name, value in batch.items():
                static[name].copy_(value)
            return step(static, size)

        return replay

    expected = train(tmp_path / 'eager', epoch=6)
    trainer = build(tmp_path / 'graphs', epoch=6)
    trainer.graphed_step = GraphedStep(
        trainer.train_step, 4, lambda: [group['lr'] for group in trainer.optimizer.param_groups],
        lambda step, batch, size: step(batch, size), capture)
    trainer.run()
    assert equal(trainer.model.state_dict(), expected)
    assert replayed == [4] * (6 * 2 - WARM_UP_STEPS)


def test_steps_on_the_cpu_are_eager(tmp_path):
    trainer = build(tmp_path)
    assert trainer.graphed_step is None


@pytest.mark.parametrize(('most', 'searched'), [(12, [True, True, False] * 4), (13, [False] * 12)])
def test_kernels_are_searched_in_long_runs_and_for_whole_batches_alone(tmp_path, monkeypatch, most,
                                                                       searched):
    monkeypatch.setattr(trainer_module, 'STEPS_WORTH_A_SEARCH', most)
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', False)
    seen = []

    def spy(model, batch):
        seen.append(torch.backends.cudnn.benchmark)
        return {'total': model(batch['image']).square().mean()}

    train(tmp_path, spy)
    assert seen == searched
