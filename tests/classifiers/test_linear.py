"""The classifiers on plain pixels learn what can be learnt, and say so on other images."""

import numpy as np
import pytest

from privimage.artifacts import ImageSet
from privimage.classifiers.linear import flattened, logistic_accuracy, mlp_accuracy


def halves(n, seed):
    """Bright on the left (class 0) or on the right (class 1)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    images = rng.integers(0, 100, (n, 4, 4, 1))
    images[labels == 0, :, :2] += 100
    images[labels == 1, :, 2:] += 100
    return ImageSet(images.astype(np.uint8), labels, ("left", "right"), "made")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("measure", [logistic_accuracy, mlp_accuracy])
def test_they_learn_and_are_measured_on_the_test_images(measure):
    train, test = halves(120, 0), halves(60, 1)
    swapped = ImageSet(test.images, 1 - test.labels, test.class_names, "made")
    assert measure(train, test, seed=0) > 0.95
    assert measure(train, swapped, seed=0) < 0.05
    assert measure(train, test, seed=0) == measure(train, test, seed=0)


def test_pixels_become_rows_between_0_and_1():
    images = np.array([[[[0, 51]], [[102, 255]]]], np.uint8)
    np.testing.assert_allclose(flattened(images), [[0, 0.2, 0.4, 1]], rtol=1e-6)
