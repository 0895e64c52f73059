"""Bootstrap over images, and intervals.

Each resample draws as many images as there are, with replacement (Efron, "Bootstrap Methods:
Another Look at the Jackknife", 1979). A metric of a resample depends on sums over its images only,
and these are a product of matrices: the resamples' weights times what each image contributes.
"""

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 0.95
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
    columns = values.reshape(len(values), -1)
    sums = np.zeros((len(weights), columns.shape[1]))
    for begin in range(0, len(values), BLOCK):
        part = slice(begin, begin + BLOCK)
        sums += weights[:, part].astype(np.float32) @ columns[part].astype(np.float32)
    return sums.reshape(-1, *values.shape[1:])


def interval(samples: np.ndarray) -> tuple[float, float]:
    """The percentile interval of resamples, (R,); those where the metric is undefined, NaN, are
    left out."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(samples, [tail, 1 - tail]).tolist()
    return low, high


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson's interval of a share, for images that are right at a fixed threshold; unlike the
    bootstrap's, it is not empty where none or all are right."""
    from scipy.stats import binomtest  # slow

    found = binomtest(successes, count).proportion_ci(CONFIDENCE, 'wilson')
    return float(found.low), float(found.high)
