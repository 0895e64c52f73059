"""Shared by all tests: the project on the path, golden arrays, a tiny project, running scripts."""

import json
import os
import runpy
import shutil
import signal
import struct
import sys
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

# Before PyTorch is imported, and for the processes that tests start: on cores that are shared with
# other programs, two threads wait for each other most of the time.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import cv2
import numpy as np
import pytest
import torch
from filelock import FileLock

# Programs that are started in the background, or by nohup, inherit that these are ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / 'tests' / 'golden'
sys.path[:0] = [str(ROOT), str(ROOT / 'tests'), str(GOLDEN)]

LITE = 'timm/tf_efficientnet_lite0'  # its pretrained weights are in a package
TINY = 'timm/test_efficientnet'  # no pretrained weights; four times as fast
CLASS_NAMES = ['ant', 'bee']
TRAIN_NAMES = [f'{CLASS_NAMES[number % 2]}/{number}.jpg' for number in range(6)]
VAL_NAMES = [f'{CLASS_NAMES[number % 2]}/{number}.jpg' for number in range(6, 10)]
TRAINED_WITH = {'resize': 40, 'crop': 32, 'clsnum': 2, 'class_names': CLASS_NAMES}


def png_header(width: int, height: int) -> bytes:
    """A file that claims to be an image of that size."""
    header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + header
            + struct.pack('>I', zlib.crc32(header)))


def encoded(image: np.ndarray, suffix: str = '.png', *flags: int) -> bytes:
    """An image file; `image` in OpenCV's order of channels."""
    return cv2.imencode(suffix, np.asarray(image), flags)[1].tobytes()


def write_image(path: Path, image: np.ndarray) -> Path:
    """Write a PNG whatever the name: readers look at the content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(image))
    return path


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


def make_tiny_project(folder: Path) -> None:
    """Ten drawn images of two classes in the CUB layout, with boxes, ground-truth masks and pseudo
    masks, in `data`; an untrained checkpoint of each stage in `cub200-STAGE/out`."""
    from network import CamNet, SegNet, build_classifier

    rng, data = np.random.default_rng(0), folder / 'data'
    for split, names in (('train', TRAIN_NAMES), ('val', VAL_NAMES)):
        lines = []
        for name in names:
            image = rng.integers(0, 90, (50, 60, 3), np.uint8)
            left, top = rng.integers(4, 20, 2).tolist()
            image[top:top + 25, left:left + 30] += 150
            stored, mask = np.zeros((50, 60, 3), np.uint8), np.zeros((50, 60), np.uint8)
            stored[top:top + 25, left:left + 30, 0] = mask[top:top + 25, left:left + 30] = 255
            write_image(data / 'image' / name, image)
            write_image((data / 'segmentation' / name).with_suffix('.png'), mask)
            if split == 'train':
                write_image((data / 'mask' / name).with_suffix('.png'), stored)
            label = CLASS_NAMES.index(name.partition('/')[0])
            lines.append(f'{name},{label},{left} {top} {left + 30} {top + 25}\n')
        (data / f'{split}.txt').write_text(''.join(lines))
    torch.manual_seed(0)
    for stage, model, network in (('cls', build_classifier(TINY, 2, 'none'), {'arch': TINY}),
                                  ('cam', CamNet(2, TINY, pretrained='none'), {'backbone': TINY}),
                                  ('seg', SegNet(TINY, 'none'), {'backbone': TINY})):
        run = folder / f'cub200-{stage}' / 'out'
        run.mkdir(parents=True)
        if stage != 'cls':  # the features of random weights are small
            model.head.weight.data *= 1e5
        torch.save(model.state_dict(), run / 'model-1')
        (run / 'model-1.json').write_text(json.dumps({**TRAINED_WITH, **network}))


@pytest.fixture(scope='session')
def tiny_project(made_once) -> Path:
    """The folder that `make_tiny_project` has made. Tests do not change it."""
    return made_once('tiny-project', make_tiny_project)


@pytest.fixture
def project(tiny_project, tmp_path) -> Path:
    """A copy of the tiny project that a test may change."""
    return Path(shutil.copytree(tiny_project, tmp_path / 'project'))


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
        capsys.readouterr()
        code = call_script(script, *arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def stage(run_script, project) -> Callable[..., tuple[int, str, str]]:
    """stage('cam', 'train', ...) runs a script of the CUB chain on the tiny project."""
    def run(name: str, kind: str, *arguments: object) -> tuple[int, str, str]:
        more = ['--savepath', project / f'cub200-{name}' / 'out', '--num_workers', 0]
        if kind == 'train':
            more += ['--clsnum', 2, '--resize', 40, '--crop', 32, '--batch_size', 3, '--epoch', 1,
                     '--pretrained', 'none', '--arch' if name == 'cls' else '--backbone', TINY]
        elif name == 'seg' and '--top1top5' not in arguments:
            more += ['--top1top5', 'none']
        return run_script(f'cub200-{name}/{kind}.py', '--datapath', project / 'data', *more,
                          *arguments)

    return run


def refused(result: tuple[int, str, str], *parts: object) -> None:
    """Check that a script has ended with one line on stderr that has these parts."""
    code, out, err = result
    errors = [line for line in err.splitlines() if line.startswith('error:')]
    assert (code, len(errors)) == (2, 1), err
    assert 'Traceback' not in err + out
    for part in parts:
        assert str(part) in errors[0]


def complaint(function: Callable, *arguments: object, **named: object) -> str:
    """The message of the InputError that a call raises, which must be one line."""
    from utils.errors import InputError

    with pytest.raises(InputError) as caught:
        function(*arguments, **named)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)
