"""The inception score: is each image clearly of one class, and are there images of many? It sees no real image.

Source: Salimans et al. 2016, section 4: exp of the mean divergence of p(y|x) from p(y), in ten splits.
"""

from __future__ import annotations

import numpy as np

NUM_SPLITS = 10


def inception_score(logits: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation over the splits: float [N, K], between 1 and K.

    With fewer than ten images, there are as many splits as images.
    """
    scores = [_score(part) for part in np.array_split(_log_softmax(logits.astype(np.float64)), NUM_SPLITS) if len(part)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(log_p: np.ndarray) -> float:
    p = np.exp(log_p)  # [n, K]
    marginal = p.mean(axis=0)  # [K]
    log_marginal = np.log(np.maximum(marginal, np.finfo(np.float64).tiny))
    return float(np.exp((p * (log_p - log_marginal)).sum(axis=1).mean()))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
