"""Nearer to one set than to another: the share against all subsets, half where nothing is copied, one where all is."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from privimage.metrics import nearness
from privimage.metrics.nearness import nearest, share_nearer, share_nearest

PIXELS = load_digits().data  # float64 [1797, 64]


@pytest.fixture(autouse=True)
def fewer_deals(monkeypatch):
    """Intervals a little rougher, tests a lot faster."""
    monkeypatch.setattr(nearness, "NUM_DEALS", 100)


def split(rng, *sizes):
    """Disjoint random sets of real images."""
    order = rng.permutation(len(PIXELS))
    return [PIXELS[order[end - size : end]] for size, end in zip(sizes, np.cumsum(sizes))]


def contains_half(share):
    return share.interval[0] <= 0.5 <= share.interval[1]


@pytest.mark.parametrize("block", [1, 5_000, 10**7])
def test_neighbours_are_scikit_learns(block, monkeypatch):
    monkeypatch.setattr(nearness, "BLOCK", block)
    images, references = np.split(np.random.default_rng(0).normal(size=(50, 7)), [20])
    found = nearest(images, references, 4)
    distances, indices = NearestNeighbors(n_neighbors=4).fit(references).kneighbors(images)
    np.testing.assert_allclose(found.distances, distances)
    np.testing.assert_array_equal(found.indices, indices)
    assert nearest(images, references).distances.shape == (20, 30)  # no more than there are


def test_a_copy_is_at_distance_zero_even_in_single_precision():
    rows = np.random.default_rng(0).normal(1000, 1, (30, 100)).astype(np.float32)
    assert nearest(rows, rows, 1).distances.max() == 0


def test_the_share_is_the_mean_over_all_subsets_of_equal_size():
    rng = np.random.default_rng(1)
    images, first, second = (rng.normal(size=(n, 3)) for n in (9, 8, 5))
    apart = [np.linalg.norm(images[:, None] - rows, axis=2) for rows in (first, second)]
    won = [apart[0][:, subset].min(axis=1) < apart[1].min(axis=1) for subset in combinations(range(8), 5)]
    near = nearest(images, first), nearest(images, second)
    assert share_nearer(*near).share == pytest.approx(np.mean(won))
    assert share_nearer(*reversed(near)).share == pytest.approx(1 - np.mean(won))


def test_equal_distances_count_half():
    rng = np.random.default_rng(2)
    first = rng.integers(0, 256, (300, 2)).astype(float)
    near = nearest(first, first)
    for share in (share_nearer, share_nearest):
        found = share(near, near)
        assert found.share == pytest.approx(0.5, abs=0.1) and contains_half(found)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(250, 250), (360, 120), (120, 360)])
def test_where_nothing_is_copied_the_interval_holds_one_half_as_often_as_it_says(sizes, monkeypatch):
    """Real images in three parts: the first was never copied from the second. 95 % of 150, three to four deviations."""
    monkeypatch.setattr(nearness, "COUNT", 16)
    rng, held = np.random.default_rng(3), []
    for _ in range(150):
        images, first, second = split(rng, 60, *sizes)
        near = nearest(images, first, 16), nearest(images, second, 16)
        held.append([contains_half(share(*near)) for share in (share_nearer, share_nearest)])
    for rate in np.mean(held, axis=0):
        assert 0.88 <= rate <= 0.995


def test_the_interval_is_as_wide_as_the_share_varies_where_a_tenth_is_copied():
    rng, shares, widths = np.random.default_rng(4), [], []
    for _ in range(50):
        images, first, second = split(rng, 200, 300, 300)
        images[:20] = first[:20]
        found = share_nearer(nearest(images, first, 24), nearest(images, second, 24))
        shares.append(found.share)
        widths.append((found.interval[1] - found.interval[0]) / 2 / 1.96)
    assert np.mean(shares) == pytest.approx(0.55, abs=0.02)
    assert np.std(shares) == pytest.approx(np.mean(widths), rel=0.35)


@pytest.mark.parametrize("noise", [0, 0.5])
def test_copies_are_caught_also_among_a_few_unseen_images(noise):
    rng = np.random.default_rng(5)
    _, first, second = split(rng, 0, 1200, 300)
    copies = first[:400] + rng.normal(0, noise, (400, 64))
    near = nearest(copies, first), nearest(copies, second)
    as_many, whole = share_nearer(*near), share_nearest(*near)
    assert as_many.interval[0] > 0.55 and as_many.share == pytest.approx(0.625, abs=0.03)  # a quarter of the originals
    assert whole.share > 0.99 and whole.interval[0] > 0.8


def test_a_row_of_images_has_its_own_neighbours():
    images, references = np.split(np.random.default_rng(6).normal(size=(30, 2)), 2)
    near, chosen = nearest(images, references, 3), np.array([4, 2])
    np.testing.assert_array_equal(near.of(chosen).indices, nearest(images[chosen], references, 3).indices)
