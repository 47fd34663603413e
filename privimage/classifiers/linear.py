"""The two classifiers on plain pixels, from scikit-learn.

Source: the evaluation of Li et al. 2024: logistic regression; a perceptron with one hidden layer of 100.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier


def logistic() -> LogisticRegression:
    """A logistic regression. Its optimum is one, so there is nothing to seed."""
    return LogisticRegression(max_iter=50_000)


def mlp(seed: int) -> MLPClassifier:
    """A multilayer perceptron, weights and order drawn from the seed; as many passes as the library's default."""
    return MLPClassifier(max_iter=200, random_state=seed)


def predictions(
    model: LogisticRegression | MLPClassifier, x: np.ndarray, y: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """What the model, trained on [N, P] and [N], says of ``asked`` [M, P]: int64 [M]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # its number of passes is the recipe
        return model.fit(x, y).predict(asked)


def flattened(images: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1]: uint8 [N, H, W, C] -> float32 [N, H * W * C]."""
    return images.reshape(len(images), -1).astype(np.float32) / 255
