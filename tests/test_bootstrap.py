"""Bootstrap intervals and paired tests: closed forms, and SciPy with the same indices."""

import numpy as np
import pytest
from scipy import stats

from utils.bootstrap import (
    MIN_IMAGES,
    estimate,
    holm,
    interval,
    mcnemar,
    p_value,
    paired_difference,
    resampling_weights,
    weighted_sums,
    wilson,
)
from utils.evaluation import Evaluated, benchmark
from utils.metrics import IOU_UNITS, average_precision

COUNT = 40


def rates_of(*correct):
    correct = np.array(correct, bool)
    return weighted_sums(resampling_weights(len(correct)), correct)[:, 0] / len(correct)


def test_the_first_row_is_the_sample_and_the_others_have_as_many_images():
    weights = resampling_weights(7)
    assert weights.shape == (1001, 7)
    assert (weights[0] == 1).all()
    assert (weights.sum(1) == 7).all()
    np.testing.assert_array_equal(weights, resampling_weights(7))
    assert (resampling_weights(7, seed=1) != weights).any()


@pytest.mark.parametrize(('correct', 'ends'), [
    ([True] * 9, (1, 1)), ([False] * 9, (0, 0)), ([True], (1, 1)),
    ([True, False], (0, 1))])   # both resampled alike: probability 1 / 4 at either end
def test_intervals_in_closed_form(correct, ends):
    assert interval(rates_of(*correct)[1:]) == ends


@pytest.mark.parametrize('right', [3, 30, 97])
def test_an_intervals_ends_are_those_of_the_binomial_distribution(right):
    found = estimate(rates_of(*np.arange(100) < right))
    expected = stats.binom.ppf([0.025, 0.975], 100, right / 100) / 100
    assert found['value'] == pytest.approx(right / 100)
    assert [found['low'], found['high']] == pytest.approx(expected, abs=0.011)


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


def test_paired_differences_are_scipys(scores):
    first, second = scores.levels[:, 0] > 35000, scores.levels[:, 1] > 30000
    weights = resampling_weights(COUNT)
    found = paired_difference(*(weighted_sums(weights, part).max(1) / COUNT
                                for part in (first, second)), COUNT)
    expected = scipys_interval(lambda drawn: first[drawn].mean(0).max()
                               - second[drawn].mean(0).max())
    assert [found['low'], found['high']] == pytest.approx(expected, abs=1e-12)


def test_pixel_sums_are_exact():
    """More pixels than float32 can count, in blocks that it can."""
    pixels = np.full((1000, 2), 50_175, np.uint16)
    assert weighted_sums(np.ones((1, 1000), np.uint8), pixels).tolist() == [[50_175_000] * 2]


@pytest.mark.parametrize(('differences', 'expected'), [
    ([1] * 99, 2 / 100),                # none at or below 0
    ([-1] * 99, 2 / 100),
    ([0] * 99, 1),
    ([1] * 95 + [-1] * 4, 10 / 100),
    ([1] * 50 + [-1] * 49, 1),
    ([np.nan] * 100 + [1] * 99, 2 / 100)])   # undefined resamples count as neither side
def test_p_value_by_its_definition(differences, expected):
    assert p_value(np.array(differences)) == pytest.approx(expected)


def test_equal_methods_do_not_differ():
    rates = rates_of(*np.arange(30) < 12)
    assert paired_difference(rates, rates, 30) == {'value': 0, 'low': 0, 'high': 0, 'p': 1,
                                                   'undefined': 0}


@pytest.mark.parametrize('count', [1, MIN_IMAGES - 1, MIN_IMAGES])
def test_few_images_have_no_p_values(count):
    """With one image, each resample is that image: the difference would be "significant"."""
    first, second = np.ones(count, bool), np.zeros(count, bool)
    rates = [rates_of(*part) for part in (first, second)]
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
    """Its ends p solve (right / count - p)^2 = z^2 p (1 - p) / count; of none right of 9 the upper
    end is z^2 / (9 + z^2) = 0.299."""
    share, z = right / count, stats.norm.ppf(0.975)
    ends = np.roots([1 + z**2 / count, -2 * share - z**2 / count, share**2])
    assert wilson(right, count) == pytest.approx(sorted(ends), abs=1e-9)
    if right == 0:
        assert wilson(right, count) == pytest.approx((0, 0.2991), abs=1e-4)


@pytest.mark.parametrize(('only_first', 'only_second'), [(0, 0), (0, 1), (5, 5), (3, 14),
                                                         (2000, 1890)])
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second):
    first = np.repeat([True, False, True, False], [only_first, only_second, 17, 9])
    second = np.repeat([False, True, True, False], [only_first, only_second, 17, 9])
    found = mcnemar(first, second)
    discordant = only_first + only_second
    expected = stats.binomtest(only_first, discordant).pvalue if discordant else 1
    assert (found['only_this'], found['only_other']) == (only_first, only_second)
    assert found['p'] == pytest.approx(expected, rel=1e-9)


def test_holm_by_hand():
    """Sorted 0.01 x 4, 0.02 x 3, 0.03 x 2 (not below the one before), 0.5 x 1."""
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
