"""hubconf.py: SPOL by torch.hub."""

import subprocess
import sys

from conftest import ROOT


def test_torch_hub_in_another_folder_leaves_no_modules_behind(tmp_path, tiny_project):
    """Neither an error nor a module of the caller's gets ours in place of its own."""
    (tmp_path / 'utils.py').write_text('mine = 1')
    seg = tiny_project / 'cub200-seg' / 'out' / 'model-1'
    (tmp_path / 'mine.py').write_text(
        f'import numpy, torch\nmodel = torch.hub.load({str(ROOT)!r}, "spol", source="local", '
        f'seg={str(seg)!r}, device="cpu")\nimport utils\nassert utils.mine\ntry:\n'
        '    import network\nexcept ImportError:\n'
        '    print(model(numpy.zeros((40, 50, 3), "u1")).score_map.shape)\n'
        f'torch.hub.load({str(ROOT)!r}, "spol", "of mine", source="local")')
    result = subprocess.run([sys.executable, 'mine.py'], cwd=tmp_path, capture_output=True,
                            text=True)
    assert result.stdout == '(40, 40)\n', result.stderr
    assert "InputError: model 'of mine': give one of resource/" in result.stderr
