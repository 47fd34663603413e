"""The kernel distance: the unbiased squared maximum mean discrepancy under a polynomial kernel.

Unlike a Frechet distance it has no bias from the number of images, and may come out below zero.
Source: Binkowski et al. 2018, section 4: k(x, y) = (x.y / D + 1)^3, mean over subsets.
"""

from __future__ import annotations

import numpy as np

NUM_SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 0


def kernel_distance(a: np.ndarray, b: np.ndarray) -> tuple[float, float | None]:
    """Mean and standard deviation over 100 subsets of 1,000 vectors of each side, or of as many as both sides have.

    Sides of equally many vectors, 1,000 at most, have one subset and no deviation. Where one side alone is no larger
    than its subsets, all of them are that side, and the deviation understates: it is that of the other side alone.

    Shapes: float [N, D], float [M, D].
    """
    if len(a) == len(b) <= SUBSET_SIZE:
        return squared_mmd(a, b), None
    size, rng = min(SUBSET_SIZE, len(a), len(b)), np.random.default_rng(SEED)
    values = [
        squared_mmd(a[rng.choice(len(a), size, replace=False)], b[rng.choice(len(b), size, replace=False)])
        for _ in range(NUM_SUBSETS)
    ]
    return float(np.mean(values)), float(np.std(values))


def squared_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased estimate from vectors [m, D] and [n, D]."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return _within(a) + _within(b) - 2 * _sum(a, b) / (len(a) * len(b))


def _within(a: np.ndarray) -> float:
    """The mean kernel of two different vectors of one side."""
    own = ((a * a).sum(axis=1) / a.shape[1] + 1) ** 3  # [m]
    return (_sum(a, a) - own.sum()) / (len(a) * (len(a) - 1))


def _sum(a: np.ndarray, b: np.ndarray) -> float:
    kernel = a @ b.T / a.shape[1] + 1  # [m, n]; cubed below
    return float(np.vdot(kernel * kernel, kernel))
