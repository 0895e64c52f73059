"""From score maps to one table of arrays, and from the table to every metric.

Two protocols look at a map. The paper's (Tables 1 and 2) looks at the centre crop: an image is
correct when the box at a fixed threshold has an IoU above 0.5 with a ground-truth box. The
benchmark's (utils/metrics.py) looks at the whole image at 224 x 224, at all thresholds.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from utils import resampling
from utils.boxes import CentreCrop, iou, largest_box
from utils.metrics import (
    IOU_UNITS,
    average_precision,
    level_ious,
    level_of,
    pixel_counts,
    threshold_of,
)

IOU_THRESHOLD = 0.5
SWEEP_THRESHOLDS = np.arange(100) / 100
V2_DELTAS = (0.3, 0.5, 0.7)
BENCHMARK_METRICS = ('max_box_acc', 'max_box_acc_v2', 'pxap')
NO_BOX = (-1, -1, -1, -1)


class Evaluated(NamedTuple):
    """What the maps of N images give, at T thresholds.

    index: (N,) int64, places in the list.
    size: (N, 2) int64, (H, W) of the images.
    box: (N, T, 4) int16, the largest contour's box in pixels of the crop; -1 without a contour.
    iou: (N, T) float64, its best IoU with a ground-truth box; 0 without either.
    has_box: (N,) bool, whether a ground-truth box is left in the crop.
    levels: (N, 2, 255) uint16, as `utils.metrics.level_ious` returns them; None without boxes.
    pixels: (N, 2, 1002) uint16, as `utils.metrics.pixel_counts`; None without masks.
    hits: (N, 2) bool, the classifier's first class, and one of its first five, is right; None
        without a classifier.
    """

    index: np.ndarray  # type: ignore[assignment]  # not tuple's method
    size: np.ndarray
    box: np.ndarray | None
    iou: np.ndarray | None
    has_box: np.ndarray | None
    levels: np.ndarray | None = None
    pixels: np.ndarray | None = None
    hits: np.ndarray | None = None

    @property
    def contour(self) -> np.ndarray:
        """(N, T) bool, whether there is a box."""
        return self.box[..., 0] >= 0

    @property
    def correct(self) -> np.ndarray:
        """(N, T) bool, whether the box is right."""
        return self.iou > IOU_THRESHOLD


def measure(index: int, size: tuple[int, int], maps: Sequence[np.ndarray],
            boxes: np.ndarray | None, crop: CentreCrop, thresholds: Sequence[float],
            mask: tuple[np.ndarray, np.ndarray] | None = None) -> Evaluated:
    """The row of an image.

    size: (H, W) of the image; maps: that of the crop, and that of the whole image if the
    benchmark's metrics are wanted, 2-d float in [0, 1]; boxes: (K, 4), the ground truth in pixels
    of the image, None where not known; mask: (foreground, ignored), bool of any size.
    """
    truth = np.empty((0, 4)) if boxes is None else crop.true_boxes(boxes, size)
    found = np.array([largest_box(maps[0], threshold) or NO_BOX for threshold in thresholds],
                     np.int16)
    levels = pixels = None
    if boxes is not None and len(maps) > 1:
        levels = level_ious(maps[1], boxes, size)
        pixels = None if mask is None else pixel_counts(maps[1], *mask)
    return Evaluated(np.array(index), np.array(size), found,
                     iou(found[:, None], truth).max(1, initial=0), np.array(len(truth) > 0),
                     levels, pixels)


def stack(rows: Sequence[Evaluated], join: Callable = np.stack) -> Evaluated:
    """The rows of images as a table."""
    return Evaluated(*(None if column[0] is None else join(column)
                       for column in zip(*rows, strict=True)))


def concatenate(parts: Sequence[Evaluated]) -> Evaluated:
    """Parts of a list as one table, in the order of the list."""
    joined = stack(parts, np.concatenate)
    order = joined.index.argsort()
    return Evaluated(*(None if column is None else column[order] for column in joined))


# ---------------------------------------------------------------- the paper's protocol


def at_threshold(results: Evaluated, number: int) -> dict[str, Any]:
    """Top-1, Top-5 and GT-known at the threshold of that number, as results.json has them, by two
    counts: the paper's leaves out images without a contour, and those without a ground-truth box
    after the crop; the strict one does not. Top-1 and Top-5 are None without a classifier."""
    contour, correct = results.contour[:, number], results.correct[:, number]
    right = {'top1': None, 'top5': None, 'gt_known': int(correct.sum())}
    if results.hits is not None:
        right['top1'], right['top5'] = (results.hits & correct[:, None]).sum(0).tolist()
    count, counted = len(correct), int((contour & results.has_box).sum())
    paper, strict = ({name: None if value is None else value / max(images, 1)
                      for name, value in right.items()} for images in (counted, count))
    return {'count': count, 'no_contour': int((~contour).sum()),
            'no_box': int((~results.has_box).sum()), 'paper': paper, 'strict': strict,
            'intervals': {'strict': {name: resampling.wilson(value, count)
                                     for name, value in right.items() if value is not None}}}


def sweep_of(results: Evaluated, thresholds: np.ndarray) -> dict[str, Any]:
    """GT-known at thresholds 0, 0.01, ..., by both counts, and where the strict count is best."""
    numbers = np.flatnonzero(np.isin(thresholds, SWEEP_THRESHOLDS))
    correct = results.correct[:, numbers].sum(0)
    counted = (results.contour[:, numbers] & results.has_box[:, None]).sum(0)
    best = numbers[correct.argmax()]
    return {'best_threshold': float(thresholds[best]), 'best': at_threshold(results, best),
            'thresholds': thresholds[numbers].tolist(),
            'paper': (correct / np.maximum(counted, 1)).tolist(),
            'strict': (correct / len(results.index)).tolist()}


def summarize(results: Evaluated, thresholds: np.ndarray, threshold: float, sweep: bool = False,
              **others: float) -> dict[str, Any]:
    """The metrics of both protocols as results.json has them; None for those without ground truth.

    thresholds: (T,), those of the table; threshold: the one in use; others: further ones of them
    by the names under which their metrics are added.
    """
    def at(value: float) -> dict[str, Any]:
        return at_threshold(results, thresholds.tolist().index(value))

    metrics = {**at(threshold), **dict.fromkeys(BENCHMARK_METRICS), 'best_threshold': None}
    metrics['intervals'] |= {'confidence': resampling.CONFIDENCE,
                             'resamples': resampling.RESAMPLES}
    samples = benchmark(results, resampling.resampling_weights(len(results.index)))
    for name in BENCHMARK_METRICS:
        if name in samples:
            metrics[name] = float(samples[name][0])
            metrics['intervals'][name] = resampling.interval(samples[name][1:])
    if results.levels is not None:
        metrics['best_threshold'] = threshold_of(best_levels(results)[0])
    if results.hits is not None:
        metrics['classification'] = dict(zip(('top1', 'top5'), results.hits.mean(0).tolist(),
                                             strict=True))
    if sweep:
        metrics['sweep'] = sweep_of(results, thresholds)
    return metrics | {name: {'threshold': value, **at(value)} for name, value in others.items()}


# ---------------------------------------------------------------- the benchmark's protocol


def correct_boxes(results: Evaluated) -> np.ndarray:
    """(N, C, 255) bool: MaxBoxAcc's box is right, MaxBoxAccV2's at each of its three deltas, and
    with a classifier Top-1's and Top-5's."""
    largest, every = results.levels[:, :1], results.levels[:, 1:]
    rows = [largest >= IOU_UNITS // 2,
            every >= np.round(IOU_UNITS * np.array(V2_DELTAS)[:, None])]
    if results.hits is not None:
        rows.append(rows[0] & results.hits[..., None])
    return np.concatenate(rows, 1)


def best_levels(results: Evaluated) -> np.ndarray:
    """(4,): the level at which most images are right by MaxBoxAcc, which Top-1 and Top-5 use as
    well, and by MaxBoxAccV2 at each of its deltas."""
    return correct_boxes(results).sum(0)[:1 + len(V2_DELTAS)].argmax(1)


def benchmark(results: Evaluated, weights: np.ndarray, thresholds: Sequence[float] = (),
              levels: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """All metrics of each resample, (R,) each; weights: (R, N), of `resampling_weights`.

    Thresholds are chosen anew in each resample. GT-known is added at `thresholds`, and, if
    `levels` are given, as `best_levels` of other images, what these give, as `transferred_*`.
    Metrics without ground truth are left out; PxAP is NaN in a resample without foreground.
    """
    metrics = {}
    if results.levels is not None:
        rates = resampling.weighted_sums(weights, correct_boxes(results)) / weights.shape[1]
        if levels is not None:
            metrics = {f'transferred_{name}': values
                       for name, values in _metrics_at(rates, levels[None]).items()}
        metrics |= _metrics_at(rates, rates[:, :1 + len(V2_DELTAS)].argmax(2))
        metrics |= {f'gt_known_{t}': rates[:, 0, level_of(t)] for t in thresholds}
    if results.pixels is not None and results.pixels[:, 1].any():
        metrics['pxap'] = average_precision(
            resampling.weighted_sums(weights, results.pixels))
    return metrics


def _metrics_at(rates: np.ndarray, levels: np.ndarray) -> dict[str, np.ndarray]:
    """rates: (R, C, 255), means of `correct_boxes`; levels: (R or 1, 4)."""
    names = ['max_box_acc', *(f'max_box_acc_v2_iou_{delta}' for delta in V2_DELTAS),
             'top1', 'top5'][:rates.shape[1]]
    levels = levels[:, [0, 1, 2, 3, 0, 0][:len(names)], None]
    metrics = dict(zip(names, np.take_along_axis(rates, levels, 2)[..., 0].T, strict=True))
    return metrics | {'max_box_acc_v2': np.mean([metrics[name] for name in names[1:4]], axis=0)}
