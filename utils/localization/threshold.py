"""Choosing the threshold of probability maps without ground truth."""

from collections.abc import Iterable

import numpy as np

STEPS = 100
CAM_THRESHOLD = 0.2  # the paper's


def agreement(probability: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """The IoU of a map's mask at the thresholds 0, 0.01, ..., 0.99 with the mask of the CAM at 0.2:
    (100,) float64; 0 where both are empty.

    `probability`, `cam`: 2-d float in [0, 1], of the same shape.
    """
    inside = cam > CAM_THRESHOLD
    mask, common = _areas(probability), _areas(probability[inside])
    union = mask + inside.sum() - common
    return np.divide(common, union, out=np.zeros(STEPS), where=union > 0)


def _areas(probability: np.ndarray) -> np.ndarray:
    """The number of pixels above each of the thresholds."""
    below = np.ceil(probability.ravel() * STEPS).astype(np.int64)  # how many a pixel exceeds
    return np.bincount(below, minlength=STEPS + 1)[::-1].cumsum()[-2::-1]


def choose_threshold(agreements: Iterable[np.ndarray]) -> float:
    """The threshold at which masks and CAMs agree best in the mean over all images.

    `agreements`: each image's `agreement`.
    """
    return float(np.mean(list(agreements), 0).argmax()) / STEPS
