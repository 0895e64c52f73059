"""Bootstrap over images, and tests of paired differences.

Each resample draws as many images as there are, with replacement (Efron, "Bootstrap Methods:
Another Look at the Jackknife", 1979). A metric of a resample depends on sums over its images only,
and these are a product of matrices: the resamples' weights times what each image contributes.
Methods that were evaluated on the same images share the weights, so that their differences are
paired.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 0.95
MIN_IMAGES = 20  # below, no p-values are given
BLOCK = 256  # images; a block's pixel counts add up to less than 2^24, exact in float32


def resampling_weights(count: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each resample draws each of `count` images, (1 + resamples, count) uint8.

    The first row is the sample itself, all ones: what is computed from the weights has the metric
    in its first entry, and its resamples in the others.
    """
    rng = np.random.default_rng(seed)
    weights = np.ones((1 + resamples, count), np.uint8)
    for row in weights[1:]:
        row[:] = np.bincount(rng.integers(count, size=count), minlength=count)
    return weights


def weighted_sums(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """weights: (R, N); values: (N, ...) bool or integer -> their sums over the images of each
    resample, (R, ...) float64. Products are float32, in blocks of images."""
    values = values.reshape(len(values), *values.shape[1:] or (1,))
    sums = np.zeros((len(weights), math.prod(values.shape[1:])))
    for begin in range(0, len(values), BLOCK):
        part = slice(begin, begin + BLOCK)
        sums += weights[:, part].astype(np.float32) @ values[part].reshape(
            -1, sums.shape[1]).astype(np.float32)
    return sums.reshape(-1, *values.shape[1:])


def interval(samples: np.ndarray) -> tuple[float, float]:
    """The percentile interval of resamples, (R,); those where the metric is undefined, NaN, are
    left out."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson's interval of a share, for images that are right at a fixed threshold; unlike the
    bootstrap's, it is not empty where none or all are right."""
    from scipy.stats import binomtest  # slow

    found = binomtest(successes, max(count, 1)).proportion_ci(CONFIDENCE, 'wilson')
    return float(found.low), float(found.high)


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
    defined = differences[~np.isnan(differences)]
    beyond = min((defined <= 0).sum(), (defined >= 0).sum())
    return min(1.0, 2 * (1 + int(beyond)) / (1 + len(defined)))


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
