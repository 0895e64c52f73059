"""Shared by all tests: the project on the path, and the golden arrays."""

import json
import os
import runpy
import struct
import sys
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

# Before PyTorch is imported, and for the processes that tests start: on cores that are shared with
# other programs, two threads wait for each other most of the time.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import pytest
import torch
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / 'tests' / 'golden'
sys.path[:0] = [str(ROOT), str(GOLDEN), str(ROOT / 'tests' / 'engine'),
                str(ROOT / 'tests' / 'network')]

LITE = 'timm/tf_efficientnet_lite0'  # has pretrained weights in a package
TINY = 'timm/test_efficientnet'  # has none here; runs in a quarter of the time


def png_header(width: int, height: int) -> bytes:
    """A file that claims to be an image of that size."""
    header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + header
            + struct.pack('>I', zlib.crc32(header)))


@pytest.fixture(scope='session')
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """made_once(name, make) -> a folder that make(folder) has filled, once for all workers of
    pytest-xdist. Tests do not change it."""
    shared = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        shared = shared.parent

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        ready = shared / f'made-{name}'
        with FileLock(f'{ready}.lock'):
            if not ready.exists():
                building = tmp_path_factory.mktemp(name)
                make(building)
                building.rename(ready)
        return ready

    return folder


@pytest.fixture(scope='session')
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """golden('boxes') -> the arrays of tests/golden/boxes.npz."""
    return lambda name: dict(np.load(GOLDEN / f'{name}.npz'))


@pytest.fixture(scope='session')
def released_state() -> Callable[..., dict[str, torch.Tensor]]:
    """released_state('cam', classes=20) -> a state dict under the authors' names."""
    from weights import golden_state

    @lru_cache(2)
    def made(kind: str, classes: int | None) -> dict[str, torch.Tensor]:
        keys = json.loads((GOLDEN / f'{kind}_keys.json').read_text())
        if classes:
            keys = [[name, [classes, *shape[1:]] if name.startswith('linear.') else shape]
                    for name, shape in keys]
        return {name: torch.from_numpy(np.asarray(value))
                for name, value in golden_state(keys).items()}

    return lambda kind, classes=None: dict(made(kind, classes))


@pytest.fixture
def untrained_run() -> Callable[[Path, int], None]:
    """untrained_run(folder, classes): writes untrained checkpoints of a run `mini` of the CUB
    chain's cam and seg stages below `folder`."""
    from network import CamNet, SegNet

    def make(folder: Path, classes: int) -> None:
        torch.manual_seed(0)
        for stage, model in (('cam', CamNet(classes, TINY, pretrained='none')),
                             ('seg', SegNet(TINY, pretrained='none'))):
            run = folder / f'cub200-{stage}' / 'out' / 'mini'
            run.mkdir(parents=True)
            torch.save(model.state_dict(), run / 'model-1')
            (run / 'results.json').write_text(json.dumps(
                {'training': {'arguments': {'backbone': TINY, 'resize': 96, 'crop': 80}}}))

    return make


def call_script(script: str, *arguments: object) -> int:
    """Run a script of the project in this process, as `python script ...` does; its exit code."""
    argv, path = sys.argv, list(sys.path)
    sys.argv = [script, *map(str, arguments)]
    sys.path.insert(0, str((ROOT / script).parent))
    try:
        runpy.run_path(str(ROOT / script), run_name='__main__')
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv, sys.path[:] = argv, path
    return 0


@pytest.fixture
def run_script(capsys) -> Callable[..., tuple[int, str, str]]:
    """run_script('cub200-cam/train.py', '--epoch', '1') -> (exit code, stdout, stderr)."""
    def run(script: str, *arguments: object) -> tuple[int, str, str]:
        code = call_script(script, *arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
