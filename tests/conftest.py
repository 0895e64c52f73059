"""Shared by all tests: the project on the path, and the golden arrays."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / 'tests' / 'golden'
sys.path[:0] = [str(ROOT), str(GOLDEN)]

LITE = 'timm/tf_efficientnet_lite0'


@pytest.fixture(scope='session')
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """golden('boxes') -> the arrays of tests/golden/boxes.npz."""
    return lambda name: dict(np.load(GOLDEN / f'{name}.npz'))


@pytest.fixture(scope='session')
def released_state() -> Callable[..., dict[str, torch.Tensor]]:
    """released_state('cam', classes=20) -> a state dict under the authors' names."""
    from weights import golden_state

    def make(kind: str, classes: int | None = None) -> dict[str, torch.Tensor]:
        keys = json.loads((GOLDEN / f'{kind}_keys.json').read_text())
        if classes:
            keys = [[name, [classes, *shape[1:]] if name.startswith('linear.') else shape]
                    for name, shape in keys]
        return {name: torch.from_numpy(np.asarray(value))
                for name, value in golden_state(keys).items()}

    return make


@pytest.fixture
def run_script(monkeypatch, capsys) -> Callable:
    """run_script('cub200-cam/train.py', '--epoch', '1') -> (exit code, stdout, stderr), run in
    this process."""

    def call(script: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', [script, *map(str, arguments)])
        path = list(sys.path)
        sys.path.insert(0, str((ROOT / script).parent))  # as `python script.py` does
        code = 0
        try:
            runpy.run_path(str(ROOT / script), run_name='__main__')
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.path[:] = path
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
