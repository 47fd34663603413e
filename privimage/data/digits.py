"""The 1,797 real handwritten digits that scikit-learn ships: 8x8, grey, ten classes.

Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), its test part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.datasets import load_digits

from privimage.data.classes import in_declared_order
from privimage.data.record import Collection, Record
from privimage.settings import Source

LARGEST = 16  # the published images count ink in blocks of 4x4 binary pixels
EVERY = 5  # one image in five is for testing


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """1,437 training images and 360 test images, each class split alike, always the same."""
    names = in_declared_order([str(digit) for digit in range(10)], source, class_names, "source `digits`")
    bunch = load_digits()
    grey = np.rint(bunch.images * 255 / LARGEST).astype(np.uint8)  # [1797, 8, 8]
    labels = [names.index(str(digit)) for digit in bunch.target]

    # The published file never changes, so this split of its rows is a constant, not a measurement.
    is_test = np.zeros(len(labels), bool)
    is_test[np.argsort(bunch.target, kind="stable")[::EVERY]] = True

    def items() -> Iterator[Record]:
        for index, label in enumerate(labels):
            split = "test" if is_test[index] else "train"
            yield Record(f"digits[{index}]", label, split, lambda index=index: grey[index])

    return Collection("scikit-learn's digits", names, items)
