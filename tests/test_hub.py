"""hubconf.py: SPOL by torch.hub."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY

from network import SegNet
from spol import load_spol


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    torch.save(SegNet(TINY, pretrained='none').state_dict(), tmp_path / 'model-1')
    return tmp_path / 'model-1'


def test_torch_hub_loads_the_model_of_load_spol(checkpoint):
    settings = {'seg': checkpoint, 'backbone': TINY, 'resize': 64, 'device': 'cpu'}
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    found = torch.hub.load(str(ROOT), 'spol', source='local', **settings)(picture)
    np.testing.assert_array_equal(found.score_map, load_spol(**settings)(picture).score_map)


def test_torch_hub_lists_one_entry():
    module = torch.hub._import_module('hubconf', str(ROOT / 'hubconf.py'))
    assert [name for name in dir(module) if callable(getattr(module, name))
            and not name.startswith('_')] == ['spol']


def errors_of(program, folder):
    """What a Python program that runs in another folder writes to stderr."""
    return subprocess.run([sys.executable, '-c', program], cwd=folder, text=True,
                          capture_output=True).stderr


def test_torch_hub_works_from_another_folder(tmp_path):
    program = ('import torch\n'
               f'torch.hub.load({str(ROOT)!r}, "spol", source="local", seg="missing")')
    assert 'InputError: no weights at missing' in errors_of(program, tmp_path)


def test_another_module_called_utils_is_named(tmp_path):
    (tmp_path / 'utils.py').write_text('')
    program = f'import sys, utils\nsys.path.insert(0, {str(ROOT)!r})\nimport hubconf'
    assert 'another module called utils is imported already' in errors_of(program, tmp_path)
