"""From an image's maps to a row of the table, and from the table to the metrics."""

import numpy as np
import pytest

from utils.boxes import CentreCrop
from utils.evaluation import (
    V2_DELTAS,
    Evaluated,
    at_threshold,
    benchmark,
    best_levels,
    measure,
    stack,
    summarize,
)
from utils.metrics import IOU_UNITS, MaxBoxAcc, PxAP, level_ious, pixel_counts, threshold_of
from utils.resampling import resampling_weights

# ---------------------------------------------------------------- a map beside the true boxes

SIDE = 20
BLOB = (2, 2, 12, 12)          # 10 x 10 = 100
RIGHT = (2, 2, 12, 8)          # 60 / 100
HALF = (2, 2, 12, 7)           # 50 / 100
WRONG = (2, 2, 12, 5)          # 30 / 100
OUTSIDE = (30, 30, 40, 40)     # beyond the crop


EMPTY, FOUND = np.zeros((2, SIDE, SIDE), np.float32)
FOUND[2:12, 2:12] = 1


def row(score_map, *boxes):
    """An image of 40 x 40 whose crop, at the left top, is SIDE x SIDE."""
    class LeftTop(CentreCrop):
        offset = 0

    return measure(0, (40, 40), [score_map], np.array(boxes, float).reshape(-1, 4),
                   LeftTop(40, SIDE), [0.2])


@pytest.mark.parametrize(('boxes', 'iou', 'correct'), [
    ((BLOB,), 1, True),
    ((RIGHT,), 0.6, True),
    ((HALF,), 0.5, False),               # exactly one half does not exceed it
    ((WRONG,), 0.3, False),
    ((WRONG, RIGHT, HALF), 0.6, True),   # the best counts
    ((OUTSIDE, RIGHT), 0.6, True),       # another box is left
    ((OUTSIDE,), 0, False),
    ((), 0, False),
])
def test_an_image_is_right_when_its_best_iou_exceeds_one_half(boxes, iou, correct):
    found = row(FOUND, *boxes)
    assert found.box.tolist() == [list(BLOB)]
    assert found.iou == pytest.approx([iou], abs=1e-12)
    assert found.correct == correct
    assert found.has_box == bool(set(boxes) - {OUTSIDE})


def test_the_papers_count_leaves_out_what_the_strict_one_takes_as_wrong():
    """Five images: right, wrong, no contour, no box, neither: 1 of 2, or 1 of 5."""
    rows = stack([row(FOUND, RIGHT), row(FOUND, WRONG), row(EMPTY, RIGHT), row(FOUND, OUTSIDE),
                  row(EMPTY, OUTSIDE)])
    found = at_threshold(rows._replace(hits=np.ones((5, 2), bool)), 0)
    assert (found['count'], found['no_contour'], found['no_box']) == (5, 2, 2)
    assert found['paper'] == dict.fromkeys(('top1', 'top5', 'gt_known'), 1 / 2)
    assert found['strict'] == dict.fromkeys(('top1', 'top5', 'gt_known'), 1 / 5)
    assert {type(found[name]) for name in ('count', 'no_contour', 'no_box')} == {int}
    assert {type(value) for value in found['strict'].values()} == {float}


# ---------------------------------------------------------------- both protocols

def test_ignored_pixels_count_as_nothing():
    """Half of the foreground is called background, and all of that is ignored, or not."""
    crop, full = np.zeros((2, 224, 224), np.float32)
    full[14:112, 14:112] = 0.9
    foreground, ignored = np.zeros((2, 256, 256), bool)
    foreground[16:128, 72:128], ignored[:, :72] = True, True

    def pxap(ignored):
        found = measure(0, (256, 256), [crop, full], np.array([[16.0, 16.0, 128.0, 128.0]]),
                        CentreCrop(256, 224), [0.2], (foreground, ignored))
        return summarize(stack([found]), np.array([0.2]), 0.2)['pxap']

    assert pxap(ignored) == pytest.approx(1)
    assert pxap(ignored & ~ignored) < 0.6


def test_stored_scores_give_the_accumulators_metrics(golden):
    arrays = golden('metrics')
    largest, v2, pixels = MaxBoxAcc(), MaxBoxAcc(V2_DELTAS, multi_contour=True), PxAP()
    levels, counts = [], []
    for score_map, boxes, (width, height), bits in zip(
            *(arrays[name] for name in ('score_map', 'box', 'image_size', 'mask')), strict=True):
        boxes, mask = boxes[boxes[:, 0] >= 0], np.unpackbits(bits, axis=-1).astype(bool)
        for metric in (largest, v2):
            metric.accumulate(score_map / 1000, boxes, (height, width))
        pixels.accumulate(score_map / 1000, mask)
        levels.append(level_ious(score_map / 1000, boxes, (height, width)))
        counts.append(pixel_counts(score_map / 1000, mask))
    scores = scores_of(np.array(levels))._replace(pixels=np.array(counts))
    found = benchmark(scores, np.ones((1, len(levels)), np.uint8), [0.05, 0.999])
    (expected,), (best,) = largest.compute()
    assert found['max_box_acc'] == expected
    assert [found[f'max_box_acc_v2_iou_{delta}'] for delta in V2_DELTAS] == v2.compute()[0].tolist()
    assert found['max_box_acc_v2'] == pytest.approx(v2.compute()[0].mean())
    assert found['pxap'] == pytest.approx(pixels.compute(), abs=1e-12)
    assert [found['gt_known_0.05'], found['gt_known_0.999']] == (
        largest.hits[0, [50, 999]] / 16).tolist()
    assert [threshold_of(level) for level in best_levels(scores)] == [
        best, *v2.compute()[1].tolist()]


def scores_of(levels, hits=None):
    return Evaluated(np.arange(len(levels)), None, None, None, None, levels, hits=hits)


def scores_right_from(*ranges, hits=None):
    """Images whose box is right, IoU 0.6, at the levels of a range, and has IoU 0.4 elsewhere."""
    levels = np.full((len(ranges), 2, 255), 0.4 * IOU_UNITS, np.uint16)
    for image, (begin, end) in zip(levels, ranges, strict=True):
        image[:, begin:end] = 0.6 * IOU_UNITS
    return scores_of(levels, hits)


def test_transferred_thresholds_are_those_of_the_other_images():
    """The others are best at levels 150 to 159; of these images, 1 of 4 is right there, and 3 of 4
    at levels 20 to 49."""
    others = scores_right_from((100, 160), (150, 200), (0, 10))
    hits = np.array([[True, True], [True, True], [False, True], [False, False]])
    scores = scores_right_from((10, 50), (20, 60), (20, 155), (200, 210), hits=hits)
    found = {name: float(values[0]) for name, values in benchmark(
        scores, resampling_weights(4), levels=best_levels(others)).items()}
    assert best_levels(others).tolist() == [150, 0, 150, 0]  # delta 0.3: always; 0.7: never
    assert (found['transferred_max_box_acc'], found['max_box_acc']) == (1 / 4, 3 / 4)
    assert (found['transferred_max_box_acc_v2_iou_0.5'], found['max_box_acc_v2_iou_0.5']) == (
        1 / 4, 3 / 4)
    assert found['transferred_max_box_acc_v2'] == pytest.approx((1 + 1 / 4 + 0) / 3)
    assert (found['transferred_top1'], found['top1']) == (0, 2 / 4)
    assert (found['transferred_top5'], found['top5']) == (1 / 4, 3 / 4)
