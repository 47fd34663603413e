"""The two classifiers on plain pixels, from scikit-learn.

Source: the evaluation of Li et al. 2024: logistic regression; a perceptron with one hidden layer of 100.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from privimage.artifacts import ImageSet


def logistic_accuracy(train: ImageSet, test: ImageSet, seed: int) -> float:
    """Accuracy on ``test`` of a logistic regression fitted to ``train``."""
    return _accuracy(LogisticRegression(max_iter=50_000, random_state=seed), train, test)


def mlp_accuracy(train: ImageSet, test: ImageSet, seed: int) -> float:
    """Accuracy on ``test`` of a multilayer perceptron fitted to ``train``."""
    return _accuracy(MLPClassifier(max_iter=1_000, random_state=seed), train, test)


def flattened(images: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1]: uint8 [N, H, W, C] -> float32 [N, H * W * C]."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


def _accuracy(model: LogisticRegression | MLPClassifier, train: ImageSet, test: ImageSet) -> float:
    model.fit(flattened(train.images), train.labels)
    return float(model.score(flattened(test.images), test.labels))
