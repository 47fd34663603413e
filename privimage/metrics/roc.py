"""How well scores tell members from non-members: the area under the curve, true-positive rates, and their intervals.

A higher score says member. What differential privacy permits is here too, for the two to be laid side by side.

Source: DeLong et al. 1988 (area); Clopper & Pearson 1934; Kairouz et al. 2015 (what privacy permits).
"""

from __future__ import annotations

from math import exp

import numpy as np
from scipy import stats

LEVEL = 0.95


def area(members: np.ndarray, others: np.ndarray) -> tuple[float, list[float]]:
    """The probability that a member's score is above another's, ties by halves, with its 95 % interval.

    The interval is DeLong's on the scale of log odds, which keeps it within [0, 1]; where the scores separate the two
    completely, it reaches as far as half a mistaken image of the smaller side.

    Shapes: float [n], [m]; at least two of each.
    """
    below = (_placements(members, others), 1 - _placements(others, members))  # for each score: how many it is above
    auc = float(below[0].mean())
    variance = sum(part.var(ddof=1) / len(part) for part in below)
    edge = 0.5 / min(len(members), len(others))
    inner = float(np.clip(auc, edge, 1 - edge))
    half = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(variance) / (inner * (1 - inner))
    odds = np.log(inner / (1 - inner))
    low, high = (float(1 / (1 + np.exp(-bound))) for bound in (odds - half, odds + half))
    return auc, [min(low, auc), max(high, auc)]


def rate_at(members: np.ndarray, others: np.ndarray, false_positives: float) -> tuple[float, list[float]]:
    """The share of members above the score that the given share of non-members exceeds, with its 95 % interval.

    Nobody knows that score, only the non-members at hand: order statistics bound it at half of the error, Clopper and
    Pearson's intervals bound the share above either bound at the other half. So the interval covers at 95 % or more,
    whatever the scores.
    """
    ranked = np.sort(others)[::-1]  # highest first
    error = (1 - LEVEL) / 2
    few, many = stats.binom.ppf([error / 2, 1 - error / 2], len(others), false_positives).astype(int)
    above = [int((members > _score(ranked, k)).sum()) for k in (few - 1, round(false_positives * len(others)), many)]
    low = stats.beta.ppf(error / 2, above[0], len(members) - above[0] + 1) if above[0] else 0.0
    high = stats.beta.ppf(1 - error / 2, above[2] + 1, len(members) - above[2]) if above[2] < len(members) else 1.0
    return above[1] / len(members), [float(low), float(high)]


def curve(members: np.ndarray, others: np.ndarray, num_points: int) -> list[list[float]]:
    """Points [false-positive rate, true-positive rate] from (0, 0) to (1, 1), at most so many, evenly along it."""
    thresholds = np.unique(np.concatenate([members, others]))[::-1]
    rates = [1 - np.searchsorted(np.sort(scores), thresholds) / len(scores) for scores in (others, members)]
    points = np.concatenate([[[0.0, 0.0]], np.stack(rates, axis=1)])  # [n, 2]; at or above each threshold
    along = np.linspace(0, len(points) - 1, min(num_points, len(points))).round().astype(int)
    return points[along].tolist()


def permitted(false_positives: float, epsilon: float, delta: float) -> float:
    """The largest true-positive rate that (epsilon, delta)-differential privacy permits any attack on one image."""
    by_members = exp(min(epsilon, 700)) * false_positives + delta
    by_others = 1 - exp(-epsilon) * (1 - delta - false_positives)
    return min(1.0, by_members, by_others)


def _placements(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each score the share of the others below it, those that equal it by halves."""
    ranked = np.sort(others)
    return (np.searchsorted(ranked, scores) + np.searchsorted(ranked, scores, side="right")) / (2 * len(others))


def _score(ranked: np.ndarray, k: int) -> float:
    """A score that ``k`` of the scores are above, highest first; beyond either end there is none."""
    if k < 0:
        return np.inf
    return ranked[k] if k < len(ranked) else -np.inf
