"""Ask the sensitive images, once and with noise, which public classes a public classifier sees in them.

Reads: the sensitive training images; the public classifier.
Writes: a noisy histogram of votes, sensitive classes by public classes.
Privacy: DP release. Each image adds 1 to exactly k cells of its class's row, whatever the classifier says of it, so
adding or removing one image changes k cells by 1 (root(k) in L2 norm), and replacing one changes at most 2k cells by 1
(root(2k)). Every cell, empty ones too, gets independent discrete Gaussian noise of parameter noise_multiplier times
root(k): k compositions of that mechanism with sensitivity 1. Nothing is rounded; noisy counts are whole numbers.
Source: Li et al. 2024 (PrivImage), the semantic distribution query; Canonne et al. 2020 for the mechanism.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import sqrt
from pathlib import Path

import numpy as np
from torch import nn

from privimage import cli
from privimage.artifacts import ImageSet, Provenance, QueryResult, Weights, sha256
from privimage.checkpoints import fingerprint
from privimage.classifiers.load import load_classifier
from privimage.classifiers.votes import histogram
from privimage.errors import UserError
from privimage.privacy.event import Event, noisy_votes
from privimage.privacy.ledger import Ledger
from privimage.privacy.mechanism import discrete_gaussian
from privimage.privacy.randomness import SecretKey
from privimage.schema import plain
from privimage.settings import Declared, QuerySettings

VERSION = 2


def run(
    images: ImageSet,
    classifier: nn.Module,
    public_class_names: Sequence[str],
    settings: QuerySettings,
    declared: Declared,
    key: SecretKey,
    provenance: Provenance,
) -> QueryResult:
    """The noisy histogram; its noise comes from the key alone. What is handed over was checked (``check``)."""
    _warn_of_the_unwise(len(images.labels), settings, declared)
    counts = histogram(images, classifier, len(public_class_names), settings.top_k)
    event = event_of(settings)
    noisy = discrete_gaussian(counts, event.noise_multiplier, key, "query")  # what is charged is what is drawn
    return QueryResult(
        histogram=noisy.astype(np.float64).tolist(),
        class_names=list(declared.class_names),
        public_class_names=list(public_class_names),
        top_k=settings.top_k,
        sensitivity=sqrt(settings.top_k),
        event=event,
        private=not declared.reproducible_noise,
        provenance=provenance,
    )


def event_of(settings: QuerySettings) -> Event:
    """What the accountant needs to know of the query."""
    return noisy_votes(settings.top_k, settings.noise_multiplier)


def check(images: ImageSet, public_class_names: Sequence[str], settings: QuerySettings, declared: Declared) -> None:
    """Return if the images, the classifier and what was declared fit together; to be asked before anything is charged.

    Raises:
        UserError: if they do not.
    """
    if images.class_names != declared.class_names:
        raise UserError(
            f"the images have the classes {list(images.class_names)}, declared are "
            f"{list(declared.class_names)}; rerun preprocess."
        )
    if settings.top_k > len(public_class_names):
        raise UserError(f"top_k is {settings.top_k}; expected at most the {len(public_class_names)} public classes.")


def _warn_of_the_unwise(num_images: int, settings: QuerySettings, declared: Declared) -> None:
    """Say so on standard error, which only the owner of the images reads."""
    if num_images != declared.num_images:
        print(
            f"warning: there are {num_images} images, declared are {declared.num_images}; the declared number counts.",
            file=sys.stderr,
        )
    noise = sqrt(settings.top_k) * settings.noise_multiplier
    per_class = declared.num_images / len(declared.class_names)
    if noise > per_class / 8:
        print(
            f"warning: noise of {noise:.0f} votes on {per_class:.0f} images a class hides much of what the query looks "
            "for; lower top_k or noise_multiplier.",
            file=sys.stderr,
        )


def main() -> None:
    """Parse, read, reserve, run, write; a query that was made before is restored and costs nothing."""
    parser = cli.parser("query", __doc__, QuerySettings)
    parser.add_argument("--dataset", required=True, help="name of the sensitive set, for the ledger")
    parser.add_argument("--images", type=Path, required=True, help="sensitive training images")
    parser.add_argument("--classifier", type=Path, required=True, help="public classifier")
    parser.add_argument("--declared", required=True, metavar="JSON", help="public constants of the sensitive set")
    parser.add_argument("--budget", type=cli.budget, help="epsilon of everything ever drawn from the set, or `none`")
    parser.add_argument("--state-dir", type=Path, required=True, help="keys and odometer; outlives results")
    parser.add_argument("--histogram", type=Path, required=True, help="output: the noisy histogram")
    args = parser.parse_args()
    settings = cli.settings_from(QuerySettings, args.settings)
    declared = cli.settings_from(Declared, args.declared, "--declared")
    images, weights = ImageSet.read(args.images), Weights.read(args.classifier, "classifier")
    facts = {  # what the draw depends on
        "dataset": args.dataset,
        "images": images.identity,
        "classifier": weights.identity,
        "settings": plain(settings),
        "class_names": list(declared.class_names),
        "version": VERSION,
    }
    label = f"query top_k {settings.top_k} noise_multiplier {settings.noise_multiplier:g}"
    ledger = Ledger(args.state_dir, args.dataset, declared, args.budget)
    with ledger.open("query", fingerprint(facts), label, facts) as release:
        if not release.finished:
            classifier, names = load_classifier(weights), weights.facts["class_names"]
            provenance = Provenance("query", VERSION, plain(settings), {"classifier": sha256(args.classifier)})
            check(images, names, settings, declared)
            release.reserve([event_of(settings)])
            result = run(images, classifier, names, settings, declared, release.key, provenance)
            release.finish({"query.json": result})
        release.copy_out({"query.json": args.histogram})


if __name__ == "__main__":
    cli.run(main)
