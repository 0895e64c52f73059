"""The field's localization metrics, MaxBoxAcc, MaxBoxAccV2 and PxAP.

Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020. Score
maps are 224 x 224; thresholds are 0, 0.001, ..., 0.999. Figures are fractions.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from utils.boxes import contour_box, contours_of

SIDE = 224
STEPS = 1000
THRESHOLDS = np.arange(STEPS) / STEPS
NO_BOX = (0, 0, 0, 0)


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
        self.accumulate_ious(every if self.multi_contour else largest)

    def accumulate_ious(self, ious: np.ndarray) -> None:
        """Count one image by its IoU at every threshold, as `threshold_ious` gives it."""
        self.count += 1
        self.hits += ious >= self.deltas[:, None]

    def compute(self) -> tuple[np.ndarray, np.ndarray]:
        """(figures, thresholds), each (len(deltas),): the best fraction, and where it is first
        reached. Raises ValueError when nothing was accumulated."""
        if not self.count:
            raise ValueError('no image was accumulated')
        best = self.hits.argmax(1)
        return self.hits.max(1) / self.count, THRESHOLDS[best]


def threshold_ious(score_map: np.ndarray, boxes: np.ndarray, size: tuple[int, int]
                   ) -> tuple[np.ndarray, np.ndarray]:
    """The best IoU with a ground-truth box at every threshold, of the largest contour's box and
    of the best of all contours' boxes, each (1000,); arguments as in `MaxBoxAcc.accumulate`.

    Bytes have at most 256 values: thresholds between two of the map's give the same contours.
    """
    boxes = _boxes_in_map(boxes, size)
    levels = (normalise_map(score_map) * 255).astype(np.uint8)
    cuts = (THRESHOLDS * levels.max()).astype(np.uint8)
    pixels_below = np.searchsorted(np.sort(levels, None), cuts, side='right')
    _, first, inverse = np.unique(pixels_below, return_index=True, return_inverse=True)
    ious = np.array([contour_ious(levels > cut, boxes) for cut in cuts[first]])
    return tuple(ious[inverse].T)


def contour_ious(foreground: np.ndarray, boxes: np.ndarray) -> tuple[float, float]:
    """The best IoU of the largest contour's box, and of all contours' boxes, with boxes (K, 4)."""
    contours = contours_of(foreground)
    found = np.array([contour_box(contour) for contour in contours] or [NO_BOX])
    found[:, 2:] = found[:, 2:].clip(max=SIDE - 1)
    ious = _inclusive_iou(found[:, None], boxes).max(1, initial=0)
    largest = np.argmax([cv2.contourArea(contour) for contour in contours]) if contours else 0
    return ious[largest], ious.max()


class PxAP:
    """Pixel average precision: the area under the curve of precision over recall, the pixels of
    all images pooled."""

    def __init__(self):
        edges = len(THRESHOLDS) + 2
        self._foreground = np.zeros(edges, np.int64)
        self._background = np.zeros(edges, np.int64)

    def accumulate(self, score_map: np.ndarray, mask: np.ndarray) -> None:
        """Count one image. score_map: 2-d 224 x 224, any range; mask: its ground truth, 2-d
        bool of any size (resized by nearest neighbour)."""
        score_map = normalise_map(score_map)
        mask = cv2.resize(mask.astype(np.uint8), (SIDE, SIDE),
                          interpolation=cv2.INTER_NEAREST).astype(bool)
        # How many of the thresholds 0, ..., 0.999, 1 each pixel reaches.
        reached = np.searchsorted(np.append(THRESHOLDS, 1.0), score_map, side='right')
        self._foreground += np.bincount(reached[mask], minlength=len(self._foreground))
        self._background += np.bincount(reached[~mask], minlength=len(self._background))

    def compute(self) -> float:
        """The average precision. Raises ValueError when no foreground was accumulated."""
        if not self._foreground.sum():
            raise ValueError('no foreground pixel was accumulated')
        true = self._foreground[::-1].cumsum()[:-1]   # from the highest threshold down
        false = self._background[::-1].cumsum()[:-1]
        positive = np.maximum(true + false, 1)
        recall = true / self._foreground.sum()
        return float((true / positive * np.diff(recall, prepend=0)).sum())


def normalise_map(score_map: np.ndarray) -> np.ndarray:
    """A score map -> float64 in [0, 1]; a constant map, or one with NaN, becomes 0."""
    score_map = score_map.astype(np.float64)
    low, high = score_map.min(), score_map.max()
    if not high > low:
        return np.zeros_like(score_map)
    return (score_map - low) / (high - low)


def _boxes_in_map(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return (np.asarray(boxes) * SIDE / np.array([width, height] * 2)).astype(np.int64)


def _inclusive_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of integer boxes (..., 4) whose last pixels belong to them: + 1 on widths, heights."""
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
    intersection = sides.clip(0).prod(-1)
    area_a = (a[..., 2:] - a[..., :2] + 1).prod(-1)
    area_b = (b[..., 2:] - b[..., :2] + 1).prod(-1)
    return intersection / (area_a + area_b - intersection)
