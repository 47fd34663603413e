"""Reading a whole source in memory, and small pictures, for tests."""

from __future__ import annotations

import numpy as np
from PIL import Image

from privimage.artifacts import ImageSet
from privimage.data.reading import Part, Square
from privimage.data.record import Collection, Record


def squares(collection, source):
    """The squares and the problems of a collection, read in one piece."""
    items = list(Part(collection, source))
    return [i for i in items if isinstance(i, Square)], [i[1] for i in items if not isinstance(i, Square)]


def image_sets(collection, source):
    """The training and test images of a collection in which nothing is wrong."""
    found, problems = squares(collection, source)
    assert problems == []
    shape = (0, source.resolution, source.resolution, source.channels)
    sets = []
    for is_test in (False, True):
        part = [image for image in found if image.is_test == is_test]
        pixels = np.stack([image.pixels for image in part]) if part else np.zeros(shape, np.uint8)
        labels = np.array([image.label for image in part], np.int64)
        sets.append(ImageSet(pixels, labels, collection.class_names, source.source))
    return sets


def collection_of(*items, class_names=("cat", "dog")):
    """A collection of records and problems."""
    return Collection("list", class_names, lambda: iter(items))


def record(content, label=0, split="train", name="x"):
    """A record of an image that is in memory."""
    return Record(name, label, split, lambda: content)


def noise(seed, size=(6, 6), channels=3):
    """A picture of random pixels; ``size`` is (width, height)."""
    shape = (*size[::-1], channels) if channels > 1 else size[::-1]
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))
