"""Readers of image sources: the only place that knows a data set's name.

A reader takes what `preprocess` was told of a row, and the declared class names of a sensitive set (None for a public
one); it returns the training images and those held out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from privimage.artifacts import ImageSet
from privimage.data import digits, folder, glyphs
from privimage.settings import Source

Reader = Callable[[Source, Sequence[str] | None], tuple[ImageSet, ImageSet]]

READERS: dict[str, Reader] = {
    "digits": digits.read,
    "glyphs": glyphs.read,
    "folder": folder.read,
}
