"""docs/walkthrough.ipynb runs from its first cell to its last, and finds what `load_spol` finds."""

import json

import numpy as np
from conftest import ROOT

import spol

NOTEBOOK = ROOT / 'docs' / 'walkthrough.ipynb'
CELLS = json.loads(NOTEBOOK.read_text())['cells']


def test_the_notebook_runs(monkeypatch):
    assert 'birds' in spol.shipped_models(), 'resource/birds is not in this checkout'
    monkeypatch.chdir(NOTEBOOK.parent)
    monkeypatch.syspath_prepend(ROOT)  # undone afterwards, with what the notebook adds
    namespace = {}
    for cell in CELLS:
        if cell['cell_type'] == 'code':
            exec(compile(''.join(cell['source']), cell['id'], 'exec'), namespace)
    prediction, side = namespace['prediction'], namespace['side']
    assert namespace['probability'].shape == namespace['cam'].shape == (side, side)
    assert prediction.label == namespace['label']
    np.testing.assert_allclose(namespace['cam'], prediction.cam_map, atol=2e-3)
    np.testing.assert_allclose(namespace['probability'], prediction.score_map, atol=2e-3)
