"""Areas, rates and intervals: scikit-learn's, the bootstrap's, coverage where the truth is known."""

from math import exp, log

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from privimage.metrics.roc import area, curve, permitted, rate_at


def normal_scores(rng, shift, num_members=300, num_others=400):
    return rng.normal(shift, 1, num_members), rng.normal(0, 1, num_others)


def labelled(members, others):
    return np.repeat([1, 0], [len(members), len(others)]), np.concatenate([members, others])


@pytest.mark.parametrize("decimals", [8, 0])  # without and with ties
def test_the_area_is_scikit_learns(decimals):
    members, others = (scores.round(decimals) for scores in normal_scores(np.random.default_rng(0), 0.7))
    assert area(members, others)[0] == pytest.approx(roc_auc_score(*labelled(members, others)))


def test_the_interval_of_the_area_is_the_bootstraps():
    rng = np.random.default_rng(1)
    members, others = normal_scores(rng, 0.7)
    drawn = [area(rng.choice(members, len(members)), rng.choice(others, len(others)))[0] for _ in range(500)]
    np.testing.assert_allclose(area(members, others)[1], np.quantile(drawn, [0.025, 0.975]), atol=0.012)


@pytest.mark.parametrize("shift", [0, 1.5])
def test_the_interval_of_the_area_holds_the_truth_in_95_percent_of_cases(shift):
    rng, truth = np.random.default_rng(2), stats.norm.cdf(shift / 2**0.5)
    intervals = [area(*normal_scores(rng, shift, 60, 60))[1] for _ in range(1000)]
    assert 0.92 < np.mean([low <= truth <= high for low, high in intervals]) < 0.98


def test_complete_separation_is_certain_within_half_an_image():
    auc, (low, high) = area(np.arange(10.0) + 100, np.arange(20.0))
    assert auc == high == 1 and low == pytest.approx(0.95)
    assert area(np.arange(20.0), np.arange(10.0) + 100)[0] == 0


@pytest.mark.parametrize("false_positives", [0.05, 0.3])
def test_the_rate_is_the_share_of_members_above_the_non_members_quantile(false_positives):
    members, others = normal_scores(np.random.default_rng(3), 1, num_others=400)
    rate, (low, high) = rate_at(members, others, false_positives)
    rates = roc_curve(*labelled(members, others), drop_intermediate=False)
    assert rate == pytest.approx(rates[1][rates[0] <= false_positives + 1e-12].max())
    assert low < rate < high


@pytest.mark.parametrize("sizes", [(60, 60), (300, 100), (20, 2000)])
def test_the_interval_of_the_rate_holds_the_truth_with_an_unknown_threshold(sizes):
    rng, truth = np.random.default_rng(4), stats.norm.sf(stats.norm.isf(0.05) - 1)
    held = [
        low <= truth <= high for low, high in (rate_at(*normal_scores(rng, 1, *sizes), 0.05)[1] for _ in range(500))
    ]
    assert np.mean(held) >= 0.94


def test_ties_count_as_no_better_than_the_threshold():
    rate, (low, high) = rate_at(np.zeros(50), np.zeros(50), 0.05)
    assert (rate, low) == (0, 0) and high < 0.1  # nobody is above what everybody has


def test_the_curve_is_scikit_learns_and_its_area_the_area():
    members, others = normal_scores(np.random.default_rng(5), 0.7)
    points = np.array(curve(members, others, 10_000))
    expected = roc_curve(*labelled(members, others), drop_intermediate=False)
    np.testing.assert_allclose(points, np.stack(expected[:2], axis=1), atol=1e-12)
    assert np.trapezoid(points[:, 1], points[:, 0]) == pytest.approx(area(members, others)[0])
    few = curve(members, others, 50)
    assert len(few) == 50 and few[0] == [0, 0] and few[-1] == [1, 1]


def test_what_privacy_permits():
    assert permitted(0.05, 0, 0) == pytest.approx(0.05)
    assert permitted(0.05, log(3), 1e-5) == pytest.approx(0.15001)
    assert permitted(0.5, 1, 0) == pytest.approx(1 - exp(-1) / 2)  # the tighter of the two, turned around
    assert permitted(0.001, 1000.0, 0) == 1


def test_a_mechanism_of_pure_epsilon_reaches_what_is_permitted():
    """Randomised response on one bit: the attack that guesses the answer has exactly these rates."""
    true_positive = exp(0.8) / (1 + exp(0.8))
    assert permitted(1 - true_positive, 0.8, 0) == pytest.approx(true_positive)
