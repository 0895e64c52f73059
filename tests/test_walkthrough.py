"""docs/walkthrough.ipynb runs from its first cell to its last, and finds what `load_spol` finds."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file

import spol

NOTEBOOK = ROOT / 'docs' / 'walkthrough.ipynb'
CELLS = json.loads(NOTEBOOK.read_text())['cells']


@pytest.fixture
def untrained(tiny_project, tmp_path, monkeypatch):
    """Networks of two classes take the place of those in resource/birds."""
    (tmp_path / 'birds').mkdir()
    for stage in ('cam', 'seg'):
        checkpoint = tiny_project / f'cub200-{stage}' / 'out' / 'model-1'
        save_file(torch.load(checkpoint, weights_only=True),
                  tmp_path / 'birds' / f'{stage}.safetensors')
        shutil.copy(checkpoint.with_name('model-1.json'), tmp_path / 'birds' / f'{stage}.json')
    monkeypatch.setattr(spol, 'SHIPPED', tmp_path)


@pytest.fixture
def shipped():
    assert 'birds' in spol.shipped_models(), 'resource/birds is not in this checkout'


@pytest.mark.parametrize('networks', ['shipped', 'untrained'])
def test_the_notebook_runs(networks, request, monkeypatch):
    request.getfixturevalue(networks)
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


def test_the_notebook_is_short_and_has_its_outputs():
    assert len(CELLS) <= 12
    assert NOTEBOOK.stat().st_size < 500_000
    outputs = [output for cell in CELLS for output in cell.get('outputs', ())]
    assert all(cell['outputs'] for cell in CELLS if cell['cell_type'] == 'code')
    assert sum('image/jpeg' in output.get('data', ()) for output in outputs) == 4
    assert not any(output.get('name') == 'stderr' for output in outputs)
