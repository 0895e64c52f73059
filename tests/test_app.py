"""tools/app.py: the local page. Gradio is optional."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from spol import load_spol
from tools import app


@pytest.fixture
def photo(tmp_path) -> Path:
    picture = np.random.default_rng(0).integers(0, 255, (80, 120, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / 'photo.png'), cv2.blur(picture, (9, 9)))
    return tmp_path / 'photo.png'


@pytest.fixture
def model(tiny_project):
    return load_spol(**{stage: tiny_project / f'cub200-{stage}' / 'out' / 'model-1'
                        for stage in ('cam', 'seg')}, device='cpu')


def test_a_threshold_needs_no_forward_pass(model, photo):
    prediction = model(photo, 'bee')
    low, high = (app.show(prediction, threshold) for threshold in (0.0, 1.0))
    assert {view.shape for view in low[1:] + high[1:]} == {(80, 120, 3)}
    assert 'box (x0, y0, x1, y1): no box' in high[0]
    assert 'bee: ' in high[0]
    assert '(asked for)' in high[0]
    assert 'no box' not in low[0]
    assert app.show(None, 0.2) == ('', *[None] * 6)


def test_what_is_wrong_with_a_picture_is_said_without_its_folder(model, photo):
    damaged = photo.with_name('damaged.png')
    damaged.write_bytes(photo.read_bytes()[:300])
    found, text, *pictures = app.predict(model, str(damaged), app.BEST_CLASS, 0.2)
    assert text.startswith('damaged.png cannot be read')
    assert [found, *pictures] == [None] * 7
    found, text, *pictures = app.predict(model, str(photo), 'ant', 0.2)
    assert text.startswith('box')
    assert found.asked[0] == 'ant'


@pytest.mark.end_to_end
def test_the_page_is_built(model):
    pytest.importorskip('gradio')
    parts = [part['props'] for part in app.page(model).config['components']]
    assert {'picture', 'class of the CAM', 'threshold', *app.VIEWS} <= {
        part.get('label') for part in parts}
    assert any([name for name, _ in part.get('choices') or ()] == [app.BEST_CLASS, 'ant', 'bee']
               for part in parts)
