"""From an image's maps to its measurements, and from these to the figures."""

from dataclasses import replace

import numpy as np
import pytest

from utils.localization.bootstrap import resampling_weights
from utils.localization.boxes import CentreCrop
from utils.localization.measurement import (
    V2_DELTAS,
    BenchmarkScores,
    EvaluationMetrics,
    ScoreMaps,
    advise,
    measure,
    thresholds_of,
)
from utils.localization.metrics import (
    IOU_UNITS,
    MaxBoxAcc,
    PxAP,
    level_ious,
    pixel_counts,
    threshold_of,
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
    return measure(3, 'a.jpg', maps(whole), (256, 256), boxes, CentreCrop(256, 224),
                   np.array(thresholds), mask)


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
    images = [measured(), replace(measured(boxes=np.array([[100.0, 100.0, 250.0, 250.0]])),
                                  index=4)]
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


def test_stored_scores_give_the_accumulators_metrics(golden):
    arrays = golden('metrics')
    largest, v2, pixels = MaxBoxAcc(), MaxBoxAcc(V2_DELTAS, multi_contour=True), PxAP()
    ious, counts = [], []
    for score_map, boxes, (width, height), bits in zip(
            *(arrays[name] for name in ('score_map', 'box', 'image_size', 'mask')), strict=True):
        boxes, mask = boxes[boxes[:, 0] >= 0], np.unpackbits(bits, axis=-1).astype(bool)
        for metric in (largest, v2):
            metric.accumulate(score_map / 1000, boxes, (height, width))
        pixels.accumulate(score_map / 1000, mask)
        ious.append(level_ious(score_map / 1000, boxes, (height, width)))
        counts.append(pixel_counts(score_map / 1000, mask))
    scores = BenchmarkScores(np.array(ious), np.array(counts))
    found = scores.metrics(np.ones((1, len(ious)), np.uint8), [0.05, 0.999])
    (expected,), (best,) = largest.compute()
    assert found['max_box_acc'] == expected
    assert [found[f'max_box_acc_v2_iou_{delta}'] for delta in V2_DELTAS] == v2.compute()[0].tolist()
    assert found['max_box_acc_v2'] == pytest.approx(v2.compute()[0].mean())
    assert found['pxap'] == pytest.approx(pixels.compute(), abs=1e-12)
    assert [found['gt_known_0.05'], found['gt_known_0.999']] == (
        largest.hits[0, [50, 999]] / 16).tolist()
    assert [threshold_of(level) for level in scores.best_levels()] == [
        best, *v2.compute()[1].tolist()]


def scores_right_from(*ranges, hits=None):
    """Images whose box is right, IoU 0.6, at the levels of a range, and has IoU 0.4 elsewhere."""
    ious = np.full((len(ranges), 2, 255), 0.4 * IOU_UNITS, np.uint16)
    for image, (begin, end) in zip(ious, ranges, strict=True):
        image[:, begin:end] = 0.6 * IOU_UNITS
    return BenchmarkScores(ious, hits=hits)


def test_transferred_thresholds_are_those_of_the_other_images():
    """The others are best at levels 150 to 159; of these images, 1 of 4 is right there, and 3 of 4
    at levels 20 to 49. The classifier knows the first two."""
    others = scores_right_from((100, 160), (150, 200), (0, 10))
    hits = np.array([[True, True], [True, True], [False, True], [False, False]])
    scores = scores_right_from((10, 50), (20, 60), (20, 155), (200, 210), hits=hits)
    found = {name: float(values[0]) for name, values in scores.metrics(
        resampling_weights(4), levels=others.best_levels()).items()}
    assert others.best_levels().tolist() == [150, 0, 150, 0]  # delta 0.3: always; 0.7: never
    assert (found['transferred_max_box_acc'], found['max_box_acc']) == (1 / 4, 3 / 4)
    assert (found['transferred_max_box_acc_v2_iou_0.5'], found['max_box_acc_v2_iou_0.5']) == (
        1 / 4, 3 / 4)
    assert found['transferred_max_box_acc_v2'] == pytest.approx((1 + 1 / 4 + 0) / 3)
    assert (found['transferred_top1'], found['top1']) == (0, 2 / 4)
    assert (found['transferred_top5'], found['top5']) == (1 / 4, 3 / 4)


def test_the_threshold_is_chosen_anew_in_each_resample():
    """Each of two images is right where the other is not: 1 / 2 at best. A resample of the same
    image twice is right everywhere."""
    samples = scores_right_from((0, 100), (100, 255)).metrics(resampling_weights(2))
    assert samples['max_box_acc'][0] == 0.5
    assert set(samples['max_box_acc'][1:]) == {0.5, 1}


def evaluation_of(right, thresholds=(0.2,)):
    """The metrics of images whose box is right or not; the classifier knows every second one."""
    wrong = np.array([[100.0, 100.0, 250.0, 250.0]])
    metrics = EvaluationMetrics(np.array(thresholds), classified=True)
    for index, correct in enumerate(right):
        image = measured(boxes=BOX if correct else wrong, thresholds=thresholds)
        metrics.accumulate(replace(image, index=index), (index % 2 == 0, True))
    return metrics


def test_results_have_intervals():
    """One of four: a resample has none right with a probability of 32 %, and three or more with 5 %
    (binomial), so that the quantiles 2.5 % and 97.5 % are 0 and 3 of 4."""
    result = evaluation_of([True, False, False, False]).compute(0.2)
    intervals = result['intervals']
    assert result['strict'] == {'top1': 0.25, 'top5': 0.25, 'gt_known': 0.25}
    assert intervals['strict'] == dict.fromkeys(('top1', 'top5', 'gt_known'), (0, 0.75))
    assert intervals['max_box_acc'] == (0, 0.75)
    assert 'pxap' not in intervals
    assert (intervals['confidence'], intervals['resamples']) == (0.95, 1000)


def test_a_selected_threshold_is_reported_beside_the_one_in_use():
    result = evaluation_of([True, True], thresholds=(0.2, 0.95)).compute(0.2, selected=0.95)
    assert result['strict']['gt_known'] == 1
    assert result['selected']['threshold'] == 0.95
    assert result['selected']['strict']['gt_known'] == 0
    assert result['selected']['intervals']['strict']['gt_known'] == (0, 0)


def test_the_order_of_the_images_does_not_matter():
    alone = evaluation_of([True, False, True, True, False])
    parts = evaluation_of([]), evaluation_of([])
    for index in (3, 0, 4, 2, 1):
        part = parts[index % 2]
        image = measured(boxes=BOX if index in (0, 2, 3) else np.array([[100, 100, 250, 250.0]]))
        part.accumulate(replace(image, index=index), (index % 2 == 0, True))
    parts[1].merge(parts[0])
    assert parts[1].compute(0.2) == alone.compute(0.2)


def test_without_images_there_are_zeros():
    result = EvaluationMetrics(np.array([0.2])).compute(0.2)
    assert (result['count'], result['strict']['gt_known'], result['max_box_acc']) == (0, 0, None)
