"""The field's metrics: by hand, and against a reference that binarises a thousand times."""

import numpy as np
import pytest

from utils.metrics import MaxBoxAcc, PxAP

BENCHMARK_SIDE = 224
SQUARE = (BENCHMARK_SIDE, BENCHMARK_SIDE)  # boxes of such an image are those of the map


def hits(score_map, box, deltas, multi_contour=False):
    metric = MaxBoxAcc(deltas, multi_contour)
    metric.accumulate(score_map, np.array([box]), SQUARE)
    return metric.hits


BLOB = np.zeros(SQUARE)
BLOB[20:30, 20:29] = 1


def test_an_iou_of_exactly_delta_is_right():
    """10 x 11 pixels and the left 5 x 11 of them: 55 / 110."""
    assert hits(BLOB, (20, 20, 24, 30), (0.5,)).all()


@pytest.mark.parametrize('multi_contour', [False, True])
@pytest.mark.parametrize('score_map', [
    np.zeros(SQUARE), np.full(SQUARE, 7.5), np.where(BLOB > 0, np.nan, 0)],
    ids=['zero', 'constant', 'some NaN'])
def test_a_map_that_says_nothing_gives_the_box_0_0_0_0(score_map, multi_contour):
    """One pixel: 1 / 4 of the box 0 0 1 1."""
    found = hits(score_map, (0, 0, 1, 1), (0.25, 0.26), multi_contour)
    assert found[0].all()
    assert not found[1].any()


LEFT = np.zeros(SQUARE, bool)
LEFT[:, :112] = True


@pytest.mark.parametrize(('mask', 'expected'), [
    (LEFT, 1),                # recall 1 at precision 1, from t = 1 on
    (~LEFT, 0.5),             # nothing above t = 0, where precision is 1 / 2
    (LEFT & ~LEFT, np.nan)])  # without foreground
def test_pxap_of_the_left_half(mask, expected):
    metric = PxAP()
    metric.accumulate(LEFT.astype(float), mask)
    assert metric.compute() == pytest.approx(expected, abs=1e-12, nan_ok=True)
