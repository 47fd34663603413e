"""Find out whether synthetic images are copies: are they nearer to training images than to unseen ones?

Reads:   synthetic images, real training and test images, the public classifier.
Writes:  the share of synthetic images nearer to training images with its interval, a control, duplicates, neighbours.
Privacy: evaluation, not private: the numbers depend on the real images without any noise.
Source:  Platzer & Reutterer 2021 (distances to the closest record, holdout as reference); Meehan et al. 2020.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest

from privimage import cli
from privimage.artifacts import ImageSet, Provenance, sha256
from privimage.errors import UserError
from privimage.evaluation_settings import MemorisationSettings
from privimage.measurements import Memorisation
from privimage.metrics.feature_networks import FeatureNetwork, classifier_network
from privimage.metrics.nearness import Near, Share, nearest, share_nearer, share_nearest
from privimage.progress import progress
from privimage.schema import plain

VERSION = 2
SEED = 0  # of the halves of the test set, and of the subsets whose distances are shown
CLOSEST = 20  # one synthetic image in so many is among the closest, and no fewer than so many
NUM_SHOWN, NUM_NEIGHBOURS = 10, 3
PERCENT = np.linspace(0, 1, 101)


def run(
    synthetic: ImageSet,
    train: ImageSet,
    test: ImageSet,
    network: FeatureNetwork | None,
    settings: MemorisationSettings,
    provenance: Provenance,
) -> Memorisation:
    """The shares, distances and neighbours in the features of the network; without one, of the pixels.

    Raises:
        UserError: if the images differ in shape, or there are too few real ones to compare with.
    """
    _check(synthetic, train, test)
    made = synthetic.images[: settings.num_images]
    x, seen, unseen = (features(images, network) for images in (made, train.images, test.images))
    to_train, to_test = nearest(x, seen), nearest(x, unseen)
    overall = share_nearer(to_train, to_test)
    rng = np.random.default_rng(SEED)
    half, rest = np.array_split(rng.permutation(len(unseen)), 2)
    size = min(len(seen), len(unseen))
    num_duplicates, copies = duplicates(made, train.images, test.images)
    some_seen, some_unseen = (rows[np.sort(rng.choice(len(rows), size, replace=False))] for rows in (seen, unseen))
    return Memorisation(
        feature_network=network.name if network else "pixels",
        closer_to_train=overall.share,
        interval=overall.interval,
        distances={
            "synthetic_to_train": _quantiles(nearest(x, some_seen, 1)),
            "synthetic_to_test": _quantiles(nearest(x, some_unseen, 1)),
            "test_to_train": _quantiles(nearest(some_unseen, some_seen, 1)),
        },
        nearest=_shown(to_train),
        num_synthetic=len(made),
        num_reference=size,
        provenance=provenance,
        closest=_closest(to_train, to_test),
        control=_entry(share_nearer(nearest(unseen[half], seen), nearest(unseen[half], unseen[rest])), len(half)),
        num_duplicates=num_duplicates,
        copies=copies,
        weighed=_entry(share_nearest(to_train, to_test), len(made)),
    )


def features(images: np.ndarray, network: FeatureNetwork | None) -> np.ndarray:
    """The features of all images, float32 [N, D]; without a network their bytes, uint8 [N, D]."""
    if network is None:
        return images.reshape(len(images), -1)
    found, starts = [], range(0, len(images), network.batch_size)
    for start in progress(starts, "features", len(starts), images=network.batch_size):
        with torch.inference_mode():
            rows, _ = network.forward(network.prepare(images[start : start + network.batch_size]))
        found.append(rows.float().cpu().numpy())
    return np.concatenate(found)


def duplicates(images: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[dict[str, int], dict[str, Any]]:
    """How many images equal a real one of either set in every pixel, and which of those are evidence of copying.

    Where two real images are equal, a third may be without any copying, as blank ones are: evidence are the real images
    that are the only one of their kind and that some image equals. If nothing is copied, each of them is a training
    image with the probability of any real image (a binomial test, one-sided).
    """
    made = Counter(map(_digest, images))
    kinds = Counter(map(_digest, train)), Counter(map(_digest, test))
    counts = [sum(made[digest] for digest in kind) for kind in kinds]
    single = [sum(kind[d] == 1 and not other[d] for d in made if d in kind) for kind, other in (kinds, kinds[::-1])]
    chance = len(train) / (len(train) + len(test))
    p_value = float(binomtest(single[0], sum(single), chance, "greater").pvalue) if sum(single) else 1.0
    copies = {"num_train": single[0], "num_test": single[1], "p_value": p_value}
    return {"train": counts[0], "test": counts[1]}, copies


def main() -> None:
    """Parse, read, run, write."""
    parser = cli.parser("memorisation", __doc__, MemorisationSettings)
    parser.add_argument("--synthetic", type=Path, required=True, help="synthetic images")
    parser.add_argument("--train", type=Path, required=True, help="real images that the generator was trained on")
    parser.add_argument("--test", type=Path, required=True, help="real images that it never saw")
    parser.add_argument("--classifier", type=Path, required=True, help="the public classifier")
    parser.add_argument("--result", type=Path, required=True, help="the measurement (output)")
    args = parser.parse_args()
    settings = cli.settings_from(MemorisationSettings, args.settings)
    parents = {"synthetic": sha256(args.synthetic)}  # nothing derived from real images is a parent
    if settings.feature_network == "classifier":
        network = classifier_network("classifier", args.classifier)
        parents["classifier"] = network.sha256
    else:
        network = None
    provenance = Provenance("memorisation", VERSION, plain(settings), parents)
    synthetic, train, test = (ImageSet.read(path) for path in (args.synthetic, args.train, args.test))
    run(synthetic, train, test, network, settings, provenance).write(args.result)


def _check(synthetic: ImageSet, train: ImageSet, test: ImageSet) -> None:
    shapes = [list(images.images.shape[1:]) for images in (synthetic, train, test)]
    if shapes[0] != shapes[1] or shapes[0] != shapes[2]:
        raise UserError(
            f"synthetic images have shape {shapes[0]}, training images {shapes[1]}, test images {shapes[2]}; "
            "expected the same; give the images of one data set."
        )
    counts = [len(images.labels) for images in (synthetic, train, test)]
    if counts[0] < 1 or counts[1] < 1 or counts[2] < 2:
        raise UserError(
            f"memorisation got {counts[0]} synthetic images, {counts[1]} training images and {counts[2]} test images; "
            "expected some of each, and 2 test images; raise preprocess.test_fraction if there are no test images."
        )


def _closest(to_train: Near, to_test: Near) -> dict[str, Any]:
    """The share among those synthetic images alone that are nearest to any real one."""
    distance = np.minimum(to_train.distances[:, 0], to_test.distances[:, 0])
    chosen = np.argsort(distance, kind="stable")[: max(CLOSEST, len(distance) // CLOSEST)]
    return _entry(share_nearest(to_train.of(chosen), to_test.of(chosen)), len(chosen))


def _entry(share: Share, num_images: int) -> dict[str, Any]:
    return {**asdict(share), "num_images": num_images}


def _shown(to_train: Near) -> list[dict[str, Any]]:
    order = np.argsort(to_train.distances[:, 0], kind="stable")[:NUM_SHOWN]
    return [
        {
            "synthetic": int(index),
            "train": to_train.indices[index, :NUM_NEIGHBOURS].tolist(),
            "distance": float(to_train.distances[index, 0]),
        }
        for index in order
    ]


def _quantiles(near: Near) -> list[float]:
    return np.quantile(near.distances[:, 0], PERCENT).tolist()


def _digest(image: np.ndarray) -> bytes:
    return blake2b(np.ascontiguousarray(image), digest_size=16).digest()


if __name__ == "__main__":
    cli.run(main)
