"""From images to features: in a fixed random order, the next batch made ready while the network works on one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from privimage.artifacts import ImageSet, Provenance
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
    index = fixed_order(len(images.labels))[:count]
    if len(index) < MINIMUM:
        raise UserError(f"{what}: there are {len(index)} to compare; expected at least {MINIMUM}.")
    size = network.batch_size
    batches = [index[i : i + size] for i in range(0, len(index), size)]
    moments: Moments | None = None
    done = 0
    prepared = ahead(lambda rows: network.prepare(images.images[rows]), batches)
    for x in progress(prepared, what, len(batches), images=size):
        with torch.inference_mode():
            found, scores = (None if part is None else part.float().cpu().numpy() for part in network.forward(x))
        if not np.isfinite(found).all():
            raise UserError(
                f"the network `{network.name}` gives features that are not finite ({what}); check its file."
            )
        if len(found) != len(x):
            raise UserError(
                f"the network `{network.name}` gives {len(found)} vectors for {len(x)} images ({what}); expected as "
                "many; check its file."
            )
        if moments is None:
            moments = Moments(found.shape[1])
            features = np.empty((len(index), found.shape[1]), np.float32)  # [N, D]
            logits = np.empty((len(index), 0 if scores is None else scores.shape[1]), np.float32)  # [N, K]
        moments.update(found)
        features[done : done + len(found)] = found
        if scores is not None:
            logits[done : done + len(found)] = scores
        done += len(found)
    return FeatureSet(
        network=network.name,
        network_sha256=network.sha256,
        resizing=network.resizing,
        features=features,
        logits=logits,
        labels=images.labels[index],
        index=index,
        mean=moments.mean,
        covariance=moments.covariance,
        class_names=images.class_names,
        provenance=provenance,
    )


def fixed_order(count: int) -> np.ndarray:
    """A permutation that depends on the number of images alone: int64 [count]."""
    return np.random.default_rng(ORDER_SEED).permutation(count)


def ahead(make: Callable[[np.ndarray], Item], batches: Sequence[np.ndarray]) -> Iterator[Item]:
    """What ``make`` gives for each batch; while one is used, a thread makes the next."""
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(make, batches[0])
        for batch in batches[1:]:
            ready, waiting = waiting.result(), thread.submit(make, batch)
            yield ready
        yield waiting.result()
