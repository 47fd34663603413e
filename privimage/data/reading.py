"""One pass over a part of a collection: each image becomes a square, or a problem that says why not.

A part owns every n-th block of the list, so that n processes share the work without knowing how long the list is, and
together give what one would. The list itself is walked by all of them; only its own images does a part read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from privimage.data.decode import upright
from privimage.data.record import BadImage, Collection, Content, Note, Problem, Record, printable
from privimage.data.square import square
from privimage.settings import Source

BLOCK = 64  # neighbours on the disk that one part reads in a row


class Square(NamedTuple):
    """One image, ready: uint8 [S, S, C], and what it was.

    ``position`` is its place in the collection's list, ``size`` (width, height) before cropping.
    """

    position: int
    name: str
    label: int
    is_test: bool
    pixels: np.ndarray
    size: tuple[int, int]
    stored: str


class Part:
    """The ``index``-th of ``of`` equal parts of a collection; iterating reads it, once.

    After the pass, ``num_items`` is the length of the whole list, ``listing`` a hash of it and ``notes`` what came with
    it: parts of one set agree.
    """

    def __init__(self, collection: Collection, source: Source, index: int = 0, of: int = 1) -> None:
        self.collection, self.source, self.index, self.of = collection, source, index, of
        self.num_items, self.listing, self.notes = 0, "", []

    def __iter__(self) -> Iterator[Square | tuple[int, Problem]]:
        self.num_items, self.notes = 0, []
        digest = hashlib.sha256(repr((self.collection.form, self.collection.class_names)).encode())
        for item in self.collection.items():
            if isinstance(item, Note):
                self.notes.append(item.text)
                continue
            position, self.num_items = self.num_items, self.num_items + 1
            told = f"{item.label} {item.split}" if isinstance(item, Record) else item.what
            digest.update(f"{item.name}\0{told}\0".encode("utf-8", "surrogateescape"))
            if position // BLOCK % self.of == self.index:
                yield self._read(position, item)
        self.listing = digest.hexdigest()

    def _read(self, position: int, item: Record | Problem) -> Square | tuple[int, Problem]:
        if isinstance(item, Problem):
            return position, item
        try:
            content = item.load()
            picture, stored = upright(content, self.source.max_pixels)
            pixels = square(picture, self.source)
        except BadImage as error:
            return position, Problem(item.name, error.what, error.fix, error.skippable)
        except OSError as error:
            why = error.strerror or str(error)
            return position, Problem(item.name, f"cannot be read ({why})", "mend its permissions or copy it anew")
        is_test = item.split == "test" if item.split else falls_to_test(content, self.source.test_fraction)
        return Square(position, printable(item.name), item.label, is_test, pixels, picture.size, stored)


def falls_to_test(content: Content, test_fraction: float) -> bool:
    """Whether an image of a source without a split is for testing: decided by its own bytes alone."""
    data = content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes()
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") < test_fraction * 2**64
