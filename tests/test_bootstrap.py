"""Bootstrap intervals and paired tests: closed forms, and SciPy with the same indices."""

import numpy as np
import pytest
from scipy import stats

from utils.bootstrap import MIN_IMAGES, estimate, mcnemar, p_value, paired_difference
from utils.evaluation import Evaluated, benchmark
from utils.metrics import IOU_UNITS, average_precision
from utils.resampling import resampling_weights, weighted_sums, wilson

COUNT = 40


@pytest.fixture
def scores():
    """Random IoUs whose best thresholds depend on the images that are drawn, and pixel counts."""
    rng = np.random.default_rng(3)
    curves = np.sin(np.linspace(0, 3, 255) + rng.normal(0, 0.7, (COUNT, 2, 1))) * 0.7
    pixels = rng.integers(0, 30, (COUNT, 2, 1002)) * np.linspace(2, [[0], [1]], 1002).T[0]
    levels = (curves.clip(0, 1) * IOU_UNITS).astype(np.uint16)
    return Evaluated(np.arange(COUNT), None, None, None, None, levels, pixels.astype(np.uint16),
                     rng.random((COUNT, 2)) < 0.7)


def scipys_interval(statistic):
    """SciPy's, with the indices that `resampling_weights(COUNT, 1000, seed=0)` draws."""
    result = stats.bootstrap((np.arange(COUNT),), statistic, n_resamples=1000, vectorized=False,
                             method='percentile', rng=np.random.default_rng(0))
    return list(result.confidence_interval)


def test_intervals_are_scipys_with_the_best_threshold_chosen_anew(scores):
    metrics = benchmark(scores, resampling_weights(COUNT), [0.2])
    right = scores.levels[:, 0] >= IOU_UNITS / 2
    every = [scores.levels[:, 1] >= IOU_UNITS * delta - 0.5 for delta in (0.3, 0.5, 0.7)]

    def top1(drawn):
        best = right[drawn].mean(0).argmax()
        return (right[drawn, best] & scores.hits[drawn, 0]).mean()

    for name, statistic in {
            'max_box_acc': lambda drawn: right[drawn].mean(0).max(),
            'max_box_acc_v2': lambda drawn: np.mean([e[drawn].mean(0).max() for e in every]),
            'top1': top1,
            'gt_known_0.2': lambda drawn: right[drawn, 51].mean(),   # 0.2 * 255
            'pxap': lambda drawn: average_precision(scores.pixels[drawn].sum(0, dtype=np.int64)),
    }.items():
        found = estimate(metrics[name])
        assert found['value'] == pytest.approx(statistic(np.arange(COUNT)), abs=1e-12), name
        assert found['low'] < found['high']
        assert [found['low'], found['high']] == pytest.approx(scipys_interval(statistic),
                                                             abs=1e-12), name


@pytest.mark.parametrize(('differences', 'expected'), [
    ([-1] * 99, 2 / 100),  # none at or above 0
    ([0] * 99, 1), ([1] * 95 + [-1] * 4, 10 / 100), ([1] * 50 + [-1] * 49, 1)])
def test_p_value_by_its_definition(differences, expected):
    assert p_value(np.array(differences)) == pytest.approx(expected)


@pytest.mark.parametrize('count', [1, MIN_IMAGES - 1, MIN_IMAGES])
def test_few_images_have_no_p_values(count):
    """With one image, each resample is that image: the difference would be "significant"."""
    first, second = np.ones(count, bool), np.zeros(count, bool)
    rates = [weighted_sums(resampling_weights(count), part) / count for part in (first, second)]
    for found in (paired_difference(*rates, count), mcnemar(first, second)):
        assert (found['p'] is None) == (count < MIN_IMAGES)


def test_undefined_resamples_are_counted_and_speak_for_neither_side():
    """As of PxAP, where a resample has no foreground."""
    first = np.r_[0.7, np.full(10, np.nan), np.full(40, 0.8)]
    found = paired_difference(first, np.full(51, 0.5), 30)
    assert found['undefined'] == 10
    assert (found['low'], found['high']) == pytest.approx((0.3, 0.3))
    assert found['p'] == pytest.approx(2 / 41)


@pytest.mark.parametrize(('right', 'count'), [(0, 9), (9, 9), (1, 4), (50, 100)])
def test_wilsons_interval_is_the_root_of_its_equation(right, count):
    """Its ends p solve (right / count - p)^2 = z^2 p (1 - p) / count."""
    share, z = right / count, stats.norm.ppf(0.975)
    ends = np.roots([1 + z**2 / count, -2 * share - z**2 / count, share**2])
    assert wilson(right, count) == pytest.approx(sorted(ends), abs=1e-9)


@pytest.mark.parametrize(('only_first', 'only_second'), [(0, 0), (0, 1), (5, 5), (3, 14),
                                                         (2000, 1890)])
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second):
    found = mcnemar(*np.repeat([[True, False, True, False], [False, True, True, False]],
                               [only_first, only_second, 17, 9], axis=1))
    discordant = only_first + only_second
    expected = stats.binomtest(only_first, discordant).pvalue if discordant else 1
    assert (found['only_this'], found['only_other']) == (only_first, only_second)
    assert found['p'] == pytest.approx(expected, rel=1e-9)
