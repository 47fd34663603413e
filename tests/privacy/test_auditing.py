"""The bound from guesses: the paper's theorem and example, and never above the truth more often than it says."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from privimage.privacy.auditing import lower_bound, p_value


def test_the_paper_s_example() -> None:
    assert lower_bound(75, num_guesses=100, num_canaries=1000, delta=1e-4) == pytest.approx(0.673, abs=5e-4)


@pytest.mark.parametrize("delta", [0.0, 1e-3, 1e-2])
def test_the_p_value_is_the_theorem_written_out(delta) -> None:
    m, r, epsilon = 30, 12, 0.7
    p = math.exp(epsilon) / (1 + math.exp(epsilon))
    chances = [math.comb(r, k) * p**k * (1 - p) ** (r - k) for k in range(r + 1)]

    def f(v):
        return sum(chances[max(v, 0) :])

    for v in range(r + 1):
        expected = f(v) + 2 * m * delta * max((f(v - i) - f(v)) / i for i in range(1, m + 1))
        assert p_value(v, r, m, epsilon, delta) == pytest.approx(min(1.0, expected), rel=1e-12)


@pytest.mark.parametrize("num_guesses", [10, 100, 5000])
def test_where_all_guesses_are_right_the_bound_has_a_closed_form(num_guesses) -> None:
    """p^r = 5 %, and epsilon = ln(p / (1 - p)): about ln(r / 3)."""
    p = 0.05 ** (1 / num_guesses)
    found = lower_bound(num_guesses, num_guesses=num_guesses, num_canaries=10**4, delta=0.0)
    assert found == pytest.approx(math.log(p / (1 - p)), abs=1e-5)


def test_guesses_that_are_no_better_than_coins_say_nothing() -> None:
    assert [lower_bound(v, num_guesses=100, num_canaries=100, delta=0.0) for v in (0, 42, 50, 58)] == [0.0] * 4
    assert lower_bound(0, num_guesses=0, num_canaries=10, delta=0.0) == 0.0


def test_the_bound_grows_with_right_guesses_and_confidence_given_away_and_falls_with_delta_and_canaries() -> None:
    bound = partial(lower_bound, num_guesses=100, num_canaries=1000, delta=1e-5)
    found = [bound(v) for v in range(55, 101)]
    assert found == sorted(found) and found[0] == 0 < found[-1]
    assert bound(90, confidence=0.99) < bound(90) < bound(90, confidence=0.9)
    assert bound(90, delta=1e-4) < bound(90) < bound(90, delta=0.0)
    assert bound(90, num_canaries=10**4) < bound(90)


@pytest.mark.parametrize("epsilon, delta", [(0.5, 0.0), (2.0, 0.0), (1.0, 1e-3)])
def test_of_mechanisms_that_keep_their_claim_at_most_five_per_cent_are_refuted(epsilon, delta) -> None:
    """Randomised response of each of 200 bits, which tells a bit outright with probability delta: 2,000 runs."""
    rng = np.random.default_rng(0)
    shown = rng.random((2000, 200)) < delta
    told = rng.random((2000, 200)) < math.exp(epsilon) / (1 + math.exp(epsilon))
    values, times = np.unique((shown | told).sum(axis=1), return_counts=True)
    bounds = np.array([lower_bound(int(v), num_guesses=200, num_canaries=200, delta=delta) for v in values])
    refuted = times[bounds > epsilon].sum() / 2000
    assert refuted <= 0.05
    assert refuted > 0.02 or delta  # without delta the bound is tight
