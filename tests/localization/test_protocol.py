"""The paper's localization figures, by both counts."""

import numpy as np
import pytest

from utils.localization.protocol import SWEEP_THRESHOLDS, LocalizationMetrics, localize

BLOB = (2, 2, 12, 12)          # 10 x 10 = 100
RIGHT = (2, 2, 12, 8)          # 60 / 100
HALF = (2, 2, 12, 7)           # 50 / 100
WRONG = (2, 2, 12, 5)          # 30 / 100
NOTHING = (np.nan,) * 4


def map_of(value=1.0):
    score_map = np.zeros((20, 20), np.float32)
    score_map[2:12, 2:12] = value
    return score_map


def ground_truth(*boxes):
    return np.array(boxes, np.float64).reshape(-1, 4)


EMPTY = np.zeros((20, 20), np.float32)


@pytest.mark.parametrize(('boxes', 'iou', 'correct'), [
    ((BLOB,), 1, True),
    ((RIGHT,), 0.6, True),
    ((HALF,), 0.5, False),               # exactly one half does not exceed it
    ((WRONG,), 0.3, False),
    ((WRONG, RIGHT, HALF), 0.6, True),   # the best counts
    ((NOTHING, RIGHT), 0.6, True),       # another box is left
    ((NOTHING,), 0, False),
    ((NOTHING, NOTHING), 0, False),
    ((), 0, False),
])
def test_an_image_is_right_when_its_best_iou_exceeds_one_half(boxes, iou, correct):
    localized = localize(map_of(), ground_truth(*boxes), 0.2)
    assert localized.box == BLOB
    assert localized.iou == pytest.approx(iou, abs=1e-12)
    assert localized.correct is correct


def test_without_a_contour_there_is_neither_box_nor_iou():
    localized = localize(EMPTY, ground_truth(RIGHT), 0.2)
    assert localized.box is None
    assert localized.iou == 0
    assert not localized.correct


def test_the_threshold_decides_what_is_localized():
    assert localize(map_of(0.5), ground_truth(BLOB), 0.4).correct
    assert localize(map_of(0.5), ground_truth(BLOB), 0.5).box is None


@pytest.fixture
def count():
    return LocalizationMetrics([0.2])


def test_both_counts_agree_where_every_image_has_contour_and_box(count):
    for box in (RIGHT, RIGHT, HALF, WRONG):
        count.accumulate(map_of(), ground_truth(box), top1=True, top5=True)
    figures = {'top1': 2 / 4, 'top5': 2 / 4, 'gt_known': 2 / 4}
    assert count.at(0.2) == {'count': 4, 'no_contour': 0, 'no_box': 0,
                             'paper': figures, 'strict': figures}


def test_the_papers_count_leaves_out_what_the_strict_one_takes_as_wrong(count):
    """Five images: right, wrong, no contour, no box, neither: 1 of 2, or 1 of 5."""
    count.accumulate(map_of(), ground_truth(RIGHT), True, True)
    count.accumulate(map_of(), ground_truth(WRONG), True, True)
    count.accumulate(EMPTY, ground_truth(RIGHT), True, True)
    count.accumulate(map_of(), ground_truth(NOTHING), True, True)
    count.accumulate(EMPTY, ground_truth(NOTHING), True, True)
    figures = count.at(0.2)
    assert (figures['count'], figures['no_contour'], figures['no_box']) == (5, 2, 2)
    assert figures['paper'] == {'top1': 1 / 2, 'top5': 1 / 2, 'gt_known': 1 / 2}
    assert figures['strict'] == {'top1': 1 / 5, 'top5': 1 / 5, 'gt_known': 1 / 5}


def test_an_image_with_one_box_left_of_two_is_counted(count):
    count.accumulate(map_of(), ground_truth(NOTHING, RIGHT))
    assert count.at(0.2)['no_box'] == 0
    assert count.at(0.2)['paper']['gt_known'] == 1


def test_an_image_without_any_ground_truth_has_no_box(count):
    count.accumulate(map_of(), ground_truth())
    assert count.at(0.2)['no_box'] == 1
    assert count.at(0.2)['strict']['gt_known'] == 0


def test_top_k_needs_the_box_and_the_class(count):
    """Four images: box and class first; box and class among five; box alone; class alone."""
    count.accumulate(map_of(), ground_truth(RIGHT), top1=True, top5=True)
    count.accumulate(map_of(), ground_truth(RIGHT), top1=False, top5=True)
    count.accumulate(map_of(), ground_truth(RIGHT), top1=False, top5=False)
    count.accumulate(map_of(), ground_truth(WRONG), top1=True, top5=True)
    assert count.at(0.2)['strict'] == {'top1': 1 / 4, 'top5': 2 / 4, 'gt_known': 3 / 4}


def test_nothing_counted_is_nothing_right(count):
    figures = count.at(0.2)
    assert figures['count'] == 0
    assert figures['paper'] == figures['strict'] == {'top1': 0, 'top5': 0, 'gt_known': 0}


def test_figures_are_plain_python_numbers(count):
    count.accumulate(map_of(), ground_truth(RIGHT), True, True)
    figures = count.at(0.2)
    assert {type(figures[name]) for name in ('count', 'no_contour', 'no_box')} == {int}
    assert {type(value) for name in ('paper', 'strict') for value in figures[name].values()} == {
        float}


def nested_map():
    """A blob of 1 within a blob of 0.5: which of them is found hangs on the threshold."""
    score_map = np.full((20, 20), 0.5, np.float32)
    score_map[2:12, 2:12] = 1
    return score_map


def test_a_sweep_finds_where_the_strict_count_is_best():
    """Three images: the inner blob is right for two of them, from 0.5 on; the whole map for one,
    below. At 0.5 the third, which has 0.5 alone, loses its contour."""
    count = LocalizationMetrics(SWEEP_THRESHOLDS)
    whole = (0, 0, 20, 20)
    count.accumulate(nested_map(), ground_truth(BLOB))
    count.accumulate(nested_map(), ground_truth(BLOB))
    count.accumulate(np.full((20, 20), 0.5, np.float32), ground_truth(whole))
    sweep = count.sweep()
    assert sweep['thresholds'] == [k / 100 for k in range(100)]
    assert sweep['strict'] == [1 / 3] * 50 + [2 / 3] * 50
    assert sweep['paper'] == [1 / 3] * 50 + [1.0] * 50
    assert sweep['best_threshold'] == 0.5
    assert sweep['best'] == count.at(0.5)
    assert sweep['best']['strict']['gt_known'] == 2 / 3
    assert sweep['best']['no_contour'] == 1


def test_a_sweep_has_the_figures_of_each_threshold_alone():
    rng = np.random.default_rng(0)
    swept = LocalizationMetrics(SWEEP_THRESHOLDS)
    alone = {threshold: LocalizationMetrics([threshold]) for threshold in (0.0, 0.2, 0.57, 0.99)}
    for _ in range(6):
        score_map = rng.random((20, 20))
        for count in (swept, *alone.values()):
            count.accumulate(score_map, ground_truth((0, 0, 15, 15)), True, True)
    for threshold, count in alone.items():
        assert swept.at(threshold) == count.at(threshold)
