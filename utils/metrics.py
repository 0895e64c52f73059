"""The localization metrics of the WSOL benchmark: MaxBoxAcc, MaxBoxAccV2 and PxAP.

Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020. Score
maps are 224 x 224; thresholds are 0, 0.001, ..., 0.999. Metrics are fractions.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from utils.boxes import XYXY, contours_of, iou
from utils.images import resize_nearest

BENCHMARK_SIDE = 224
STEPS = 1000
THRESHOLDS = np.arange(STEPS) / STEPS
LEVELS = 255  # maps are quantized: thresholds of the same level give the same contours
LEVEL_OF_STEP = (THRESHOLDS * LEVELS).astype(int)
STEP_OF_LEVEL = np.searchsorted(LEVEL_OF_STEP, np.arange(LEVELS))
IOU_UNITS = 60_000  # an IoU of 0.3, 0.5 or 0.7 is a whole number of them
NO_BOX = (0, 0, 0, 0)
LAST_PIXEL = (0, 0, 1, 1)  # the benchmark's boxes include it, those of utils/boxes.py do not


class MaxBoxAcc:
    """The fraction of images whose box is right, at the threshold that is best for all.

    A box is right when its best IoU with a ground-truth box of the image is at least delta.
    `multi_contour=False`: the box of the largest contour (MaxBoxAcc, at delta 0.5);
    `multi_contour=True`: the best box of all contours (MaxBoxAccV2, the mean over
    deltas 0.3, 0.5, 0.7). `hits` counts the right images, (len(deltas), 1000).
    """

    def __init__(self, deltas: Sequence[float] = (0.5,), multi_contour: bool = False):
        self.deltas = np.array(deltas)
        self.multi_contour = multi_contour
        self.count = 0
        self.hits = np.zeros((len(deltas), STEPS), np.int64)

    def accumulate(self, score_map: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> None:
        """Count one image.

        score_map: 2-d 224 x 224, any range; boxes: (K, 4), all of the image's, not clipped, in
        pixels of the original image of `size` = (H, W).
        """
        largest, every = threshold_ious(score_map, boxes, size)
        self.count += 1
        self.hits += (every if self.multi_contour else largest) >= self.deltas[:, None]

    def compute(self) -> tuple[np.ndarray, np.ndarray]:
        """(metrics, thresholds), each (len(deltas),): the best fraction, NaN without images, and
        where it is first reached."""
        return self.hits.max(1) / self.count, THRESHOLDS[self.hits.argmax(1)]


def threshold_ious(score_map: np.ndarray, boxes: np.ndarray, size: tuple[int, int]
                   ) -> tuple[np.ndarray, np.ndarray]:
    """The best IoU with a ground-truth box at every threshold, of the largest contour's box and
    of the best of all contours' boxes, each (1000,); arguments as in `MaxBoxAcc.accumulate`.

    The map is quantized to 256 levels, so contours are found once for each level that occurs, not
    once for each threshold.
    """
    levels = (normalise_map(score_map) * 255).astype(np.uint8)
    cuts = (THRESHOLDS * levels.max()).astype(np.uint8)
    pixels_below = np.bincount(levels.ravel(), minlength=256).cumsum()[cuts]
    _, first, inverse = np.unique(pixels_below, return_index=True, return_inverse=True)
    starts, rectangles = [], list[Sequence[int]]()
    for cut in cuts[first]:
        contours = sorted(contours_of(levels > cut), key=cv2.contourArea, reverse=True)
        starts.append(len(rectangles))
        rectangles += [cv2.boundingRect(contour) for contour in contours] or [NO_BOX]
    found = np.array(rectangles)
    found[:, 2:] = (found[:, :2] + found[:, 2:]).clip(max=BENCHMARK_SIDE - 1)
    truth = (np.asarray(boxes) * BENCHMARK_SIDE / np.array(size)[XYXY]).astype(np.int64)
    ious = iou(found[:, None] + LAST_PIXEL, truth + LAST_PIXEL).max(1, initial=0)
    return ious[starts][inverse], np.maximum.reduceat(ious, starts)[inverse]


def level_ious(score_map: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What `threshold_ious` returns, stored in 1 kB: (2, 255) uint16, one IoU for each level, in
    units of 1 / 60,000, rounded down. Comparisons with 0.3, 0.5 and 0.7 stay exact."""
    ious = np.stack(threshold_ious(score_map, boxes, size))[:, STEP_OF_LEVEL]
    return (ious * IOU_UNITS).astype(np.uint16)


def level_of(threshold: float) -> int:
    """The level of a threshold, rounded to thousandths."""
    return int(LEVEL_OF_STEP[min(round(threshold * STEPS), STEPS - 1)])


def threshold_of(level: int) -> float:
    """The lowest threshold of a level."""
    return float(THRESHOLDS[STEP_OF_LEVEL[level]])


class PxAP:
    """Pixel average precision: the area under the curve of precision over recall, the pixels of
    all images pooled."""

    def __init__(self):
        self.counts = np.zeros((2, STEPS + 2), np.int64)

    def accumulate(self, score_map: np.ndarray, mask: np.ndarray) -> None:
        """Count one image. score_map: 2-d 224 x 224, any range; mask: its ground truth, 2-d
        bool of any size (resized by nearest neighbour)."""
        self.counts += pixel_counts(score_map, mask)

    def compute(self) -> float:
        """The average precision, NaN without foreground."""
        return float(average_precision(self.counts))


def average_precision(counts: np.ndarray) -> np.ndarray:
    """counts: (..., 2, 1002), sums of `pixel_counts` -> (...) float64; NaN without foreground."""
    false, true = np.moveaxis(counts[..., ::-1].cumsum(-1)[..., :-1], -2, 0)  # from 1 down
    precision = true / np.maximum(true + false, 1)
    with np.errstate(invalid='ignore'):
        recall = true / counts[..., 1, :].sum(-1, keepdims=True)
    return (precision * np.diff(recall, prepend=0)).sum(-1)


def pixel_counts(score_map: np.ndarray, mask: np.ndarray, ignored: np.ndarray | None = None
                 ) -> np.ndarray:
    """Histogram, (2, 1002) uint16, of background and foreground pixels by the number of thresholds
    0, 0.001, ..., 1 that a pixel reaches. Arguments as in `PxAP.accumulate`; pixels in `ignored`,
    bool of any size, are not counted."""
    reached = np.searchsorted(np.arange(STEPS + 1) / STEPS, normalise_map(score_map), 'right')
    bins = _at_benchmark_size(mask) * (STEPS + 2) + reached
    if ignored is not None:
        bins = bins[~_at_benchmark_size(ignored)]
    counts = np.bincount(bins.ravel(), minlength=2 * (STEPS + 2))
    return counts.reshape(2, -1).astype(np.uint16)


def _at_benchmark_size(mask: np.ndarray) -> np.ndarray:
    return resize_nearest(mask.astype(np.uint8), (BENCHMARK_SIDE, BENCHMARK_SIDE)) > 0


def normalise_map(score_map: np.ndarray) -> np.ndarray:
    """A score map -> float64 in [0, 1]; a constant map, or one with NaN, becomes 0."""
    score_map = score_map.astype(np.float64)
    low, high = score_map.min(), score_map.max()
    return (score_map - low) / (high - low) if high > low else np.zeros_like(score_map)
