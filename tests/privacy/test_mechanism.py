"""The mechanisms add what their events say; choosing the largest count is as private as it says, by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from privimage.errors import UserError
from privimage.privacy.mechanism import discrete_gaussian, report_noisy_max
from privimage.privacy.randomness import SecretKey

KEY = SecretKey.from_seed(3)


def test_the_noise_is_discrete_gaussian_of_the_stated_parameter() -> None:
    counts = np.arange(20_000).reshape(40, 500)
    noise = (discrete_gaussian(counts, 2.5, KEY, "query") - counts).ravel()
    numbers = np.arange(-7, 8)
    weights = np.exp(-(np.arange(-40, 41) ** 2) / (2 * 2.5**2))
    expected = noise.size * np.exp(-(numbers**2) / (2 * 2.5**2)) / weights.sum()
    seen = np.array([(noise == n).sum() for n in numbers])
    assert stats.chisquare([*seen, noise.size - seen.sum()], [*expected, noise.size - expected.sum()]).pvalue > 1e-6
    half = stats.kstest(noise, "norm", args=(0, 1.25)).pvalue
    assert half < 1e-12  # the parameter is not halved


def test_whole_counts_stay_whole_and_keep_their_shape() -> None:
    noisy = discrete_gaussian(np.zeros((3, 4), np.int32), 2.0**40, KEY, "query")
    assert noisy.dtype == np.int64 and noisy.shape == (3, 4)
    np.testing.assert_array_equal(noisy.astype(np.float64).astype(np.int64), noisy)


def test_the_noise_depends_on_nothing_but_the_key_the_purpose_the_indices_and_the_shape() -> None:
    zero, many = np.zeros(100, np.int64), np.arange(100) * 1000
    noise = discrete_gaussian(zero, 2.0, KEY, "query", 4)
    np.testing.assert_array_equal(discrete_gaussian(many, 2.0, KEY, "query", 4) - many, noise)
    others = [
        discrete_gaussian(zero, 2.0, SecretKey.from_seed(4), "query", 4),
        discrete_gaussian(zero, 2.0, KEY, "other", 4),
        discrete_gaussian(zero, 2.0, KEY, "query", 5),
        discrete_gaussian(zero.reshape(10, 10), 2.0, KEY, "query", 4).ravel(),
    ]
    assert all((other != noise).sum() > 50 for other in others)


def test_no_two_cells_have_the_same_noise() -> None:
    noise = discrete_gaussian(np.zeros((60, 60), np.int64), 1e6, KEY, "query")
    assert len(np.unique(noise)) > 3550
    correlation = np.corrcoef(noise)[np.triu_indices(60, 1)]
    assert np.abs(correlation).max() < stats.norm.isf(1e-6 / len(correlation)) / np.sqrt(60)


@pytest.mark.parametrize("multiplier", [0, -1, math.nan, math.inf])
def test_no_noise_is_refused(multiplier) -> None:
    with pytest.raises(UserError, match="expected a positive number"):
        discrete_gaussian(np.zeros(3, np.int64), multiplier, KEY, "query")
    for pair in ((1, multiplier), (multiplier, 1)):
        with pytest.raises(UserError, match="expected a positive number"):
            report_noisy_max(np.zeros(3), *pair, KEY, "epoch")


def test_what_is_not_whole_or_too_noisy_to_stay_whole_is_refused() -> None:
    for counts, multiplier in ((np.zeros(3), 1.0), (np.zeros(3, np.int64), 2.0**41)):
        with pytest.raises(UserError, match="expected whole numbers and at most"):
            discrete_gaussian(counts, multiplier, KEY, "query")


def chances(counts, epsilon: float) -> np.ndarray:
    """The probability of each place, exactly: exponential noise of rate epsilon, the others' product expanded."""
    found = []
    for i, count in enumerate(counts):
        ahead = [count - other for j, other in enumerate(counts) if j != i]
        low = max(0, *(-a for a in ahead))  # the least noise with which place i can win
        found.append(0.0)
        for size in range(len(ahead) + 1):
            for chosen in itertools.combinations(ahead, size):
                found[-1] += (-1) ** size * math.exp(-epsilon * (sum(chosen) + low * (size + 1))) / (size + 1)
    return np.array(found)


def worst_ratio(epsilon: float, moves) -> float:
    """The largest ratio of a place's probabilities, over all counts 0 to 4 at three places and all the moves."""
    return max(
        np.max(chances(np.add(counts, move), epsilon) / chances(counts, epsilon))
        for counts in itertools.product(range(5), repeat=3)
        for move in moves
    )


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_one_image_more_or_less_changes_no_place_s_chance_by_more_than_epsilon(epsilon) -> None:
    more = list(itertools.product((0, 1), repeat=3))
    less = [tuple(-m for m in move) for move in more]
    for moves in (more, less):
        assert math.exp(0.9 * epsilon) < worst_ratio(epsilon, moves) <= math.exp(epsilon) * (1 + 1e-9)  # and nearly so
    either = list(itertools.product((-1, 0, 1), repeat=3))  # one image replaced by another
    assert math.exp(epsilon) * 1.05 < worst_ratio(epsilon, either) <= math.exp(2 * epsilon) * (1 + 1e-9)


@pytest.mark.parametrize("counts, epsilon", [((7, 5), 0.4), ((50, 51, 53, 40), 0.2), ((3, 3, 3), 1.0), ((9, 0), 1e-3)])
@pytest.mark.parametrize("sensitivity", [1, 3])
def test_places_are_told_with_the_probabilities_of_the_proof(counts, epsilon, sensitivity) -> None:
    expected = chances(counts, epsilon)
    assert expected.sum() == pytest.approx(1)
    if len(counts) == 2:  # the closed form: the loser wins if its noise exceeds the lead and the other's noise
        assert expected[1] == pytest.approx(math.exp(-epsilon * (counts[0] - counts[1])) / 2)
    scaled = np.array(counts) * sensitivity
    told = [report_noisy_max(scaled, sensitivity, 1 / epsilon, KEY, "epoch", draw) for draw in range(4000)]
    seen = np.bincount(told, minlength=len(counts))
    assert stats.chisquare(seen, 4000 * expected).pvalue > 1e-5
    assert stats.chisquare(seen, 4000 * chances(counts, epsilon + 0.3)).pvalue < 1e-6 or len(set(counts)) == 1


def test_with_hardly_any_noise_the_largest_wins() -> None:
    assert {report_noisy_max([3, 9, 8], 1, 1e-3, KEY, "epoch", draw) for draw in range(50)} == {1}
