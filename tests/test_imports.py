"""Who may import whom, what must stay importable, and how long a function may be."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT
from count_reach import imports, reached

STAGES = sorted(folder.name for folder in ROOT.glob('*-*') if (folder / 'test.py').is_file())
PACKAGES = {'network': {'network'},
            'utils': {'network', 'utils'},
            'tools': {'dataset', 'network', 'spol', 'tools', 'utils'},
            'dataset': {'dataset', 'network', 'tools', 'utils'},
            **{stage: {'network', 'utils'} for stage in STAGES}}
OURS = {'network', 'utils', 'spol', 'tools', 'dataset', 'hubconf', 'tests', *STAGES}
FILES = [path for package in PACKAGES for path in (ROOT / package).rglob('*.py')]


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


def test_the_python_door_stands_on_utils_and_network():
    assert own_packages(ROOT / 'spol.py') == {'network', 'utils'}


def test_no_module_of_a_network_imports_itself_in_a_circle():
    for path in (ROOT / 'network').glob('[!_]*.py'):
        for other in imports(path) - {ROOT / 'network' / '__init__.py'}:
            assert path not in reached(other) or other.name == '__init__.py', (path, other)


def test_no_function_is_longer_than_a_page():
    lengths = {f'{path}: {node.name}': node.end_lineno - node.lineno + 1
               for path in FILES for node in ast.walk(ast.parse(path.read_text()))
               if isinstance(node, ast.FunctionDef)}
    assert {name for name, length in lengths.items() if length > 50} == set()


@pytest.mark.parametrize('name', [
    'network.CamNet', 'network.SegNet', 'network.load_checkpoint', 'spol.load_spol', 'spol.Spol',
    'spol.Prediction', 'utils.pseudo_mask.pseudo_mask', 'utils.boxes.largest_box',
    'utils.boxes.iou', 'utils.metrics.MaxBoxAcc', 'utils.metrics.PxAP'])
def test_names_that_stay_importable(name):
    module, _, attribute = name.rpartition('.')
    assert callable(getattr(import_module(module), attribute))
