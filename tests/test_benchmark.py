"""The benchmark on the CPU, at sizes that say nothing of speed."""

import sys

import pytest
from conftest import TINY

from tools import benchmark


@pytest.mark.end_to_end
def test_a_row_for_each_stage(monkeypatch, capfd):
    """With more images than pictures."""
    stages = ['cam/test', 'seg/train', 'seg/test-paper']
    monkeypatch.setattr(benchmark, 'STAGES', stages)
    monkeypatch.setattr(benchmark, 'PICTURES', 4)
    monkeypatch.setattr(benchmark, 'SIDE', 120)
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', '--backbone', TINY, '--batch_size', '2',
                                      '--images', '10'])
    benchmark.main()
    rows = [line.strip('| ').split(' | ') for line in capfd.readouterr().out.splitlines()
            if line.startswith('|')]
    assert [row[0] for row in rows] == ['stage', '---', *stages]
    for _, rate, alone, ratio in rows[2:]:
        assert float(ratio) == pytest.approx(float(rate) / float(alone), abs=0.1)
