"""Are images nearer to one set of images than to another? A share with its interval, and the neighbours themselves.

Distances are Euclidean, between rows of features.

An image counts for the first set if its nearest image there is nearer than its nearest image in the second. With more
images the first set would win too often, so subsets of equal size compete: as large as the smaller set, and the share
is the mean over all of them, in closed form, so that every image counts and none is drawn.

Where the two sets are exchangeable, as training and unseen images are for a generator that copies nothing, the share
is one half whatever the features, and dealing the images out anew to the two sets shows how far from it chance takes
it. Images that share a neighbour win or lose together; since it is neighbours that are dealt, that is accounted for.
The interval holds every value that the share would not differ from by more than in 95 % of the deals: it misses one
half in 5 % of cases and no more where nothing is copied (a permutation test; Pitman 1937).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

COUNT = 64  # neighbours that are kept: the nearest image of a set an eighth as large is among them, but for 1 in 1,900
NUM_DEALS = 1000
LEVEL = 0.95
BLOCK = 8_000_000  # numbers that are held at once
SEED = 0  # of the deals, and of the order of neighbours at equal distance


@dataclass(frozen=True)
class Near:
    """The nearest references of each image, nearest first, and how many references there are.

    Shapes: ``distances`` float64 [M, K], ``indices`` int64 [M, K]; K is ``COUNT`` or all there are.
    """

    distances: np.ndarray
    indices: np.ndarray
    num_references: int

    def of(self, images: np.ndarray) -> Near:
        """Those of some of the images, by number."""
        return Near(self.distances[images], self.indices[images], self.num_references)


@dataclass(frozen=True)
class Share:
    """A share and its 95 % interval, within [0, 1]."""

    share: float
    interval: list[float]


def nearest(images: np.ndarray, references: np.ndarray, count: int = COUNT) -> Near:
    """The ``count`` nearest references of each image.

    Bytes stay bytes but for the block at hand: as float32 a large set's would take four times the memory.

    Shapes: float or uint8 [M, D], [N, D].
    """
    num, width = references.shape
    count = min(count, num)
    some = max(1, BLOCK // width)
    parts = [slice(start, start + some) for start in range(0, num, some)]
    squares = np.concatenate([_squares(_as_float(references[part])) for part in parts])
    distances, indices = np.empty((len(images), count)), np.empty((len(images), count), np.int64)
    rows = max(1, BLOCK // max(num, count * width))
    for start in range(0, len(images), rows):
        block = _as_float(images[start : start + rows])
        products = [block @ _as_float(references[part]).T for part in parts]
        near = squares - 2 * np.concatenate(products, axis=1)  # [B, N], but for what is the same in each row
        found = np.argpartition(near, count - 1, axis=1)[:, :count]
        apart = np.subtract(block[:, None], references[found], dtype=np.float64)  # [B, K, D]: copies are 0 apart
        exact = np.sqrt(np.einsum("bkd,bkd->bk", apart, apart))
        order = np.argsort(exact, axis=1, kind="stable")
        distances[start : start + rows] = np.take_along_axis(exact, order, axis=1)
        indices[start : start + rows] = np.take_along_axis(found, order, axis=1)
    return Near(distances, indices, num)


def _as_float(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.float32) if rows.dtype == np.uint8 else rows


def _squares(rows: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", rows, rows)


def share_nearer(first: Near, second: Near) -> Share:
    """How often an image's nearest of the first references is nearer than its nearest of the second, among as many."""
    if first.num_references < second.num_references:
        other = share_nearer(second, first)
        return Share(1 - other.share, [1 - bound for bound in reversed(other.interval)])
    won = 1 - _missed(first.num_references, second.num_references)
    return _against_deals(first, second, lambda ahead: won[ahead].mean())


def share_nearest(first: Near, second: Near) -> Share:
    """How often an image's nearest reference is one of the first, each of these weighing as if there were as many.

    No reference stands aside: a copy counts whole however few of the references are its like, where among as many it
    counts only for the subsets that hold its original.
    """

    def weighed(ahead: np.ndarray) -> float:
        is_first = np.mean(ahead > 0)
        ours, theirs = is_first / first.num_references, (1 - is_first) / second.num_references
        return ours / (ours + theirs)

    return _against_deals(first, second, weighed)


def _against_deals(first: Near, second: Near, measure: Callable[[np.ndarray], float]) -> Share:
    """The measure and its interval; it is given how many first references [M] are nearer than any of the second."""
    num_first, num = first.num_references, first.num_references + second.num_references
    rng = np.random.default_rng(SEED)
    together = np.pad(_merged(first, second, rng), ((0, 0), (0, 1)), constant_values=num)  # each row ends with neither
    is_first, deals = np.arange(num + 1) < num_first, np.empty(NUM_DEALS)
    observed = float(measure(is_first[together].argmin(axis=1)))
    for index in range(NUM_DEALS):
        rng.shuffle(is_first[:-1])
        deals[index] = measure(is_first[together].argmin(axis=1))
    low, high = np.quantile(deals, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - 0.5
    return Share(observed, [float(np.clip(observed - bound, 0, 1)) for bound in (high, low)])


def _merged(first: Near, second: Near, rng: np.random.Generator) -> np.ndarray:
    """The nearest of both, numbered with the second after the first; equal distances in random order: int64 [M, K]."""
    distances = np.concatenate([first.distances, second.distances], axis=1)
    indices = np.concatenate([first.indices, first.num_references + second.indices], axis=1)
    order = np.lexsort((rng.random(distances.shape), distances), axis=1)[:, :COUNT]
    return np.take_along_axis(indices, order, axis=1)


def _missed(num: int, size: int) -> np.ndarray:
    """The probability that a random subset of ``size`` of ``num`` images holds none of k of them, k = 0, ..., num."""
    left = num - np.arange(num + 1)
    room = np.maximum(left - size, 0)
    logs = gammaln(left + 1) - gammaln(room + 1) + gammaln(num - size + 1) - gammaln(num + 1)
    return np.where(left < size, 0.0, np.exp(logs))
