"""docs/walkthrough.ipynb runs from its first cell to its last."""

import json

import matplotlib
import pytest
from conftest import ROOT


@pytest.fixture
def demo_run(run_script, untrained_run, tmp_path):
    """What the notebook reads of demo.sh, by networks that are not trained."""
    code, _, err = run_script('dataset/make_mini.py', '--out', tmp_path / 'dataset' / 'mini',
                              '--train', 1, '--val', 1, '--size', 96)
    assert code == 0, err
    untrained_run(tmp_path, 10)
    return tmp_path


def test_the_notebook_runs(demo_run, monkeypatch):
    matplotlib.use('agg')
    import matplotlib.pyplot as plt

    monkeypatch.chdir(demo_run)
    monkeypatch.setenv('SPOL_RUN', str(demo_run))
    monkeypatch.setenv('SPOL_ROOT', str(ROOT))
    figures = []
    monkeypatch.setattr(plt, 'show', lambda: (figures.append(plt.gcf()), plt.close('all')))
    notebook = json.loads((ROOT / 'docs' / 'walkthrough.ipynb').read_text())
    namespace = {}
    for cell in notebook['cells']:
        if cell['cell_type'] == 'code':
            exec(compile(''.join(cell['source']), cell['id'], 'exec'), namespace)
    assert len(figures) == 7
    assert namespace['probability'].shape == (80, 80)
    assert namespace['result'].image.shape == namespace['image'].shape


def test_the_notebook_is_small_and_has_its_outputs():
    path = ROOT / 'docs' / 'walkthrough.ipynb'
    cells = json.loads(path.read_text())['cells']
    assert path.stat().st_size < 2_000_000
    outputs = [output for cell in cells for output in cell.get('outputs', ())]
    assert sum('image/png' in output.get('data', ()) for output in outputs) == 7
    assert not any(output.get('name') == 'stderr' for output in outputs)
