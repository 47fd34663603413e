"""Precision and recall, density and coverage: do images lie where real ones lie, and do they lie everywhere there?

Around each image stands a ball that reaches to its k-th nearest neighbour of the same side. Precision is the share of
synthetic images inside a real ball, recall the share of real images inside a synthetic one (Kynkaanniemi et al. 2019;
they use k = 3). Density counts in how many real balls a synthetic image lies, over k; coverage is the share of real
balls that hold one (Naeem et al. 2020, whose k = 5 is used for all four).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

NEIGHBOURS = 5
LIMIT = 5_000  # images of each side; the values depend on the number
BLOCK = 1_000  # rows of distances at once
ROUNDING = 1e-12  # of the largest squared norm: equal distances count as equal


def neighbour_metrics(synthetic: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """The four numbers, from the first 5,000 vectors of each side; nothing for sides of at most k vectors.

    Shapes: float [M, D], float [N, D].
    """
    centre = real[:LIMIT].mean(axis=0, dtype=np.float64)  # distances do not change, their rounding shrinks
    synthetic, real = (side[:LIMIT].astype(np.float64) - centre for side in (synthetic, real))
    if min(len(synthetic), len(real)) <= NEIGHBOURS:
        return {}
    slack = ROUNDING * max(_norms(synthetic).max(), _norms(real).max())
    around_synthetic, around_real = _radii(synthetic) + slack, _radii(real) + slack  # [M], [N]
    recalled = covered = inside = 0
    in_real = np.zeros(len(synthetic), bool)
    for start, distances in _blocks(real, synthetic):  # [rows, M]
        balls = distances <= around_real[start : start + len(distances), None]
        in_real |= balls.any(axis=0)
        inside += balls.sum()
        covered += balls.any(axis=1).sum()
        recalled += (distances <= around_synthetic).any(axis=1).sum()
    return {
        "precision": float(in_real.mean()),
        "recall": float(recalled / len(real)),
        "density": float(inside / (NEIGHBOURS * len(synthetic))),
        "coverage": float(covered / len(real)),
    }


def _radii(vectors: np.ndarray) -> np.ndarray:
    """The squared distance to the k-th nearest other vector: [N, D] -> [N]."""
    # Each vector is its own nearest, hence k rather than k - 1.
    return np.concatenate([np.partition(d, NEIGHBOURS, axis=1)[:, NEIGHBOURS] for _, d in _blocks(vectors, vectors)])


def _blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Squared distances of some rows of ``a`` to all of ``b``, with the first row's index."""
    norms_a, norms_b = _norms(a), _norms(b)
    for start in range(0, len(a), BLOCK):
        rows = slice(start, start + BLOCK)
        yield start, (norms_a[rows, None] + norms_b - 2 * (a[rows] @ b.T)).clip(min=0)


def _norms(vectors: np.ndarray) -> np.ndarray:
    return (vectors * vectors).sum(axis=1)
