"""Features of a set: all or the first of a fixed order, with exact moments, whatever the batches."""

import threading

import numpy as np
import pytest
import torch

from privimage.artifacts import ImageSet
from privimage.errors import UserError
from privimage.metrics.extraction import ahead, extract, fixed_order
from privimage.metrics.feature_networks import FeatureNetwork


def corner(batch_size, with_logits=True):
    """A network whose features are two pixels, and whose logits their negatives."""

    def forward(x):
        return x[:, 0, :2, 0].float(), -x[:, 0, :2, 0].float() if with_logits else None

    return FeatureNetwork("corner", "ab", "none", batch_size, torch.from_numpy, forward)


def images(n, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, 3, n))
    return ImageSet(rng.integers(0, 256, (n, 4, 4, 1), dtype=np.uint8), labels, ("a", "b", "c"), "made")


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_each_image_gets_its_own_vector_and_the_moments_are_numpys(batch_size):
    source = images(50)
    found = extract(corner(batch_size), source, None, "images")
    np.testing.assert_array_equal(found.features, source.images[found.index, 0, :2, 0])
    np.testing.assert_array_equal(found.logits, -found.features)
    np.testing.assert_array_equal(found.labels, source.labels[found.index])
    np.testing.assert_array_equal(np.sort(found.index), np.arange(50))
    np.testing.assert_allclose(found.mean, found.features.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(found.features.astype(float), rowvar=False), rtol=1e-12)
    assert found.counts == source.counts and found.features.dtype == np.float32


def test_fewer_images_are_the_first_of_the_same_order_and_of_all_classes():
    source = images(300)
    some, all_of_them = (extract(corner(64), source, count, "images") for count in (100, 1000))
    assert (len(some), len(all_of_them)) == (100, 300)
    np.testing.assert_array_equal(some.features, all_of_them.features[:100])
    assert min(some.counts) > 15  # the images are sorted by class: the first 100 as they stand would be of one


def test_the_order_depends_on_the_number_alone():
    np.testing.assert_array_equal(fixed_order(20), fixed_order(20))
    assert fixed_order(20).tolist() != list(range(20))


def test_a_network_without_logits_has_none():
    assert extract(corner(10, with_logits=False), images(20), None, "images").logits.shape == (20, 0)


def test_too_few_images_and_infinite_features_are_refused():
    with pytest.raises(UserError, match="there are 1 to compare; expected at least 2"):
        extract(corner(10), images(5), 1, "images")
    broken = FeatureNetwork("b", "", "", 2, torch.from_numpy, lambda x: (x[:, 0, :2, 0] / torch.zeros(2), None))
    with pytest.raises(UserError, match="not finite"):
        extract(broken, images(5), None, "images")


def test_a_batch_is_made_ready_while_the_one_before_is_used():
    started = [threading.Event() for _ in range(3)]
    batches = [np.array([i]) for i in range(3)]

    def make(batch):
        started[batch[0]].set()
        return batch[0]

    used = []
    for item in ahead(make, batches):
        assert item == 2 or started[item + 1].wait(5)  # the next one is under way
        used.append(item)
    assert used == [0, 1, 2]


def test_an_error_in_making_a_batch_arrives():
    def make(batch):
        raise UserError("bad batch")

    with pytest.raises(UserError, match="bad batch"):
        list(ahead(make, [np.array([0])]))


def test_a_network_that_gives_one_vector_a_batch_is_refused():
    pooled = FeatureNetwork("b", "", "", 8, torch.from_numpy, lambda x: (x.float().mean((0, 1, 2))[None], None))
    with pytest.raises(UserError, match="1 vectors for 8 images"):
        extract(pooled, images(20), None, "images")
