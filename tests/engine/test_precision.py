"""Mixed precision: which one is chosen, SGD under a loss scaler, and running out of memory."""

import pytest
import torch
from torch import nn

from utils.engine import precision as precision_module
from utils.engine.precision import Precision, explain_out_of_memory, is_out_of_memory
from utils.errors import InputError

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


@pytest.mark.parametrize(('device', 'supports_bf16', 'expected'), [
    (CPU, True, 'bf16'), (CPU, False, 'off'), (CUDA, True, 'bf16'), (CUDA, False, 'fp16')])
def test_auto_is_bf16_where_the_device_has_it(monkeypatch, device, supports_bf16, expected):
    monkeypatch.setattr(precision_module, 'supports_bf16', lambda device: supports_bf16)
    monkeypatch.setattr(torch.amp, 'GradScaler', lambda device, enabled: None)
    assert Precision('auto', device).name == expected


@pytest.mark.parametrize(('groups', 'amx', 'device', 'expected'), [
    (1, False, CPU, 'bf16'), (8, False, CPU, 'off'), (8, True, CPU, 'bf16'),
    (8, False, CUDA, 'bf16')])
def test_auto_is_float32_for_depthwise_networks_on_a_cpu_without_amx(monkeypatch, groups, amx,
                                                                     device, expected):
    monkeypatch.setattr(precision_module, 'supports_bf16', lambda device: True)
    monkeypatch.setattr(precision_module, '_cpu_has', lambda *names: amx)
    monkeypatch.setattr(torch.amp, 'GradScaler', lambda device, enabled: None)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=groups))
    assert Precision('auto', device, model).name == expected
    assert Precision('bf16', device, model).name == 'bf16'


def test_fp16_on_the_cpu_is_refused():
    with pytest.raises(InputError, match='--amp fp16 needs CUDA'):
        Precision('fp16', CPU)


def sgd_step_after_overflow(fused):
    """The parameter after a first step that overflows and a second one that does not."""
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.zeros(1000))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, nesterov=True, fused=fused)
    precision = Precision('off', CPU)
    precision.scaler = torch.amp.GradScaler('cpu', init_scale=2.0**16)
    for factor in (1e38, 1.0):
        optimizer.zero_grad()
        precision.backward((parameter * factor).sum(), optimizer)
        precision.step(optimizer)
    return parameter.detach()


def test_a_first_step_that_overflows_does_no_harm():
    """Nesterov's first step of gradient 1: -0.1 * (1 + 0.9) = -0.19."""
    precision = Precision('off', CPU)
    precision.name = 'fp16'
    assert not precision.allows_fused_sgd
    torch.testing.assert_close(sgd_step_after_overflow(fused=precision.allows_fused_sgd),
                               torch.full((1000,), -0.19))


@pytest.mark.parametrize('name', ['fp16', 'apex'])
def test_sgd_is_not_fused_under_a_scaler(name):
    precision = Precision('off', CPU)
    assert precision.allows_fused_sgd
    precision.name = name
    assert not precision.allows_fused_sgd


@pytest.mark.parametrize('message', [
    'CUDA out of memory. Tried to allocate 2 GiB', 'CUDA error: out of memory',
    'cuDNN error: CUDNN_STATUS_ALLOC_FAILED',
    'CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`',
    'OpenCV(4.11) error: (-4:Insufficient memory) Failed to allocate 900000000 bytes',
    "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory"])
def test_out_of_memory_is_recognised_in_all_its_words(message):
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(RuntimeError('shapes differ'))


def test_out_of_memory_says_which_batch_size_to_try():
    with pytest.raises(InputError, match='--batch_size 64: try --batch_size 32'), \
            explain_out_of_memory(64):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(InputError, match='smaller --resize'), explain_out_of_memory(1):
        raise MemoryError
    with pytest.raises(RuntimeError, match='shapes'), explain_out_of_memory(64):
        raise RuntimeError('shapes differ')
