"""The device of a run, its precision, and the input of its networks."""


import pytest
import torch
from conftest import complaint
from torch import nn

from utils.device import Precision, choose_device

CPU, CUDA = torch.device('cpu'), torch.device('cuda')
DENSE, DEPTHWISE = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=8)


@pytest.mark.parametrize(('name', 'test', 'said'), [
    ('cuda', False, '3 processes, but'), ('cuda:1', True, 'use --device cuda')])
def test_processes_on_gpus_are_one_for_each(monkeypatch, name, test, said):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    for variable in ('WORLD_SIZE', 'LOCAL_WORLD_SIZE'):
        monkeypatch.setenv(variable, '3')
    assert said in complaint(choose_device, name, test=test)


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
