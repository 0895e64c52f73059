"""The benchmark on the CPU, at sizes that say nothing of speed."""

import os
import sys

import pytest
import torch
from conftest import TINY, refused

from tools import benchmark
from utils.progress import Progress


@pytest.mark.parametrize(('arguments', 'message'), [
    (['seg/tset'], 'no stage seg/tset'),
    pytest.param(['--device', 'cuda'], '--device cuda: this PyTorch cannot use it here',
                 marks=pytest.mark.skipif(torch.cuda.is_available(), reason='without CUDA alone')),
])
def test_bad_arguments_are_one_line(run_script, arguments, message):
    refused(run_script('tools/benchmark.py', *arguments), message)


def test_images_are_links_to_few_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, 'PICTURES', 4)
    monkeypatch.setattr(benchmark, 'SIZE', (120, 90))
    benchmark.make_images(tmp_path, 10)
    images = sorted((tmp_path / 'image').iterdir())
    assert len({os.stat(path).st_ino for path in images}) == 4
    assert len(images) == len((tmp_path / 'list.txt').read_text().splitlines()) == 10


@pytest.mark.end_to_end
def test_a_row_for_each_stage(monkeypatch, capsys):
    """Here in one process: what `measure_stage` replaces in its own is put back."""
    for owner, name in ((Progress, 'update'), (sys, 'argv')):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(benchmark, 'in_a_process', lambda function, *given: function(*given))
    monkeypatch.setattr(benchmark, 'SIZE', (120, 90))
    threads = torch.get_num_threads()
    stages = ['seg/train', 'seg/test-paper']
    sys.argv = ['benchmark.py', *stages, '--backbone', TINY, '--batch_size', '2', '--images', '8',
                '--device', 'cpu']
    benchmark.main()
    torch.set_num_threads(threads)
    rows = [line.strip('| ').split(' | ') for line in capsys.readouterr().out.splitlines()
            if line.startswith('|')]
    assert [row[0] for row in rows] == ['stage', '---', *stages]
    for _, rate, alone, ratio in rows[2:]:
        assert float(ratio) == pytest.approx(float(rate) / float(alone), abs=0.1)
