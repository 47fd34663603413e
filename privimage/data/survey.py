"""What was seen of a source: counts, sizes, ways of storing, and the squares that are equal to each other."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from privimage.data.decode import DARK
from privimage.data.reading import Square
from privimage.data.record import printable

MAX_UNUSED = 10  # classes without an image that are told one by one


@dataclass
class Seen:
    """The range of widths and heights, and how many images were stored in which way."""

    widths: list[int] = field(default_factory=list)  # smallest and largest
    heights: list[int] = field(default_factory=list)
    stored: Counter[str] = field(default_factory=Counter)

    def add(self, image: Square) -> None:
        """Count one image."""
        for value, known in zip(image.size, (self.widths, self.heights)):
            if not known:
                known[:] = [value, value]
            elif not known[0] <= value <= known[1]:
                known[:] = _range([*known, value])
        self.stored[image.stored] += 1

    def warnings(self) -> list[str]:
        """Sentences about pixels whose range looks wrong."""
        dark, total = self.stored[DARK], self.stored.total()
        if 2 * dark <= total:
            return []
        return [
            f"{dark} of {total} images are bytes of 0 and 1, which are all but black; store them as bool, or times 255."
        ]

    def merge(self, other: Seen) -> None:
        """Count what another part saw."""
        self.widths, self.heights = _range(self.widths + other.widths), _range(self.heights + other.heights)
        self.stored.update(other.stored)

    def plain(self) -> dict[str, Any]:
        """As JSON-like data; the most common way of storing first."""
        return {
            "widths": self.widths,
            "heights": self.heights,
            "stored": dict(sorted(self.stored.items(), key=lambda item: (-item[1], item[0]))),
        }

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Seen:
        """From JSON-like data."""
        return cls(list(data["widths"]), list(data["heights"]), Counter(data["stored"]))


def _range(values: list[int]) -> list[int]:
    return [min(values), max(values)] if values else []


def unused(class_names: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Sentences about classes without a training image, at most a few."""
    names = [printable(name) for name, count in zip(class_names, counts) if not count]
    told = [f'class "{name}" has no training image.' for name in names[:MAX_UNUSED]]
    more = len(names) - MAX_UNUSED
    return told + [f"{more} more classes have no training image."] * (more > 0)


def square_hash(pixels: bytes) -> int:
    """64 bits of a hash of a square's bytes: equal squares have equal hashes."""
    return int.from_bytes(hashlib.blake2b(pixels, digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Duplicates:
    """Images whose squares are equal: how many more than one of each, and across the split; some of them by index."""

    within_train: int
    within_test: int
    across: int
    examples: list[list[int]]


def duplicates(hashes: np.ndarray, is_test: np.ndarray, num_examples: int = 10) -> Duplicates:
    """The equal squares among all; ``across`` counts test images that are also training images.

    Shapes: ``hashes`` uint64 [N]; ``is_test`` bool [N].
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.empty(0, np.int64)
    sizes = np.diff(np.r_[starts, len(ordered)])
    tests = np.add.reduceat(is_test[order].astype(np.int64), starts) if len(starts) else sizes
    trains = sizes - tests
    groups = np.flatnonzero(sizes > 1)[:num_examples]
    return Duplicates(
        within_train=int(np.maximum(trains - 1, 0).sum()),
        within_test=int(np.maximum(tests - 1, 0).sum()),
        across=int(tests[(trains > 0) & (tests > 0)].sum()),
        examples=[order[starts[g] : starts[g] + sizes[g]].tolist()[:5] for g in groups],
    )


def warnings_of(found: Duplicates, examples: Sequence[Sequence[str]]) -> list[str]:
    """Sentences about equal squares."""
    shown = "; ".join(" = ".join(group) for group in examples[:3])
    told = [
        (found.within_train, "training images are copies of other training images"),
        (found.within_test, "test images are copies of other test images"),
        (found.across, "test images are copies of training images, which flatters every measurement"),
    ]
    return [f"{count} {what} (for instance {shown})." for count, what in told if count]
