"""Choosing the threshold of probability maps without ground truth, and how certain a mask is."""

from collections.abc import Iterable

import numpy as np

STEPS = 100
HALF_WIDTH = 0.2


def area_curve(probability: np.ndarray) -> np.ndarray:
    """The share of a map's pixels that exceed the thresholds 0, 0.01, ..., 0.99: (100,) float64.

    `probability`: 2-d float in [0, 1].
    """
    levels = np.ceil(probability.ravel() * STEPS).astype(np.int64)  # thresholds below the value
    counts = np.bincount(levels, minlength=STEPS + 1)
    return counts[::-1].cumsum()[-2::-1] / probability.size


def stability(curve: np.ndarray) -> np.ndarray:
    """How little a map's mask depends on the threshold, at each of `area_curve`: (100,), in [0, 1].

    The IoU of the masks at t - 0.2 and t + 0.2, of which the second lies in the first, so that it
    is the ratio of their areas. Thresholds outside 0 ... 0.99 are clipped; 0 without foreground.
    """
    steps, shift = np.arange(STEPS), round(HALF_WIDTH * STEPS)
    lower, upper = curve[(steps - shift).clip(0)], curve[(steps + shift).clip(max=STEPS - 1)]
    return np.divide(upper, lower, out=np.zeros(STEPS), where=lower > 0)


def choose_threshold(curves: Iterable[np.ndarray]) -> float:
    """The threshold between 0.2 and 0.79 at which the masks of all maps are most stable.

    `curves`: each map's `area_curve`.
    """
    shift = round(HALF_WIDTH * STEPS)
    mean = np.mean([stability(curve) for curve in curves], 0)[shift:-shift]
    return (int(mean.argmax()) + shift) / STEPS
