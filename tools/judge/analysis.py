"""From the scores of several methods on the same images to evaluation.json's content."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tools.judge.ground_truth import GroundTruth
from utils.localization.bootstrap import (
    CONFIDENCE,
    RESAMPLES,
    estimate,
    holm,
    mcnemar,
    paired_difference,
    weighted_sums,
)
from utils.localization.measurement import V2_DELTAS, BenchmarkScores
from utils.localization.metrics import IOU_UNITS, LEVEL_OF_STEP, level_of, threshold_of

SCHEMA_VERSION = 1
SIZE_EDGES = (0.1, 0.3, 0.6)   # of an object's area, as a fraction of the image's


@dataclass(frozen=True)
class Boxes:
    """What is kept of a method's boxes, (N,) each.

    Attributes:
        threshold: the one in use: the transferred one, else the best on these images.
        iou: the IoU at the threshold in use.
        best_iou: the highest at any threshold.
        correct: bool, whether the box is right, at each of the fixed thresholds.
        curve: (1000,), the fraction of right boxes at each threshold.
    """

    threshold: float
    iou: np.ndarray
    best_iou: np.ndarray
    correct: dict[str, np.ndarray]
    curve: np.ndarray


@dataclass(frozen=True)
class Method:
    """A method's metrics in the sample and its resamples, (1 + R,) each, and its boxes."""

    samples: dict[str, np.ndarray]
    boxes: Boxes | None
    cam_thresholds: dict[str, list[float]]


def analyse_method(scores: BenchmarkScores, weights: np.ndarray, thresholds: Sequence[float],
                   levels: np.ndarray | None = None) -> Method:
    """`levels`: those that were chosen on other images (`BenchmarkScores.best_levels`)."""
    samples = scores.metrics(weights, thresholds, levels)
    if scores.ious is None:
        return Method(samples, None, {})
    best = scores.best_levels()
    chosen = {'best': best} if levels is None else {'transferred': levels, 'best': best}
    in_use = next(iter(chosen.values()))[0]
    fixed = {f'gt_known_{t}': level_of(t) for t in thresholds}
    if levels is not None:
        fixed = {'transferred_max_box_acc': in_use, **fixed}
    largest = scores.ious[:, 0]
    right = largest >= IOU_UNITS // 2
    boxes = Boxes(threshold_of(in_use), largest[:, in_use] / IOU_UNITS,
                  largest.max(1) / IOU_UNITS,
                  {name: right[:, level] for name, level in fixed.items()},
                  right.mean(0)[LEVEL_OF_STEP])
    return Method(samples, boxes, {name: [threshold_of(level) for level in values]
                                   for name, values in chosen.items()})


def report(methods: dict[str, Method], truths: Sequence[GroundTruth], weights: np.ndarray,
           against: str, quartiles: bool) -> dict:
    """evaluation.json: everything that the tables show. Metrics are fractions."""
    content = {'schema_version': SCHEMA_VERSION, 'count': len(truths), 'confidence': CONFIDENCE,
               'resamples': RESAMPLES, 'against': against,
               'methods': {name: _metrics(method) for name, method in methods.items()},
               'differences': _differences(methods, against)}
    if methods[against].boxes is not None:
        sizes = np.array([truth.object_size for truth in truths])
        edges = np.quantile(sizes, [0.25, 0.5, 0.75]) if quartiles else SIZE_EDGES
        content['sizes'] = _by_size(methods, sizes, np.array(edges), weights)
    return content


def _metrics(method: Method) -> dict:
    content: dict = {'metrics': {name: estimate(samples)
                                 for name, samples in method.samples.items()}}
    if method.boxes is not None:
        content['cam_threshold'] = {
            name: {'max_box_acc': max_box_acc,
                   'max_box_acc_v2': dict(zip(map(str, V2_DELTAS), v2, strict=False))}
            for name, (max_box_acc, *v2) in method.cam_thresholds.items()}
        content['curve'] = method.boxes.curve.tolist()
    return content


def _differences(methods: dict[str, Method], against: str) -> dict:
    """Of each other method: the metrics' differences, with p-values that Holm's method adjusts for
    the number of methods, and McNemar's tests at fixed thresholds."""
    reference = methods[against]
    others = {name: method for name, method in methods.items() if name != against}
    content: dict = {
        name: {'metrics': {metric: paired_difference(samples, reference.samples[metric])
                           for metric, samples in method.samples.items()}}
        for name, method in others.items()}
    for metric in reference.samples if others else ():
        rows = [content[name]['metrics'][metric] for name in others]
        for row, adjusted in zip(rows, holm([row['p'] for row in rows]), strict=True):
            row['p_holm'] = adjusted
    if reference.boxes is not None:
        for name, method in others.items():
            content[name]['mcnemar'] = {
                metric: mcnemar(correct, reference.boxes.correct[metric])
                for metric, correct in method.boxes.correct.items()}
    return content


def _by_size(methods: dict[str, Method], sizes: np.ndarray, edges: np.ndarray,
             weights: np.ndarray) -> dict:
    """The fraction of right boxes at the threshold in use, by the size of the object."""
    groups = np.searchsorted(edges, sizes, side='right')[:, None] == np.arange(len(edges) + 1)
    drawn = weighted_sums(weights, groups)
    content: dict = {'edges': edges.tolist(), 'count': groups.sum(0).tolist(), 'methods': {}}
    for name, method in methods.items():
        right = weighted_sums(weights, groups & (method.boxes.iou >= 0.5)[:, None])
        with np.errstate(invalid='ignore'):
            rates = (right / drawn).T
        content['methods'][name] = [estimate(rate) if group.any() else None
                                    for rate, group in zip(rates, groups.T, strict=True)]
    return content
