"""The Frechet distance against closed forms and against three other implementations."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from privimage.errors import UserError
from privimage.metrics.frechet import Moments, frechet_distance, moments_of
from privimage.metrics.torchvision_cpu import prepare_torchvision


def moments(features, batch=1000):
    seen = Moments(features.shape[1])
    for start in range(0, len(features), batch):
        seen.update(features[start : start + batch])
    return seen


def samples(seed, n=300, width=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) + rng.normal(size=width)


@pytest.mark.parametrize("batch", [1, 7, 300])
def test_streamed_moments_are_numpys(batch):
    features = samples(0) + 1e6  # far from zero, where sums of squares would cancel
    seen = moments(features, batch)
    assert seen.count == 300
    np.testing.assert_allclose(seen.mean, features.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(seen.covariance, np.cov(features, rowvar=False), rtol=1e-6)


def test_equal_covariances_leave_the_squared_distance_of_the_means():
    features, shift = samples(1), np.arange(6.0)
    assert frechet_distance(moments(features), moments(features + shift)) == pytest.approx(55)


def test_diagonal_covariances_leave_the_squared_distance_of_the_deviations():
    # Orthogonal columns: the covariance of the scaled signs is diagonal, with n / (n - 1) times the squares.
    signs = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float)
    a, b = np.array([1.0, 2, 3]), np.array([4.0, 1, 5])
    expected = 4 / 3 * ((a - b) ** 2).sum()
    assert frechet_distance(moments(signs * a), moments(signs * b)) == pytest.approx(expected)


def test_zero_for_the_same_and_symmetric():
    a, b = moments(samples(2)), moments(samples(3))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


@pytest.mark.parametrize("width", [6, 400, pytest.param(2048, marks=pytest.mark.slow)])
def test_agrees_with_scipys_matrix_root(width):
    mix = np.random.default_rng(4).normal(size=(width, width)) / width**0.5
    a, b = (moments_of(np.random.default_rng(s).normal(size=(2 * width, width)) @ mix * s + 0.1 * s) for s in (1, 2))
    root = sqrtm(a.covariance @ b.covariance).real
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_agrees_with_clean_fid():
    prepare_torchvision()
    from cleanfid.fid import frechet_distance as theirs

    a, b = moments(samples(6)), moments(samples(7))
    assert frechet_distance(a, b) == pytest.approx(theirs(a.mean, a.covariance, b.mean, b.covariance), rel=1e-9)


def test_agrees_with_torch_fidelity():
    prepare_torchvision()
    metric = pytest.importorskip("torch_fidelity.metric_fid")
    a, b = moments(samples(8)), moments(samples(9))
    stats = [{"mu": side.mean, "sigma": side.covariance} for side in (a, b)]
    theirs = metric.fid_statistics_to_metric(*stats, verbose=False)
    assert frechet_distance(a, b) == pytest.approx(next(iter(theirs.values())), rel=1e-6)


def test_fewer_images_than_features_still_give_a_real_number():
    a, b = moments(samples(10, n=4)), moments(samples(11, n=4))
    distance = frechet_distance(a, b)
    assert np.isfinite(distance) and distance > 0
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_images_are_refused(n):
    with pytest.raises(UserError, match="at least 2"):
        frechet_distance(moments(samples(12)[:n]), moments(samples(13)))
