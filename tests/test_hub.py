"""hubconf.py: SPOL by torch.hub."""

import subprocess
import sys

import numpy as np
import torch
from conftest import ROOT

from spol import load_spol


def test_torch_hub_loads_the_model_of_load_spol(tiny_project):
    settings = {'seg': tiny_project / 'cub200-seg' / 'out' / 'model-1', 'device': 'cpu'}
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    found = torch.hub.load(str(ROOT), 'spol', source='local', **settings)(picture)
    np.testing.assert_array_equal(found.score_map, load_spol(**settings)(picture).score_map)


def test_torch_hub_in_another_folder_leaves_no_modules_behind(tmp_path, tiny_project):
    """Neither an error nor a module of the caller's gets ours in place of its own."""
    (tmp_path / 'utils.py').write_text('mine = 1')
    seg = tiny_project / 'cub200-seg' / 'out' / 'model-1'
    (tmp_path / 'mine.py').write_text(
        f'import torch\nmodel = torch.hub.load({str(ROOT)!r}, "spol", source="local", '
        f'seg={str(seg)!r}, device="cpu")\nimport utils\nassert utils.mine\ntry:\n'
        '    import network\nexcept ImportError:\n    print("none")\n'
        f'torch.hub.load({str(ROOT)!r}, "spol", "of mine", source="local")')
    result = subprocess.run([sys.executable, 'mine.py'], cwd=tmp_path, capture_output=True,
                            text=True)
    assert result.stdout == 'none\n', result.stderr
    assert "InputError: model 'of mine': give one of resource/" in result.stderr
