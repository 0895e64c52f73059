"""From the score maps of an image to its measurements, and from these to the metrics.

Two protocols: the paper's, on the centre crop, and the benchmark's, on the whole image at
224 x 224.
"""

from dataclasses import dataclass

import numpy as np

from utils.localization.boxes import CentreCrop, clip_to_image
from utils.localization.metrics import MaxBoxAcc, PxAP, pixel_counts, threshold_ious
from utils.localization.protocol import (
    SWEEP_THRESHOLDS,
    Localization,
    LocalizationMetrics,
    localize,
)

V2_DELTAS = (0.3, 0.5, 0.7)


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
    size: tuple[int, int]                        # (H, W) of the image
    localizations: list[Localization]            # at each threshold, in the crop
    has_box: bool                                # whether a ground-truth box is left in the crop
    ious: tuple[np.ndarray, np.ndarray] | None   # as `threshold_ious` returns them
    pixels: np.ndarray | None                    # as `pixel_counts` returns them


def thresholds_of(threshold: float, sweep: bool) -> np.ndarray:
    """The thresholds to measure at, (T,) float64: the one in use, and with `sweep` 0, 0.01, ..."""
    return np.union1d(SWEEP_THRESHOLDS if sweep else [], threshold)


def measure(index: int, maps: ScoreMaps, size: tuple[int, int], boxes: np.ndarray | None,
            crop: CentreCrop, thresholds: np.ndarray, mask: np.ndarray | None = None
            ) -> Measurement:
    """Measure one image.

    `size` = (H, W) of the image; boxes: (K, 4), its ground truth in pixels of the image, or None;
    mask: its ground-truth mask, bool of any size, or None.
    """
    in_crop = np.empty((0, 4))
    if boxes is not None:
        in_crop = crop.to_crop(clip_to_image(boxes, size), size)
    measure_whole = boxes is not None and maps.whole is not None
    return Measurement(
        index, size, [localize(maps.crop, in_crop, threshold) for threshold in thresholds],
        has_box=not np.isnan(in_crop).all(),
        ious=threshold_ious(maps.whole, boxes, size) if measure_whole else None,
        pixels=pixel_counts(maps.whole, mask) if measure_whole and mask is not None else None)


class BenchmarkMetrics:
    """Accumulates what images give on the whole picture into MaxBoxAcc, MaxBoxAccV2 and PxAP."""

    def __init__(self):
        self.max_box_acc = MaxBoxAcc()
        self.max_box_acc_v2 = MaxBoxAcc(V2_DELTAS, multi_contour=True)
        self.pixels = PxAP()

    def accumulate(self, ious: tuple[np.ndarray, np.ndarray] | None, pixels: np.ndarray | None
                   ) -> None:
        """Count one image: what `threshold_ious` and `pixel_counts` return, None where there is no
        ground truth."""
        if ious is not None:
            largest, every = ious
            self.max_box_acc.accumulate_ious(largest)
            self.max_box_acc_v2.accumulate_ious(every)
        if pixels is not None:
            self.pixels.accumulate_counts(pixels)

    def merge(self, other: 'BenchmarkMetrics') -> None:
        """Add the counts of `other`."""
        self.max_box_acc.merge(other.max_box_acc)
        self.max_box_acc_v2.merge(other.max_box_acc_v2)
        self.pixels.accumulate_counts(other.pixels.counts)

    def compute(self) -> dict[str, float | None]:
        """The metrics as results.json has them; None for those without ground truth."""
        metrics = dict.fromkeys(('max_box_acc', 'max_box_acc_v2', 'pxap', 'best_threshold'))
        if self.max_box_acc.count:
            (max_box_acc,), (best,) = self.max_box_acc.compute()
            metrics.update(max_box_acc=float(max_box_acc), best_threshold=float(best),
                           max_box_acc_v2=float(self.max_box_acc_v2.compute()[0].mean()))
        if self.pixels.counts[1].any():
            metrics['pxap'] = self.pixels.compute()
        return metrics


class EvaluationMetrics:
    """Accumulates the measurements of images into the metrics of both protocols."""

    def __init__(self, thresholds: np.ndarray, classified: bool = False):
        self.counts = LocalizationMetrics(thresholds, classified)
        self.benchmark = BenchmarkMetrics()
        self.hits = np.zeros(2, np.int64)

    def accumulate(self, measurement: Measurement, hits: tuple[bool, bool] = (False, False)
                   ) -> None:
        """Count one image; `hits`: whether its class is the classifier's first, among its five."""
        self.counts.accumulate_results(measurement.localizations, measurement.has_box, *hits)
        self.benchmark.accumulate(measurement.ious, measurement.pixels)
        self.hits += hits

    def merge(self, other: 'EvaluationMetrics') -> None:
        """Add the counts of `other`."""
        self.counts.merge(other.counts)
        self.benchmark.merge(other.benchmark)
        self.hits += other.hits

    def compute(self, threshold: float, sweep: bool = False) -> dict:
        """All metrics as results.json has them; None for those without ground truth."""
        metrics = {**self.counts.at(threshold), **self.benchmark.compute()}
        if self.counts.classified:
            top1, top5 = (self.hits / max(self.counts.count, 1)).tolist()
            metrics['classification'] = {'top1': top1, 'top5': top5}
        if sweep:
            swept = self.counts.sweep()
            metrics['sweep'] = {**swept, 'advice': advise(swept, threshold)}
        return metrics


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
