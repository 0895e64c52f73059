"""From an image's maps to its measurements, and from these to the figures."""

import numpy as np
import pytest

from utils.localization.boxes import CentreCrop
from utils.localization.measurement import (
    EvaluationMetrics,
    ScoreMaps,
    advise,
    measure,
    thresholds_of,
)
from utils.localization.protocol import LocalizationMetrics

BOX = np.array([[16.0, 16.0, 128.0, 128.0]])   # of an image of 256 x 256


def maps(whole=True):
    """A crop of 224 whose foreground is the box, and the whole image at 224 x 224."""
    crop, full = np.zeros((2, 224, 224), np.float32)
    crop[:112, :112] = 0.9
    full[14:112, 14:112] = 0.9
    return ScoreMaps(crop, full if whole else None)


def measured(boxes=BOX, mask=None, whole=True, thresholds=(0.2,)):
    return measure(3, maps(whole), (256, 256), boxes, CentreCrop(256, 224), np.array(thresholds),
                   mask)


def test_a_map_of_the_box_itself_is_right_by_both_protocols():
    mask = np.zeros((256, 256), bool)
    mask[16:128, 16:128] = True
    figures = EvaluationMetrics(np.array([0.2]), classified=True)
    figures.accumulate(measured(mask=mask), hits=(True, True))
    result = figures.compute(0.2)
    assert result['strict'] == result['paper'] == {'top1': 1, 'top5': 1, 'gt_known': 1}
    assert (result['max_box_acc'], result['max_box_acc_v2']) == (1, 1)
    assert result['pxap'] == pytest.approx(1)
    assert result['classification'] == {'top1': 1, 'top5': 1}


def test_without_the_map_of_the_whole_image_the_fields_figures_are_none():
    image = measured(whole=False)
    assert image.ious is None
    assert image.pixels is None
    figures = EvaluationMetrics(np.array([0.2]))
    figures.accumulate(image)
    result = figures.compute(0.2)
    assert result['strict']['gt_known'] == 1
    assert [result[name] for name in ('max_box_acc', 'max_box_acc_v2', 'pxap',
                                      'best_threshold')] == [None] * 4


def test_a_box_outside_the_crop_counts_in_the_strict_count_only():
    figures = EvaluationMetrics(np.array([0.2]))
    figures.accumulate(measured(boxes=np.array([[0.0, 0.0, 10.0, 10.0]])))
    result = figures.compute(0.2)
    assert (result['count'], result['no_box']) == (1, 1)
    assert (result['strict']['gt_known'], result['paper']['gt_known']) == (0, 0)


def test_figures_of_two_ranks_are_those_of_one():
    images = [measured(), measured(boxes=np.array([[100.0, 100.0, 250.0, 250.0]]))]
    alone, first, second = (EvaluationMetrics(np.array([0.2])) for _ in range(3))
    for image in images:
        alone.accumulate(image)
    first.accumulate(images[0])
    second.accumulate(images[1])
    first.merge(second)
    assert first.compute(0.2) == alone.compute(0.2)
    assert alone.compute(0.2)['strict']['gt_known'] == 0.5


def test_the_threshold_in_use_is_one_of_the_sweeps():
    assert thresholds_of(0.2, sweep=False).tolist() == [0.2]
    swept = thresholds_of(0.123, sweep=True)
    assert len(swept) == 101
    assert 0.123 in swept


def sweep_with(best, gain):
    """A sweep whose GT-known is 0.5, and 0.5 + gain at the threshold `best`."""
    counts = LocalizationMetrics(thresholds_of(0.2, sweep=True), classified=False)
    counts.count = 1000
    counts.counted[:] = 1000
    counts.correct['gt_known'][:] = 500
    counts.correct['gt_known'][int(round(best * 100))] += round(1000 * gain)
    return counts.sweep()


@pytest.mark.parametrize(('best', 'gain', 'words'), [
    (0.8, 0.3, 'too little training'), (0.01, 0.3, 'low inside the object'),
    (0.3, 0.3, None), (0.8, 0.01, None)])
def test_advice_where_the_best_threshold_is_far_and_worth_it(best, gain, words):
    advice = advise(sweep_with(best, gain), 0.2)
    if words is None:
        assert advice is None
    else:
        assert words in advice
        assert f'{gain:.4f} higher at threshold {best:.2f} than at 0.2' in advice
