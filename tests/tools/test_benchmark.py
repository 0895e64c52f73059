"""The benchmark on the CPU, at sizes that say nothing of speed."""

import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
import torch
from conftest import TINY

from tools.benchmarks import monitor
from tools.benchmarks.devices import (
    Variant,
    compare_readers,
    compare_variants,
    variants_of,
)
from tools.benchmarks.stages import Bench, BenchOptions

CPU, CUDA = torch.device('cpu'), torch.device('cuda')
SMALL = BenchOptions(TINY, amp='off', batch_size=2, num_workers=1, images=2,
                     device='cpu')


@pytest.fixture(scope='module')
def bench(tmp_path_factory):
    """Its pictures are drawn once."""
    threads = torch.get_num_threads()
    yield Bench(SMALL, tmp_path_factory.mktemp('bench'))
    torch.set_num_threads(threads)


def rows(output):
    """The cells of each row of the Markdown table that was printed."""
    head, line, *body = [[cell.strip() for cell in row.strip('|').split('|')]
                         for row in output.strip().splitlines()]
    assert set(line) == {'---'}
    assert {len(row) for row in body} == {len(head)} == {len(line)}
    return body


@pytest.mark.skipif(torch.cuda.is_available(), reason='the refusal without CUDA')
@pytest.mark.parametrize('arguments', [['gpu'], ['--device', 'cuda'], ['gpu', '--device', 'cpu']])
def test_without_cuda_a_gpu_is_refused_in_one_line(run_script, arguments):
    code, out, err = run_script('tools/benchmark.py', *arguments)
    assert (code, out) == (2, '')
    assert err.startswith('error: --device cuda: this PyTorch cannot use it here')
    assert err.count('\n') == 1


@pytest.mark.end_to_end
def test_stages_beside_the_network_alone(bench, capsys):
    stages = ['cam/test', 'seg/train']
    bench.compare_stages(stages)
    for row, stage in zip(rows(capsys.readouterr().out), stages, strict=True):
        assert row[0] == stage
        assert float(row[2]) > 0
        assert float(row[4]) > 0.1
        assert row[5:7] == ['–', '–']
        assert all(float(megabytes) > 50 for megabytes in row[7].split(','))
        assert row[8].startswith('decode')


@pytest.mark.end_to_end
def test_a_row_for_each_number_of_readers(bench, capsys):
    compare_readers(bench, [1])
    (readers, *figures), = rows(capsys.readouterr().out)
    assert readers == '1'
    assert all(float(figure) > 0 for figure in figures)
    masks = list((bench.folder / 'swept').glob('*.png'))
    assert len(masks) == bench.short + SMALL.images


def test_variants_of_the_network_alone(bench, capsys):
    compare_variants(bench, [Variant('float32', 'off'), Variant('fp16', 'fp16')])
    table = rows(capsys.readouterr().out)
    assert [row[:2] for row in table] == [[stage, name] for stage in ('cam/test', 'cam/train')
                                          for name in ('float32', 'fp16')]
    for measured, refused in (table[:2], table[2:]):
        assert float(measured[2]) > 0
        assert measured[3] == '1.00'
        assert refused[2:4] == ['–', '–']
        assert refused[4].startswith('--amp fp16 needs CUDA')


@pytest.mark.filterwarnings('ignore:.*GradScaler is enabled, but CUDA')
def test_each_precision_of_a_device_is_a_variant(monkeypatch):
    monkeypatch.setattr('tools.benchmarks.devices.supports_bf16', lambda device: False)
    monkeypatch.setattr('utils.engine.precision.supports_bf16', lambda device: False)
    assert [v.name for v in variants_of(CPU)] == ['float32', 'float32, compiled']
    assert [v.name for v in variants_of(CUDA)] == ['float32', 'TF32', 'fp16', 'fp16, compiled']


def test_a_compiled_variant_is_compiled(bench, capsys, monkeypatch):
    """The compiler itself takes minutes on a CPU: it is left out."""
    compiled = []

    def count(function, **options):
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, 'compile', count)
    compare_variants(bench, [Variant('float32, compiled', 'off', compile=True)])
    assert all(float(row[2]) > 0 for row in rows(capsys.readouterr().out))
    assert len(compiled) == 2


def process(code):
    return Popen([sys.executable, '-c', code], stdout=PIPE)


def test_host_memory_is_that_of_the_process():
    usage = monitor.watch(process('import time; x = b"1" * 200_000_000; time.sleep(0.5)'), CPU)
    assert 190 < usage.host_mb < 400
    assert usage.seconds > 0.5
    assert usage.gpu_mb is usage.gpu_seconds is None


def test_a_gpu_is_busy_for_its_share_of_the_time():
    """Half of the samples that can be read: half of 8 s; the largest memory."""
    lines = '0, 500\n100, 3000\n[N/A], [N/A]\n50, 700\n50, 600\n10'
    assert monitor._read_samples(lines, 8.0) == (3000, 4.0)
    assert monitor._read_samples('No devices were found\n', 8.0) == (None, None)


def test_gpu_figures_are_those_of_nvidia_smi(tmp_path, monkeypatch):
    script = Path(tmp_path, 'nvidia-smi')
    script.write_text('#!/bin/sh\nprintf "0, 500\\n100, 3000\\n"\nexec sleep 60\n')
    script.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    properties = type('Properties', (), {'uuid': 'b0f5'})
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: properties)
    usage = monitor.watch(process('import time; time.sleep(1)'), CUDA)
    assert usage.gpu_mb == 3000
    assert usage.gpu_seconds > 0


def test_without_nvidia_smi_the_gpu_figures_are_missing(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    assert monitor.watch(process(''), CUDA).gpu_mb is None
