"""Who may import whom, what must stay importable, and how long a function may be."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from itertools import chain
from pathlib import Path

import pytest
from conftest import ROOT

STAGES = sorted(folder.name for folder in ROOT.glob('*-*') if (folder / 'test.py').is_file())
PACKAGES = {'network': {'network'},
            'utils': {'network', 'utils'},
            'tools': {'dataset', 'network', 'spol', 'tools', 'utils'},
            'dataset': {'dataset', 'network', 'tools', 'utils'},
            'spol.py': {'network', 'utils'},
            **{stage: {'network', 'utils'} for stage in STAGES}}
OURS = {'network', 'utils', 'spol', 'tools', 'dataset', 'hubconf', 'tests', *STAGES}
FILES = {package: [*(ROOT / package).rglob('*.py')] or [ROOT / package] for package in PACKAGES}


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            yield node.module


@pytest.mark.parametrize('package', PACKAGES)
def test_a_package_imports_what_is_below_it(package):
    for path in FILES[package]:
        own = {name.partition('.')[0] for name in imported(path)} & OURS
        assert own <= PACKAGES[package], path


def test_the_modules_of_network_import_each_other_in_no_circle():
    modules = {f'network.{path.stem}': path for path in (ROOT / 'network').glob('[!_]*.py')}
    TopologicalSorter({name: set(imported(path)) & modules.keys()
                       for name, path in modules.items()}).prepare()  # raises CycleError


def test_no_function_is_longer_than_a_page():
    lengths = {f'{path}: {node.name}': node.end_lineno - node.lineno + 1
               for path in chain(*FILES.values()) for node in ast.walk(ast.parse(path.read_text()))
               if isinstance(node, ast.FunctionDef)}
    assert {name for name, length in lengths.items() if length > 50} == set()


@pytest.mark.parametrize('name', [
    'network.CamNet', 'network.SegNet', 'network.load_checkpoint', 'spol.load_spol', 'spol.Spol',
    'spol.Prediction', 'utils.pseudo_mask.pseudo_mask', 'utils.boxes.largest_box',
    'utils.boxes.iou', 'utils.metrics.MaxBoxAcc', 'utils.metrics.PxAP'])
def test_names_that_stay_importable(name):
    module, _, attribute = name.rpartition('.')
    assert callable(getattr(import_module(module), attribute))
