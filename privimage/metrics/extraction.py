"""From images to features: in a fixed random order, the next batch made ready while the network works on one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from privimage.artifacts import ImageSet, Provenance
from privimage.distributed import ALONE, Group
from privimage.errors import UserError
from privimage.feature_sets import FeatureSet
from privimage.metrics.feature_networks import FeatureNetwork
from privimage.metrics.frechet import Moments
from privimage.progress import progress

ORDER_SEED = 0
MINIMUM = 2  # images, for a covariance

Item = TypeVar("Item")


def extract(
    network: FeatureNetwork, images: ImageSet, count: int | None, what: str, provenance: Provenance | None = None
) -> FeatureSet:
    """Features of the first ``count`` images of the fixed order (all, if there are fewer), or of all.

    Raises:
        UserError: if there are fewer than two, or the network cannot take them.
    """
    index = chosen(images, count, what)
    return gathered(network, images, index, looked_at(network, images, index, what), provenance)


def chosen(images: ImageSet, count: int | None, what: str) -> np.ndarray:
    """The first ``count`` images of the fixed order, or all.

    Raises:
        UserError: if there are fewer than two.
    """
    index = fixed_order(len(images.labels))[:count]
    if len(index) < MINIMUM:
        raise UserError(f"{what}: there are {len(index)} to compare; expected at least {MINIMUM}.")
    return index


def looked_at(
    network: FeatureNetwork, images: ImageSet, index: np.ndarray, what: str, first: int = 0, group: Group = ALONE
) -> Iterator[Tensor]:
    """What the network gives for the images at ``index`` from the first on, batch by batch, as ``packed`` rows.

    Raises:
        UserError: if the network cannot take them.
    """
    size = network.batch_size
    batches = [index[i : i + size] for i in range(first, len(index), size)]
    prepared = ahead(lambda rows: network.prepare(images.images[rows]), batches[group.rank :: group.size])
    rows = group.each(lambda _: _row_each(network, next(prepared), what), batches)
    yield from progress(rows, what, -(-len(index) // size), -(-first // size), size) if group.leads else rows


def _row_each(network: FeatureNetwork, x: Tensor, what: str) -> Tensor:
    with torch.inference_mode():
        found, scores = (None if part is None else part.float().cpu() for part in network.forward(x))
    if not torch.isfinite(found).all():
        raise UserError(f"the network `{network.name}` gives features that are not finite ({what}); check its file.")
    if len(found) != len(x):
        raise UserError(
            f"the network `{network.name}` gives {len(found)} vectors for {len(x)} images ({what}); expected as "
            "many; check its file."
        )
    return packed(found, found[:, :0] if scores is None else scores)


def packed(features: Tensor, logits: Tensor) -> Tensor:
    """Features [n, D] and logits [n, K] in one tensor, as they travel and are kept: float32 [n, 1 + D + K]."""
    return torch.cat([torch.full((len(features), 1), float(features.shape[1])), features, logits], 1)


def unpacked(rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, D] and logits [n, K] of packed rows."""
    width = 1 + int(rows[0, 0])
    return rows[:, 1:width].numpy(), rows[:, width:].numpy()


def gathered(
    network: FeatureNetwork,
    images: ImageSet,
    index: np.ndarray,
    stretches: Iterable[Tensor],
    provenance: Provenance | None = None,
    *,
    is_share: bool = False,
) -> FeatureSet:
    """The features of the images at ``index`` from stretches of packed rows, each of whole batches; of a share of
    them without moments.
    """
    moments: Moments | None = None
    done = 0
    for rows in stretches:
        found, scores = unpacked(rows)
        if moments is None:
            moments = Moments(found.shape[1])
            features = np.empty((len(index), found.shape[1]), np.float32)  # [N, D]
            logits = np.empty((len(index), scores.shape[1]), np.float32)  # [N, K]
        for start in range(0, 0 if is_share else len(found), network.batch_size):
            moments.update(found[start : start + network.batch_size])
        features[done : done + len(found)] = found
        logits[done : done + len(found)] = scores
        done += len(found)
    if moments is None:  # of a share without images
        features, logits = np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)
    return FeatureSet(
        network=network.name,
        network_sha256=network.sha256,
        resizing=network.resizing,
        features=features,
        logits=logits,
        labels=images.labels[index],
        index=index,
        mean=np.zeros(0) if is_share else moments.mean,
        covariance=np.zeros((0, 0)) if is_share else moments.covariance,
        class_names=images.class_names,
        provenance=provenance,
    )


def fixed_order(count: int) -> np.ndarray:
    """A permutation that depends on the number of images alone: int64 [count]."""
    return np.random.default_rng(ORDER_SEED).permutation(count)


def ahead(make: Callable[[np.ndarray], Item], batches: Sequence[np.ndarray]) -> Iterator[Item]:
    """What ``make`` gives for each batch; while one is used, a thread makes the next."""
    if not batches:
        return
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(make, batches[0])
        for batch in batches[1:]:
            ready, waiting = waiting.result(), thread.submit(make, batch)
            yield ready
        yield waiting.result()
