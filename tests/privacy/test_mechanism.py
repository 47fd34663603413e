"""The mechanisms add what their events say; choosing the largest count is as private as it says, by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from privimage.errors import UserError
from privimage.privacy.mechanism import gaussian, report_noisy_max
from privimage.privacy.randomness import SecretKey

KEY = SecretKey.from_seed(3)


def test_the_noise_is_gaussian_with_the_stated_standard_deviation() -> None:
    value = np.arange(200_000, dtype=np.float64).reshape(400, 500)
    noise = gaussian(value, math.sqrt(5), 20.0, KEY, "query") - value
    assert stats.kstest(noise.ravel(), "norm", args=(0, 20 * math.sqrt(5))).pvalue > 1e-6
    half = stats.kstest(noise.ravel(), "norm", args=(0, 10 * math.sqrt(5))).pvalue
    assert half < 1e-12  # the test could tell


def test_integers_get_float_noise() -> None:
    assert gaussian(np.zeros(3, np.int64), 1.0, 1.0, KEY, "query").dtype == np.float64


def test_the_noise_does_not_depend_on_the_value() -> None:
    zero, one = np.zeros(100), np.ones(100)
    np.testing.assert_allclose(
        gaussian(one, 1.0, 2.0, KEY, "query", 4) - one, gaussian(zero, 1.0, 2.0, KEY, "query", 4), atol=1e-12
    )


@pytest.mark.parametrize("sensitivity, multiplier", [(0, 1), (1, 0), (1, -1), (1, math.nan), (math.inf, 1)])
def test_no_noise_is_refused(sensitivity, multiplier) -> None:
    with pytest.raises(UserError, match="expected a positive number"):
        gaussian(np.zeros(3), sensitivity, multiplier, KEY, "query")
    with pytest.raises(UserError, match="expected a positive number"):
        report_noisy_max(np.zeros(3), sensitivity, multiplier, KEY, "epoch")


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
