"""The field's metrics: by hand, and against a reference that binarises a thousand times."""

import numpy as np
import pytest

from utils.metrics import MaxBoxAcc, PxAP

BENCHMARK_SIDE = 224
SQUARE = (BENCHMARK_SIDE, BENCHMARK_SIDE)  # boxes of such an image are those of the map


def map_of(*blobs):
    """A map of zeros with (x0, y0, x1, y1, value) filled, later ones over earlier ones."""
    score_map = np.zeros(SQUARE)
    for x0, y0, x1, y1, value in blobs:
        score_map[y0:y1, x0:x1] = value
    return score_map


def hits(score_map, *boxes, deltas=(0.5,), multi_contour=False, size=SQUARE):
    metric = MaxBoxAcc(deltas, multi_contour)
    metric.accumulate(score_map, np.array(boxes), size)
    return metric.hits


BLOB = map_of((40, 50, 140, 100, 1))
BOX = (40, 50, 140, 100)


def test_an_iou_of_exactly_delta_is_right():
    """10 x 11 pixels and the left 5 x 11 of them: 55 / 110."""
    assert hits(map_of((20, 20, 29, 30, 1)), (20, 20, 24, 30)).all()


@pytest.mark.parametrize('multi_contour', [False, True])
@pytest.mark.parametrize('score_map', [
    np.zeros(SQUARE), np.full(SQUARE, 7.5), np.where(BLOB > 0, np.nan, 0),
    np.full(SQUARE, np.nan)], ids=['zero', 'constant', 'some NaN', 'all NaN'])
def test_a_map_that_says_nothing_gives_the_box_0_0_0_0(score_map, multi_contour):
    """One pixel: 1 / 4 of the box 0 0 1 1."""
    found = hits(score_map, (0, 0, 1, 1), deltas=(0.25, 0.26), multi_contour=multi_contour)
    assert found[0].all()
    assert not found[1].any()


LEFT, TOP = np.zeros((2, *SQUARE), bool)
LEFT[:, :112] = True
TOP[:112] = True


def pxap(*pairs):
    metric = PxAP()
    for score_map, mask in pairs:
        metric.accumulate(score_map, mask)
    return metric.compute()


@pytest.mark.parametrize(('mask', 'expected'), [
    (LEFT, 1),            # recall 1 at precision 1, from t = 1 on
    (~LEFT, 0.5),         # nothing above t = 0, where precision is 1 / 2
    (TOP, 0.5),           # recall 1 / 2 at precision 1 / 2, then the rest at 1 / 2
    (LEFT & TOP, 0.5),    # recall 1 at precision 1 / 2
    (LEFT | TOP, 2 / 3 + 1 / 3 * 3 / 4),
])
def test_pxap_of_the_left_half(mask, expected):
    assert pxap((LEFT.astype(float), mask)) == pytest.approx(expected, abs=1e-12)


def test_without_data_there_is_no_figure():
    for metric in (MaxBoxAcc(), MaxBoxAcc((0.3, 0.5, 0.7), multi_contour=True), PxAP()):
        with pytest.raises(ValueError, match='accumulated'):
            metric.compute()


def test_without_foreground_there_is_no_pxap():
    with pytest.raises(ValueError, match='foreground'):
        pxap((BLOB, np.zeros((5, 5), bool)))
