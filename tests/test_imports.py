"""Who may import whom, and what must stay importable."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT

STAGES = sorted(folder.name for folder in ROOT.glob('*-*') if (folder / 'test.py').is_file())
PACKAGES = {'network': {'network'},
            'utils': {'network', 'utils'},
            'tools': {'dataset', 'network', 'spol', 'tools', 'utils'},
            'dataset': {'dataset', 'network', 'tools', 'utils'}}
OURS = {'network', 'utils', 'spol', 'tools', 'dataset', 'hubconf', 'tests', *STAGES}


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            yield node.module


def own_packages(path: Path) -> set[str]:
    return {name.partition('.')[0] for name in imported(path)} & OURS


@pytest.mark.parametrize('package', PACKAGES)
def test_a_package_imports_what_is_below_it(package):
    for path in (ROOT / package).rglob('*.py'):
        assert own_packages(path) <= PACKAGES[package], path


@pytest.mark.parametrize('stage', STAGES)
def test_a_stage_imports_no_other_stage(stage):
    for path in (ROOT / stage).glob('*.py'):
        assert own_packages(path) <= {'network', 'utils'}, path


def test_the_python_door_stands_on_utils_and_network():
    assert own_packages(ROOT / 'spol.py') == {'network', 'utils'}


@pytest.mark.parametrize('name', [
    'network.CamNet', 'network.SegNet', 'network.load_checkpoint', 'spol.load_spol', 'spol.Spol',
    'spol.Prediction', 'utils.pseudo_mask.pseudo_mask', 'utils.boxes.largest_box',
    'utils.boxes.iou', 'utils.metrics.MaxBoxAcc', 'utils.metrics.PxAP'])
def test_names_that_stay_importable(name):
    module, _, attribute = name.rpartition('.')
    assert callable(getattr(import_module(module), attribute))
