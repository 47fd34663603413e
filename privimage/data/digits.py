"""The 1,797 real handwritten digits that scikit-learn ships: 8x8, grey, ten classes.

Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), its test part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from privimage.artifacts import ImageSet
from privimage.data.square import square
from privimage.settings import Source

LARGEST = 16  # the published images count ink in blocks of 4x4 binary pixels
EVERY = 5  # one image in five is for testing


def read(source: Source, class_names: Sequence[str] | None = None) -> tuple[ImageSet, ImageSet]:
    """1,437 training images and 360 test images, each class split alike, always the same."""
    bunch = load_digits()
    grey = np.rint(bunch.images * 255 / LARGEST).astype(np.uint8)  # [1797, 8, 8]
    images = np.stack([square(Image.fromarray(image), source) for image in grey])  # [1797, S, S, C]
    labels = bunch.target.astype(np.int64)
    names = tuple(map(str, range(10)))

    # The published file never changes, so this split of its rows is a constant, not a measurement.
    by_class = np.argsort(labels, kind="stable")
    is_test = np.zeros(len(labels), bool)
    is_test[by_class[::EVERY]] = True
    return (
        ImageSet(images[~is_test], labels[~is_test], names, source.source),
        ImageSet(images[is_test], labels[is_test], names, source.source),
    )
