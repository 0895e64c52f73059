"""Tests of paired differences between methods that were evaluated on the same images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.resampling import interval

MIN_IMAGES = 20  # below, no p-values are given


def estimate(samples: np.ndarray) -> dict[str, float]:
    """A metric and its interval; samples: (1 + R,), as `resampling_weights` orders them."""
    low, high = interval(samples[1:])
    return {'value': float(samples[0]), 'low': low, 'high': high}


def paired_difference(first: np.ndarray, second: np.ndarray, count: int) -> dict[str, Any]:
    """first - second, its interval and its p-value; both (1 + R,), on the same resamples of
    `count` images.

    `p` is None with fewer than MIN_IMAGES images, where resamples cannot tell; `undefined` counts
    the resamples in which one of the metrics is not defined, which speak for neither side.
    """
    difference = first - second
    return {**estimate(difference), 'undefined': int(np.isnan(difference[1:]).sum()),
            'p': p_value(difference[1:]) if count >= MIN_IMAGES else None}


def p_value(differences: np.ndarray) -> float:
    """The two-sided p-value of "no difference": twice the smaller share of resamples at or beyond
    0, one added to each count, so that it is never 0; at most 1. It inverts `interval`. Resamples
    where a metric is undefined, NaN, are left out."""
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, 2 * (1 + int(beyond)) / (1 + int((~np.isnan(differences)).sum())))


def mcnemar(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """The exact McNemar test of two methods' correct images, bool (N,) each; `p` is None with
    fewer than MIN_IMAGES.

    Of the images that one method alone has right, either method has half if there is no
    difference: a two-sided binomial test.
    """
    from scipy.stats import binomtest  # slow

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p = binomtest(only_first, discordant).pvalue if discordant else 1.0
    return {'only_this': only_first, 'only_other': only_second,
            'p': float(p) if len(first) >= MIN_IMAGES else None}


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment for several comparisons: each is significant where its adjusted p-value
    is."""
    p = np.asarray(p_values)
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]).clip(max=1)
    return adjusted.tolist()
