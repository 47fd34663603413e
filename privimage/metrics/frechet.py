"""The Frechet distance between two sets of feature vectors, each seen as a Gaussian.

Source: Dowson and Landau 1982; for images Heusel et al. 2017.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from privimage.errors import UserError

STRETCH = 4096  # vectors in double precision at once


class Gaussian(Protocol):
    """Anything with a ``mean`` [D] and a ``covariance`` [D, D], in double precision."""

    mean: np.ndarray

    @property
    def covariance(self) -> np.ndarray: ...


class Moments:
    """Mean and covariance of feature vectors that arrive in batches, in double precision.

    Shapes: ``mean`` [D], ``covariance`` [D, D].
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = np.zeros(width)
        self._scatter = np.zeros((width, width))

    def update(self, features: np.ndarray) -> None:
        """The vectors [B, D] count; centred batch by batch, since sums of squares would cancel."""
        features = features.astype(np.float64)
        total = self.count + len(features)
        batch_mean = features.mean(axis=0)  # [D]
        centred, shift = features - batch_mean, batch_mean - self.mean
        self._scatter += centred.T @ centred + np.outer(shift, shift) * (self.count * len(features) / total)
        self.mean = self.mean + shift * (len(features) / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance.

        Raises:
            UserError: if fewer than two vectors were seen.
        """
        if self.count < 2:
            raise UserError(f"a Frechet distance got {self.count} images on one side; expected at least 2.")
        return self._scatter / (self.count - 1)


def moments_of(features: np.ndarray) -> Moments:
    """Mean and covariance of vectors [N, D] that are all there."""
    moments = Moments(features.shape[1])
    for start in range(0, len(features), STRETCH):
        moments.update(features[start : start + STRETCH])
    return moments


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)).

    The trace of the root is that of (F^T S_b F)^(1/2) with S_a = F F^T: the same eigenvalues, of a symmetric matrix,
    so that nothing turns complex.
    """
    factor = _factor(a.covariance)
    product = factor.T @ b.covariance @ factor
    eigenvalues = np.linalg.eigvalsh((product + product.T) / 2)
    trace_of_root = np.sqrt(eigenvalues.clip(min=0)).sum()
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * trace_of_root
    return float(((a.mean - b.mean) ** 2).sum() + spread)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Some F with covariance = F F^T."""
    try:
        return np.linalg.cholesky(covariance)  # a fifth of the time of the eigenvectors
    except np.linalg.LinAlgError:  # singular: fewer images than features
        values, vectors = np.linalg.eigh(covariance)
        return vectors * np.sqrt(values.clip(min=0))
