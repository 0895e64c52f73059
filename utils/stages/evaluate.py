"""seg/test, and cam/test --evaluate: how well maps localize the objects of a list.

    segmentation_maps | cam_maps    a batch of images -> score maps (utils/stages/score_maps.py)
    measure_batch                   score maps and ground truth -> measurements of each image
    accumulate                      measurements of a list -> metrics
    write_tables, print_summary     metrics -> files and text (utils/outputs/tables.py)

`measure_list` runs the first two over a list, in threads; `evaluate` is the whole chain.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from utils.data.lists import ImageList
from utils.engine.inference import Inference, Predictor
from utils.errors import InputError
from utils.localization.boxes import CentreCrop
from utils.localization.measurement import (
    EvaluationMetrics,
    Measurement,
    thresholds_of,
)
from utils.localization.protocol import SWEEP_THRESHOLDS
from utils.outputs.bad_images import BadImages
from utils.outputs.results import RunFolder
from utils.outputs.tables import ImageResult, print_summary, size_warning, write_tables
from utils.outputs.top1top5 import Hits
from utils.stages.score_maps import Scorer, cam_maps, measure_list, segmentation_maps


@dataclass(frozen=True)
class EvaluationOptions:
    """What is reported, named as the flags of the scripts."""

    threshold: float = 0.2
    sweep: bool = False
    metrics: str = 'all'
    save_maps: bool = False


def evaluate_segmentation(predict: Predictor, images: ImageList, crop: CentreCrop,
                          inference: Inference, run: RunFolder, options: EvaluationOptions,
                          hits: Hits | None = None, selection: ImageList | None = None) -> None:
    """Write boxes.csv, classes.csv and results.json of the segmentation network `predict`.

    `hits`: the classifier's, or None where only GT-known is wanted; `selection`: other images, on
    which a threshold is chosen.
    """
    result = evaluate(partial(segmentation_maps, predict), ('SPOL',), images, crop, inference, run,
                      options, hits, selection)
    if result is None:
        return
    metrics = result.metrics['SPOL']
    path = run.write_results(metrics, result.seconds, metrics['count'])
    print_summary(result.metrics, images, options.threshold)
    print(f'wrote {run.file("boxes.csv")} and {path}{result.left_out}')


def evaluate_cams(predict: Predictor, kinds: tuple[str, ...], images: ImageList, crop: CentreCrop,
                  inference: Inference, run: RunFolder, options: EvaluationOptions) -> None:
    """Write the metrics of the CAMs of each image's true class to results.json. `kinds`: `fused`
    (shallow x deep), after `deep` (the plain CAM) where it was trained; `predict` runs
    `CamNet.class_cams`."""
    if images.boxes is None:
        raise InputError(f'{images.source} has no boxes to compare with: add them, or leave out '
                         '--evaluate')
    result = evaluate(partial(cam_maps, predict, images, kinds), kinds, images, crop, inference,
                      run, options)
    if result is None:
        return
    path = run.write_results(result.metrics, result.seconds, result.metrics['fused']['count'],
                             'evaluation')
    print_summary(result.metrics, images, options.threshold)
    print(f'wrote {path}{result.left_out}')


class Evaluation(NamedTuple):
    """The metrics of each kind of maps, as results.json has them, the time that their images took,
    and the end of the script's last line."""

    metrics: dict[str, dict]
    seconds: float
    left_out: str


def evaluate(score_maps: Scorer, kinds: tuple[str, ...], images: ImageList, crop: CentreCrop,
             inference: Inference, run: RunFolder, options: EvaluationOptions,
             hits: Hits | None = None, selection: ImageList | None = None) -> Evaluation | None:
    """Evaluate the maps of a list and write the tables, on rank 0; None on other ranks.

    With `selection`, the metrics include those at the threshold whose GT-known (strict count) is
    best on these images.
    """
    whole = options.metrics == 'all'
    if options.save_maps and not whole:
        raise InputError('--save_maps needs the maps of whole images: leave out --metrics paper')
    begin = time.monotonic()
    selected = {}
    if selection is not None:
        selected = choose_thresholds(score_maps, kinds, selection, crop, inference, run)
    bad = BadImages(images, run.file('bad_images.txt'))
    thresholds = thresholds_of(options.threshold, options.sweep or selection is not None)
    measurements = measure_list(score_maps, images, crop, inference, thresholds, bad, whole,
                                run.file('maps') if options.save_maps else None)
    part = accumulate(measurements, kinds, thresholds, options.threshold, hits)
    results = merge(inference.gather(part, bad))
    if not results:
        return None
    seconds = time.monotonic() - begin
    metrics = {kind: results[kind].compute(options.threshold, options.sweep, selected.get(kind))
               for kind in kinds}
    write_tables(run, images, crop, {kind: results[kind].records for kind in kinds}, metrics, hits)
    last = kinds[-1]
    warning = size_warning(results[last].records, metrics[last], crop.side)
    return Evaluation(metrics, seconds, bad.summary() + warning)


def choose_thresholds(score_maps: Scorer, kinds: tuple[str, ...], images: ImageList,
                      crop: CentreCrop, inference: Inference, run: RunFolder) -> dict[str, float]:
    """The threshold at which GT-known (strict count) is best on a list, for each kind of maps; on
    rank 0 alone. Raises InputError for a list without boxes."""
    if images.boxes is None:
        raise InputError(f'{images.source} has no boxes: choose a list that has for --select')
    bad = BadImages(images, run.file('bad_select_images.txt'))
    measurements = measure_list(score_maps, images, crop, inference, SWEEP_THRESHOLDS, bad,
                                whole=False)
    part = accumulate(measurements, kinds, SWEEP_THRESHOLDS, 0)
    results = merge(inference.gather(part, bad))
    return {kind: found.metrics.counts.sweep()['best_threshold'] for kind, found in results.items()}


@dataclass
class ListResults:
    """What is accumulated over a list for a kind of maps: metrics, and each image's record by its
    index."""

    metrics: EvaluationMetrics
    records: dict[int, ImageResult] = field(default_factory=dict)

    def compute(self, threshold: float, sweep: bool = False, selected: float | None = None
                ) -> dict:
        """The metrics as results.json has them; for a list without boxes the count alone."""
        if not self.metrics.counts.count:
            return {'count': len(self.records)}
        return self.metrics.compute(threshold, sweep, selected)


def accumulate(measurements: Iterable[tuple[str, Measurement]], kinds: Iterable[str],
               thresholds: np.ndarray, threshold: float, hits: Hits | None = None
               ) -> dict[str, ListResults]:
    """The results of each kind of maps. Records are those at `threshold`, one of the `thresholds`
    that were measured; `hits`: the classifier's, or None where only GT-known is wanted."""
    results = {kind: ListResults(EvaluationMetrics(thresholds, hits is not None))
               for kind in kinds}
    chosen = int(np.searchsorted(thresholds, threshold))
    for kind, image in measurements:
        if image.has_truth:
            found = (False, False) if hits is None else hits[image.name]
            results[kind].metrics.accumulate(image, found)
        results[kind].records[image.index] = ImageResult(image.size, image.has_box,
                                                         image.localizations[chosen])
    return results


def merge(parts: list[dict[str, ListResults]]) -> dict[str, ListResults]:
    """The results of several parts of a list as one, empty without parts; the first is changed."""
    first, *others = parts or [{}]
    for other in others:
        for kind, results in first.items():
            results.metrics.merge(other[kind].metrics)
            results.records |= other[kind].records
    return first
