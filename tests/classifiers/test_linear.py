"""The classifiers on plain pixels learn what can be learnt, and say so on other images."""

import numpy as np
import pytest

from privimage.classifiers.linear import flattened, logistic, mlp


def halves(n, seed):
    """Bright on the left (class 0) or on the right (class 1): rows of pixels, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    images = rng.integers(0, 100, (n, 4, 4, 1))
    images[labels == 0, :, :2] += 100
    images[labels == 1, :, 2:] += 100
    return flattened(images.astype(np.uint8)), labels


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("make", [logistic, lambda: mlp(0)])
def test_they_learn_the_same_each_time(make):
    (x, labels), (asked, wanted) = halves(120, 0), halves(60, 1)
    first, second = (make().fit(x, labels).predict(asked) for _ in range(2))
    assert (first == wanted).mean() > 0.95
    np.testing.assert_array_equal(first, second)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_perceptron_depends_on_its_seed_and_a_regression_has_none():
    x, labels = halves(40, 0)
    assert not np.array_equal(mlp(0).fit(x, labels).coefs_[0], mlp(1).fit(x, labels).coefs_[0])
    np.testing.assert_array_equal(logistic().fit(x, labels).coef_, logistic().fit(x, labels).coef_)


def test_pixels_become_rows_between_0_and_1():
    images = np.array([[[[0, 51]], [[102, 255]]]], np.uint8)
    np.testing.assert_allclose(flattened(images), [[0, 0.2, 0.4, 1]], rtol=1e-6)
