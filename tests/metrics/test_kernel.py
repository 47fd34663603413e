"""The kernel distance against its definition, scikit-learn and torch-fidelity."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel

from privimage.metrics import kernel
from privimage.metrics.kernel import kernel_distance, squared_mmd
from privimage.metrics.torchvision_cpu import prepare_torchvision


def samples(seed, n=200, width=5, shift=0.0):
    return (np.random.default_rng(seed).normal(size=(n, width)) + shift).astype(np.float32)


def test_two_numbers_a_side_by_hand():
    # k(x, y) = (x y + 1)^3 on {0, 1} and {2, 3}: k(0, 1) = 1, k(2, 3) = 343; between: 1, 1, 27, 64.
    a, b = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])
    assert squared_mmd(a, b) == pytest.approx(1 + 343 - 2 * (1 + 1 + 27 + 64) / 4)


def test_agrees_with_scikit_learns_kernel():
    a, b = samples(0), samples(1, n=150, shift=0.3)
    k = [polynomial_kernel(x, y, degree=3, coef0=1) for x, y in ((a, a), (b, b), (a, b))]
    within = [(m.sum() - np.trace(m)) / (len(m) * (len(m) - 1)) for m in k[:2]]
    assert squared_mmd(a, b) == pytest.approx(sum(within) - 2 * k[2].mean(), rel=1e-5)


def test_agrees_with_torch_fidelity():
    prepare_torchvision()
    metric = pytest.importorskip("torch_fidelity.metric_kid")
    a, b = samples(2, n=100).astype(float), samples(3, n=100, shift=0.2).astype(float)
    theirs = metric.kernel_mmd(a, b, kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None,
                               kid_kernel_poly_coef0=1)  # fmt: skip
    assert squared_mmd(a, b) == pytest.approx(theirs, rel=1e-9)


def test_unbiased_zero_on_average_for_one_distribution():
    values = [squared_mmd(samples(seed, n=20), samples(1000 + seed, n=20)) for seed in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 300**0.5
    assert min(values) < 0  # what a biased estimate never is


def test_mean_over_subsets_is_that_of_all_pairs_and_grows_with_a_shift(monkeypatch):
    monkeypatch.setattr(kernel, "SUBSET_SIZE", 60)
    a, b = samples(4, n=300), samples(5, n=200, shift=1.0)
    mean, deviation = kernel_distance(a, b)
    assert mean == pytest.approx(squared_mmd(a, b), abs=4 * deviation / 100**0.5)
    assert deviation > 0 and kernel_distance(a, samples(6, n=200))[0] < mean / 20
    assert kernel_distance(a, b) == (mean, deviation)


def test_small_sides_are_used_whole_and_once(monkeypatch):
    a, b = samples(7, n=30), samples(8, n=30, shift=0.5)
    calls = []
    monkeypatch.setattr(kernel, "squared_mmd", lambda *sides: calls.append(sides) or squared_mmd(*sides))
    assert kernel_distance(a, b) == (squared_mmd(a, b), None) and len(calls) == 1


def test_where_one_side_is_small_the_deviation_is_the_others_alone():
    a, b = samples(7, n=30), samples(8, n=90, shift=0.5)
    _, deviation = kernel_distance(a, b)
    both = np.std([squared_mmd(samples(seed, n=30), samples(seed + 1, n=30, shift=0.5)) for seed in range(0, 200, 2)])
    assert 0 < deviation < both
