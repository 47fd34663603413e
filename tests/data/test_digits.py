"""The digits: all of the published images, each in one part, classes split alike."""

import numpy as np
import pytest
from sets import image_sets
from sklearn.datasets import load_digits

from privimage.data import digits
from privimage.settings import Source


def read(resolution=8, channels=1):
    source = Source(source="digits", resolution=resolution, channels=channels, filter="box")
    return image_sets(digits.read(source), source)


def test_there_are_1437_to_train_and_360_to_test_split_alike():
    train, test = read()
    assert (len(train.labels), len(test.labels)) == (1437, 360)
    assert train.class_names == test.class_names == tuple("0123456789")
    for kept, held_out in zip(train.counts, test.counts):
        assert abs(held_out - (kept + held_out) / 5) < 1


def test_the_parts_together_are_the_published_images():
    train, test = read()
    got = np.concatenate([train.images, test.images])[..., 0]
    bunch = load_digits()
    published = np.rint(bunch.images * 255 / 16)
    rows = np.column_stack([got.reshape(1797, -1), np.concatenate([train.labels, test.labels])])
    wanted = np.column_stack([published.reshape(1797, -1), bunch.target])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, wanted))
    assert set(np.unique(got)) == set(np.rint(np.arange(17) * 255 / 16))


def test_two_readings_are_the_same():
    for one, other in zip(read(), read()):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


@pytest.mark.parametrize(("resolution", "channels"), [(16, 1), (28, 3)])
def test_they_come_in_other_sizes_and_in_three_channels(resolution, channels):
    train, _ = read(resolution, channels)
    assert train.images.shape == (1437, resolution, resolution, channels)
    assert (train.images == train.images[..., :1]).all()
    assert abs(train.images.mean() - read()[0].images.mean()) < 2


def test_declared_classes_give_the_order():
    source = Source(source="digits", resolution=8, channels=1)
    train, _ = image_sets(digits.read(source, tuple("9876543210")), source)
    straight, _ = read()
    assert train.class_names == tuple("9876543210")
    np.testing.assert_array_equal(train.labels, 9 - straight.labels)
