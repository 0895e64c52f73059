"""The device of a run, its precision, and the input of its networks."""

import sys

import numpy as np
import pytest
import torch
from conftest import complaint
from torch import nn

from utils import device as device_module
from utils.device import ApexScaler, Normalize, Precision, choose_device, init_device

CPU, CUDA = torch.device('cpu'), torch.device('cuda')
DENSE, DEPTHWISE = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=8)


@pytest.mark.parametrize('name', ['cuda:77', 'toaster'])
def test_a_device_that_is_not_there_is_refused(name):
    assert 'cannot use it here' in complaint(choose_device, name)


@pytest.mark.parametrize(('name', 'test', 'said'), [
    ('cuda', False, '3 processes, but'), ('cuda:1', True, 'use --device cuda')])
def test_processes_on_gpus_are_one_for_each(monkeypatch, name, test, said):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    for variable in ('WORLD_SIZE', 'LOCAL_WORLD_SIZE'):
        monkeypatch.setenv(variable, '3')
    assert said in complaint(choose_device, name, test=test)


@pytest.mark.parametrize(('local_rank', 'index'), [('0', 0), ('1', 1), ('2', 0)])
def test_ranks_of_a_test_may_share_a_gpu(monkeypatch, local_rank, index):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch, 'empty', lambda *shape, device: None)
    chosen = []
    monkeypatch.setattr(torch.cuda, 'set_device', chosen.append)
    for variable, value in (('WORLD_SIZE', '3'), ('LOCAL_RANK', local_rank)):
        monkeypatch.setenv(variable, value)
    assert choose_device('cuda', test=True) == torch.device('cuda', index)
    assert chosen == [torch.device('cuda', index)]


def test_the_same_seed_gives_the_same_weights():
    drawn = []
    for seed in (3, 3, 4):
        assert init_device('cpu', seed) == CPU
        drawn.append(torch.rand(8))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(('device', 'has', 'model', 'expected'), [
    (CPU, 'amx_bf16', DEPTHWISE, 'bf16'), (CPU, 'avx512_bf16', DENSE, 'bf16'),
    (CPU, 'avx512_bf16', DEPTHWISE, 'off'), (CPU, '', DENSE, 'off'),
    (CUDA, 'bf16', DEPTHWISE, 'bf16'), (CUDA, '', DENSE, 'fp16')])
def test_auto_is_the_precision_that_is_fast(monkeypatch, device, has, model, expected):
    """Depthwise networks are slower in bf16 on CPUs without AMX."""
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: {has: True}, raising=False)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda **_: has == 'bf16')
    monkeypatch.setattr(torch.amp, 'GradScaler', lambda device, enabled: enabled)
    precision = Precision('auto', device, model)
    assert precision.name == expected
    assert precision.scaler == (expected == 'fp16')
    assert Precision('off', device, model).dtype is None


@pytest.mark.parametrize(('amp', 'said'), [('fp16', 'needs CUDA'), ('apex', 'no apex with amp')])
def test_precisions_that_this_machine_does_not_have(monkeypatch, amp, said):
    monkeypatch.setitem(sys.modules, 'apex', None)
    if amp == 'apex':
        optimizer = torch.optim.SGD(DENSE.parameters(), lr=0.1)
        assert said in complaint(ApexScaler, DENSE, optimizer)
    else:
        assert said in complaint(Precision, amp, CPU, DENSE)


@pytest.mark.parametrize('kind', ['bytes', 'floats'])
def test_normalization_subtracts_the_mean_and_divides_by_the_deviation(kind):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    given = torch.from_numpy(images if kind == 'bytes' else np.float32(images / 255))
    before, normalize = given.clone(), Normalize(mean, std)
    found = normalize(given)
    expected = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(given, before)
    assert not normalize.state_dict()
