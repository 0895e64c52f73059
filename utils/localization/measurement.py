"""From the score maps of an image to its measurements, and from these to the metrics.

Two protocols: the paper's, on the centre crop, and the benchmark's, on the whole image at
224 x 224.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.localization.bootstrap import (
    CONFIDENCE,
    RESAMPLES,
    interval,
    resampling_weights,
    weighted_sums,
)
from utils.localization.boxes import CentreCrop, clip_to_image
from utils.localization.metrics import (
    IOU_UNITS,
    average_precision,
    level_ious,
    level_of,
    pixel_counts,
    threshold_of,
)
from utils.localization.protocol import (
    SWEEP_THRESHOLDS,
    Localization,
    LocalizationMetrics,
    localize,
)

V2_DELTAS = (0.3, 0.5, 0.7)
BENCHMARK_METRICS = ('max_box_acc', 'max_box_acc_v2', 'pxap')


@dataclass(frozen=True)
class ScoreMaps:
    """An image's maps in [0, 1], 2-d float: of the centre crop that the paper looks at, and of the
    whole image at 224 x 224 (None where the field's metrics are not wanted)."""

    crop: np.ndarray
    whole: np.ndarray | None = None


@dataclass(frozen=True)
class Measurement:
    """What an image's maps give, before anything is counted."""

    index: int
    name: str
    size: tuple[int, int]               # (H, W) of the image
    localizations: list[Localization]   # at each threshold, in the crop
    has_truth: bool                     # whether the list has boxes
    has_box: bool                       # whether a ground-truth box is left in the crop
    ious: np.ndarray | None             # as `level_ious` returns them
    pixels: np.ndarray | None           # as `pixel_counts` returns them


def thresholds_of(threshold: float, sweep: bool) -> np.ndarray:
    """The thresholds to measure at, (T,) float64: the one in use, and with `sweep` 0, 0.01, ..."""
    return np.union1d(SWEEP_THRESHOLDS if sweep else [], threshold)


def measure(index: int, name: str, maps: ScoreMaps, size: tuple[int, int],
            boxes: np.ndarray | None, crop: CentreCrop, thresholds: np.ndarray,
            mask: np.ndarray | None = None) -> Measurement:
    """Measure the image `index` of a list.

    `size` = (H, W) of the image; boxes: (K, 4), its ground truth in pixels of the image, or None;
    mask: its ground-truth mask, bool of any size, or None.
    """
    in_crop = np.empty((0, 4))
    if boxes is not None:
        in_crop = crop.to_crop(clip_to_image(boxes, size), size)
    measure_whole = boxes is not None and maps.whole is not None
    return Measurement(
        index, name, size, [localize(maps.crop, in_crop, threshold) for threshold in thresholds],
        has_truth=boxes is not None, has_box=not np.isnan(in_crop).all(),
        ious=level_ious(maps.whole, boxes, size) if measure_whole else None,
        pixels=pixel_counts(maps.whole, mask) if measure_whole and mask is not None else None)


@dataclass(frozen=True)
class BenchmarkScores:
    """What the maps of N images give on the whole pictures: 1 kB an image for boxes, 4 kB for
    masks.

    Attributes:
        ious: (N, 2, 255) uint16, as `level_ious` returns them; None without boxes.
        pixels: (N, 2, 1002) uint16, as `pixel_counts` returns them; None without masks.
        hits: (N, 2) bool, the classifier's first class, and one of its first five, is right; None
            without a classifier.
    """

    ious: np.ndarray | None = None
    pixels: np.ndarray | None = None
    hits: np.ndarray | None = None

    def correct(self) -> np.ndarray:
        """(N, C, 255) bool: MaxBoxAcc's box is right, MaxBoxAccV2's at each of its three deltas,
        and with a classifier Top-1's and Top-5's."""
        largest, every = self.ious[:, :1], self.ious[:, 1:]
        rows = [largest >= IOU_UNITS // 2,
                every >= np.round(IOU_UNITS * np.array(V2_DELTAS)[:, None])]
        if self.hits is not None:
            rows.append(rows[0] & self.hits[..., None])
        return np.concatenate(rows, 1)

    def best_levels(self) -> np.ndarray:
        """(4,): the level at which most images are right by MaxBoxAcc, which Top-1 and Top-5 use as
        well, and by MaxBoxAccV2 at each of its deltas."""
        return _best_levels(self.correct().sum(0)[None])[0]

    def metrics(self, weights: np.ndarray, thresholds: Sequence[float] = (),
                levels: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """All metrics of each resample, (R,) each; weights: (R, N), of `resampling_weights`.

        Thresholds are chosen anew in each resample. GT-known is added at `thresholds`, and, if
        `levels` are given, as `best_levels` of other images, what these give, as `transferred_*`.
        Metrics without ground truth are left out.
        """
        metrics = {}
        if self.ious is not None:
            rates = weighted_sums(weights, self.correct()) / weights.shape[1]
            if levels is not None:
                metrics = {f'transferred_{name}': values
                           for name, values in _metrics_at(rates, levels[None]).items()}
            metrics |= _metrics_at(rates, _best_levels(rates))
            metrics |= {f'gt_known_{t}': rates[:, 0, level_of(t)] for t in thresholds}
        if self.pixels is not None and self.pixels[:, 1].any():
            metrics['pxap'] = average_precision(weighted_sums(weights, self.pixels))
        return metrics


def _best_levels(rates: np.ndarray) -> np.ndarray:
    return rates[:, :1 + len(V2_DELTAS)].argmax(2)


def _metrics_at(rates: np.ndarray, levels: np.ndarray) -> dict[str, np.ndarray]:
    """rates: (R, C, 255), means of `BenchmarkScores.correct`; levels: (R or 1, 4)."""
    names = ['max_box_acc', *(f'max_box_acc_v2_iou_{delta}' for delta in V2_DELTAS),
             'top1', 'top5'][:rates.shape[1]]
    levels = np.hstack([levels, levels[:, :1], levels[:, :1]])[:, :len(names)]
    levels = np.broadcast_to(levels, rates.shape[:2])[..., None]
    metrics = dict(zip(names, np.take_along_axis(rates, levels, 2)[..., 0].T, strict=True))
    return {**metrics, 'max_box_acc_v2': np.mean([metrics[name] for name in names[1:4]], axis=0)}


class EvaluationMetrics:
    """Accumulates the measurements of images into the metrics of both protocols."""

    def __init__(self, thresholds: np.ndarray, classified: bool = False):
        self.counts = LocalizationMetrics(thresholds, classified)
        self.images: dict[int, tuple] = {}

    def accumulate(self, measurement: Measurement, hits: tuple[bool, bool] = (False, False)
                   ) -> None:
        """Count one image; `hits`: whether its class is the classifier's first, among its five."""
        self.counts.accumulate_results(measurement.localizations, measurement.has_box, *hits)
        correct = np.array([result.correct for result in measurement.localizations])
        self.images[measurement.index] = measurement.ious, measurement.pixels, hits, correct

    def merge(self, other: 'EvaluationMetrics') -> None:
        """Add the counts of `other`."""
        self.counts.merge(other.counts)
        self.images |= other.images

    def compute(self, threshold: float, sweep: bool = False, selected: float | None = None
                ) -> dict:
        """All metrics as results.json has them; None for those without ground truth.

        `selected`, one of the thresholds, was chosen on other images: its metrics are added.
        """
        metrics = {**self.counts.at(threshold), **dict.fromkeys(BENCHMARK_METRICS),
                   'best_threshold': None}
        if not self.images:
            return metrics
        ious, pixels, hits, correct = self._stacked()
        scores, weights = BenchmarkScores(ious, pixels), resampling_weights(len(correct))
        samples = {name: values for name, values in scores.metrics(weights).items()
                   if name in BENCHMARK_METRICS}
        metrics |= {name: float(values[0]) for name, values in samples.items()}
        if ious is not None:
            metrics['best_threshold'] = threshold_of(scores.best_levels()[0])
        metrics['intervals'] = {
            'confidence': CONFIDENCE, 'resamples': RESAMPLES,
            'strict': self._strict_intervals(weights, correct, hits, threshold),
            **{name: interval(values[1:]) for name, values in samples.items()}}
        if self.counts.classified:
            top1, top5 = hits.mean(0).tolist()
            metrics['classification'] = {'top1': top1, 'top5': top5}
        if sweep:
            swept = self.counts.sweep()
            metrics['sweep'] = {**swept, 'advice': advise(swept, threshold)}
        if selected is not None:
            metrics['selected'] = {
                'threshold': selected, **self.counts.at(selected), 'intervals': {
                    'strict': self._strict_intervals(weights, correct, hits, selected)}}
        return metrics

    def _stacked(self) -> tuple[np.ndarray | None, ...]:
        """What was accumulated, in the order of the list, whichever rank measured it."""
        columns = zip(*(self.images[index] for index in sorted(self.images)), strict=True)
        return tuple(None if column[0] is None else np.stack(column) for column in columns)

    def _strict_intervals(self, weights: np.ndarray, correct: np.ndarray, hits: np.ndarray,
                          threshold: float) -> dict[str, tuple[float, float]]:
        right = correct[:, self.counts.thresholds == threshold]
        named = {'gt_known': right}
        if self.counts.classified:
            named |= {'top1': right & hits[:, :1], 'top5': right & hits[:, 1:]}
        return {name: interval(weighted_sums(weights, values)[1:] / len(values))
                for name, values in named.items()}


MIN_THRESHOLD_GAP = 0.15        # between the best threshold and the one in use
MIN_GAIN = 0.02  # gain in GT-known


def advise(sweep: dict, threshold: float) -> str | None:
    """A hint, one sentence, if the best threshold is far from the one in use and gains much; else
    None. `sweep`: as `LocalizationMetrics.sweep` returns it."""
    best = sweep['best_threshold']
    used = sweep['strict'][sweep['thresholds'].index(threshold)]
    gain = sweep['best']['strict']['gt_known'] - used
    if abs(best - threshold) < MIN_THRESHOLD_GAP or gain < MIN_GAIN:
        return None
    cause = ('the maps are also high around the object, a sign of too little training'
             if best > threshold else 'the maps are low inside the object')
    return (f'GT-known would be {gain:.4f} higher at threshold {best:.2f} than at {threshold}: '
            f'{cause}')
