"""Precision, recall, density and coverage against their definitions, torch-fidelity, and cases that one can see."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from privimage.metrics import neighbours
from privimage.metrics.neighbours import NEIGHBOURS, neighbour_metrics
from privimage.metrics.torchvision_cpu import prepare_torchvision


def samples(seed, n=300, width=6, shift=0.0, scale=1.0):
    return (np.random.default_rng(seed).normal(size=(n, width)) * scale + shift).astype(np.float32)


def by_definition(synthetic, real):
    """The four numbers by loops, with scikit-learn's neighbours."""
    radius = {}
    for name, side in (("real", real), ("synthetic", synthetic)):
        found = NearestNeighbors(n_neighbors=NEIGHBOURS + 1, algorithm="brute").fit(side)
        radius[name] = found.kneighbors(side)[0][:, -1]
    between = np.array([[np.linalg.norm(r - s) for s in synthetic] for r in real.astype(float)])
    inside = between <= radius["real"][:, None]
    return {
        "precision": np.mean([inside[:, j].any() for j in range(len(synthetic))]),
        "recall": np.mean([(between[i] <= radius["synthetic"]).any() for i in range(len(real))]),
        "density": np.mean([inside[:, j].sum() / NEIGHBOURS for j in range(len(synthetic))]),
        "coverage": np.mean([inside[i].any() for i in range(len(real))]),
    }


@pytest.mark.parametrize("block", [1000, 37])
def test_agrees_with_the_definitions(monkeypatch, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    synthetic, real = samples(0, n=110, shift=0.7, scale=0.8), samples(1, n=130)
    got = neighbour_metrics(synthetic, real)
    assert got == pytest.approx(by_definition(synthetic, real))
    assert 0.1 < got["recall"] < got["precision"]  # the case decides something


def test_agrees_with_torch_fidelity():
    prepare_torchvision()
    metric = pytest.importorskip("torch_fidelity.metric_prc")
    synthetic, real = samples(2, shift=0.5), samples(3)
    theirs = metric.calculate_precision_recall_full(torch.tensor(synthetic), torch.tensor(real), NEIGHBOURS)
    got = neighbour_metrics(synthetic, real)
    assert (got["precision"], got["recall"]) == pytest.approx(theirs, abs=1e-6)


def test_a_copy_is_perfect_also_with_duplicates_and_far_from_zero():
    real = np.repeat(samples(4, n=60, shift=1000.0), 2, axis=0)
    got = neighbour_metrics(real.copy(), real)
    assert got["precision"] == got["recall"] == got["coverage"] == 1
    assert got["density"] >= (NEIGHBOURS + 1) / NEIGHBOURS  # itself and its k neighbours at least: ties count


def test_noise_has_no_precision_and_one_missing_mode_costs_its_share_of_coverage():
    modes = np.concatenate([samples(seed, n=100, shift=20.0 * seed) for seed in range(4)])
    again = np.concatenate([samples(10 + seed, n=100, shift=20.0 * seed) for seed in range(4)])
    whole, partial = neighbour_metrics(again, modes), neighbour_metrics(again[:300], modes)
    assert partial["coverage"] == pytest.approx(whole["coverage"] * 0.75, abs=0.03)
    assert partial["recall"] == pytest.approx(whole["recall"] * 0.75, abs=0.03)
    assert partial["precision"] == pytest.approx(whole["precision"], abs=0.03)
    far = neighbour_metrics(samples(20, shift=500.0), modes)
    assert far == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_only_the_first_of_many_count(monkeypatch):
    monkeypatch.setattr(neighbours, "LIMIT", 50)
    synthetic, real = samples(5), samples(6)
    assert neighbour_metrics(synthetic, real) == neighbour_metrics(synthetic[:50], real[:50])


def test_sides_of_no_more_than_k_images_have_no_neighbours():
    assert neighbour_metrics(samples(7, n=NEIGHBOURS), samples(8)) == {}
