"""Choosing the threshold of probability maps without ground truth."""

from collections.abc import Iterable

import numpy as np

STEPS = 100


def agreement(probability: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """Pearson's correlation of a CAM with the map's mask at the thresholds 0, 0.01, ..., 0.99:
    (100,) float64; 0 where the mask is empty or everything, or the CAM is constant.

    `probability`: 2-d float in [0, 1]; `cam`: 2-d float of the same shape, of any scale.
    """
    exact = probability.ravel().astype(np.float64)
    below = np.ceil(exact * STEPS).astype(np.int64)  # how many thresholds a pixel exceeds
    deviation = cam.ravel().astype(np.float64) - cam.mean(dtype=np.float64)
    area = _from_above(np.bincount(below, minlength=STEPS + 1)) / cam.size
    covariance = _from_above(np.bincount(below, deviation, STEPS + 1)) / cam.size
    scale = deviation.std() * np.sqrt(area * (1 - area))
    return np.divide(covariance, scale, out=np.zeros(STEPS), where=scale > 0)


def _from_above(histogram: np.ndarray) -> np.ndarray:
    """The sum over the pixels above each threshold."""
    return histogram[::-1].cumsum()[-2::-1]


def choose_threshold(agreements: Iterable[np.ndarray]) -> float:
    """The threshold at which masks and CAMs agree best in the mean over all images.

    `agreements`: each image's `agreement`.
    """
    return float(np.mean(list(agreements), 0).argmax()) / STEPS
