"""The metrics of the paper's Tables 1 and 2, Top-1, Top-5 and GT-known localization, by its count
and by a strict one.

An image is correct when the box of its map has an IoU above 0.5 with a ground-truth box. Both are
in pixels of the centre crop that the network saw.
"""

from dataclasses import dataclass

import numpy as np

from utils.localization.boxes import Box, iou, largest_box

IOU_THRESHOLD = 0.5
SWEEP_THRESHOLDS = np.arange(100) / 100


@dataclass(frozen=True)
class Localization:
    """One image at one threshold: its box in the crop (None: no contour) and that box's IoU."""

    box: Box | None
    iou: float

    @property
    def correct(self) -> bool:
        return self.iou > IOU_THRESHOLD


def localize(score_map: np.ndarray, boxes: np.ndarray, threshold: float) -> Localization:
    """score_map: 2-d float; boxes: (K, 4) in its pixels, NaN where the crop left nothing."""
    box = largest_box(score_map, threshold)
    if box is None:
        return Localization(None, 0.0)
    ious = iou(np.array(box), boxes[~np.isnan(boxes[:, 0])])
    return Localization(box, float(ious.max(initial=0)))


class LocalizationMetrics:
    """Counts images, and the correct ones among them, at one or several thresholds.

    `thresholds`: (T,) float. If not `classified`, Top-1 and Top-5 are None. The paper's count
    excludes images without a contour, and those without a ground-truth box after the crop; the
    strict count includes all.
    """

    def __init__(self, thresholds: np.ndarray, classified: bool = True):
        self.thresholds = np.asarray(thresholds, np.float64)
        self.classified = classified
        self.count = self.no_box = 0
        self.no_contour, self.counted = np.zeros((2, len(self.thresholds)), np.int64)
        self.correct = {name: np.zeros(len(self.thresholds), np.int64)
                        for name in ('top1', 'top5', 'gt_known')}

    def accumulate(self, score_map: np.ndarray, boxes: np.ndarray,
                   top1: bool = False, top5: bool = False) -> list[Localization]:
        """Count one image: its map and boxes as in `localize`, and the classifier's hits. Returns
        the localization at each threshold."""
        results = [localize(score_map, boxes, threshold) for threshold in self.thresholds]
        self.accumulate_results(results, not np.isnan(boxes).all(), top1, top5)
        return results

    def accumulate_results(self, results: list[Localization], has_box: bool,
                           top1: bool = False, top5: bool = False) -> None:
        """Count one image by its localization at each threshold."""
        contour = np.array([result.box is not None for result in results])
        correct = np.array([result.correct for result in results])
        self.count += 1
        self.no_box += not has_box
        self.no_contour += ~contour
        self.counted += contour & has_box
        for name, hit in (('top1', top1), ('top5', top5), ('gt_known', True)):
            self.correct[name] += correct & hit

    def merge(self, other: 'LocalizationMetrics') -> None:
        """Add the counts of `other`."""
        self.count += other.count
        self.no_box += other.no_box
        self.no_contour += other.no_contour
        self.counted += other.counted
        for name, correct in self.correct.items():
            correct += other.correct[name]

    def at(self, threshold: float) -> dict:
        """The metrics at one of the thresholds, as results.json has them."""
        index = int(np.flatnonzero(self.thresholds == threshold)[0])
        return {'count': self.count, 'no_contour': int(self.no_contour[index]),
                'no_box': self.no_box,
                'paper': self._figures(index, int(self.counted[index])),
                'strict': self._figures(index, self.count)}

    def sweep(self) -> dict:
        """GT-known at every threshold, and where the strict count is best."""
        strict = self.correct['gt_known'] / max(self.count, 1)
        paper = self.correct['gt_known'] / np.maximum(self.counted, 1)
        best = int(strict.argmax())
        return {'best_threshold': float(self.thresholds[best]), 'best': self.at(
                    self.thresholds[best]),
                'thresholds': self.thresholds.tolist(),
                'paper': paper.tolist(), 'strict': strict.tolist()}

    def _figures(self, index: int, denominator: int) -> dict[str, float | None]:
        return {name: int(correct[index]) / max(denominator, 1)
                if self.classified or name == 'gt_known' else None
                for name, correct in self.correct.items()}
