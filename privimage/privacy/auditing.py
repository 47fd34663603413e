"""What guesses about who was in say against a claimed epsilon, after one run of the mechanism.

>>> round(lower_bound(75, num_guesses=100, num_canaries=1000, delta=1e-4), 3)  # the paper's own example
0.673

m records are each in or out by a fair coin of their own; an adversary sees what the mechanism put out, guesses in or
out about r of them and abstains from the rest. If the mechanism is (epsilon, delta)-DP for adding or removing one
record, then with f(v) = P[Binomial(r, e^epsilon / (1 + e^epsilon)) >= v]

    P[v or more guesses are right] <= f(v) + 2 m delta max over i = 1, ..., m of (f(v - i) - f(v)) / i

however the guesses depend on each other. What makes this improbable refutes the claim.

Source: Steinke, Nasr & Jagielski 2023, arXiv 2305.08846, theorem 5.2.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from scipy.stats import binom

CONFIDENCE = 0.95
STRIDE = 0.25  # of the search for an epsilon that is not refuted
PRECISION = 1e-6


def p_value(num_correct: int, num_guesses: int, num_canaries: int, epsilon: float, delta: float) -> float:
    """The most probable that so many right guesses, or more, can be under (epsilon, delta)-DP."""
    right = np.arange(num_correct, -1, -1)  # beyond i = v, f stays 1 and i grows
    tails = binom.sf(right - 1, num_guesses, expit(epsilon))  # f(v), f(v - 1), ..., f(0)
    slopes = (tails[1:] - tails[0]) / np.arange(1, num_correct + 1)
    return float(min(1.0, tails[0] + 2 * num_canaries * delta * slopes.max(initial=0.0)))


def lower_bound(
    num_correct: int, *, num_guesses: int, num_canaries: int, delta: float, confidence: float = CONFIDENCE
) -> float:
    """The epsilon below which every claim at ``delta`` is refuted with the given confidence; 0 if none is.

    A mechanism that keeps its claim has a larger bound in at most 1 - ``confidence`` of all runs.
    """

    def refuted(epsilon: float) -> bool:
        return p_value(num_correct, num_guesses, num_canaries, epsilon, delta) <= 1 - confidence

    low, high = 0.0, STRIDE
    while refuted(high):
        low, high = high, high + STRIDE
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
