"""Measure how useful the images are: train classifiers on them, test on real images.

Reads:   synthetic images (or the real training images, for the row to compare with) and real test images.
Writes:  the accuracy of each classifier, as a fraction.
Privacy: evaluation, not private: the numbers depend on the real test images without any noise.
Source:  Li et al. 2024. The last epoch counts: none is selected on test images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from privimage import cli
from privimage.artifacts import ImageSet, Provenance, sha256
from privimage.classifiers import inference
from privimage.classifiers.linear import logistic_accuracy, mlp_accuracy
from privimage.classifiers.resnet9 import ResNet9
from privimage.classifiers.training import Recipe, Trainer, initialised
from privimage.errors import UserError
from privimage.measurements import Accuracy
from privimage.schema import plain
from privimage.settings import AccuracySettings

VERSION = 1
PROTOCOL = "last-epoch"  # the epoch that counts
CNN_MOMENTUM, CNN_WEIGHT_DECAY = 0.9, 5e-4  # of the paper's evaluation


def run(
    train: ImageSet,
    test: ImageSet,
    settings: AccuracySettings,
    seed: int,
    provenance: Provenance,
) -> Accuracy:
    """The accuracy on ``test`` of every classifier in the settings, trained on ``train``.

    Raises:
        UserError: if there is only one class, or the two sets do not fit each other.
    """
    _check(train, test)
    measure: dict[str, Callable[[], float]] = {
        "logistic": lambda: logistic_accuracy(train, test, seed),
        "mlp": lambda: mlp_accuracy(train, test, seed),
        "cnn": lambda: cnn_accuracy(train, test, settings, seed),
    }
    classifiers = {name: _summary([measure[name]()]) for name in settings.classifiers}
    return Accuracy(
        classifiers=classifiers,
        mean_accuracy=float(np.mean([entry["mean"] for entry in classifiers.values()])),
        protocol=PROTOCOL,
        num_train=len(train.labels),
        num_test=len(test.labels),
        provenance=provenance,
    )


def cnn_accuracy(train: ImageSet, test: ImageSet, settings: AccuracySettings, seed: int) -> float:
    """Accuracy on ``test`` of a ResNet-9 after the last epoch on ``train``."""
    channels, num_classes = train.images.shape[3], len(train.class_names)
    network = initialised(lambda: ResNet9(settings.cnn_base_channels, channels, num_classes), seed)
    recipe = Recipe(
        num_epochs=settings.cnn_num_epochs,
        batch_size=settings.cnn_batch_size,
        learning_rate=settings.cnn_learning_rate,
        momentum=CNN_MOMENTUM,
        weight_decay=CNN_WEIGHT_DECAY,
        horizontal_flip=settings.horizontal_flip,
    )
    for _ in Trainer(network, train, recipe, seed).epochs("cnn"):
        pass
    return inference.accuracy(network, test)


def main() -> None:
    """Parse, read, run, write."""
    parser = cli.parser("accuracy", __doc__, AccuracySettings)
    parser.add_argument("--train", type=Path, required=True, help="synthetic images, or real ones to compare with")
    parser.add_argument("--test", type=Path, required=True, help="real test images")
    parser.add_argument("--seed", type=int, required=True, help="of initialisation and order")
    parser.add_argument("--result", type=Path, required=True, help="the accuracies (output)")
    args = parser.parse_args()
    settings = cli.settings_from(AccuracySettings, args.settings)
    # Nothing derived from real images is a parent, not even in a file that stays inside.
    parents = {} if "internal" in args.train.absolute().parts else {"train": sha256(args.train)}
    provenance = Provenance("accuracy", VERSION, {**plain(settings), "seed": args.seed}, parents)
    train, test = ImageSet.read(args.train), ImageSet.read(args.test)
    run(train, test, settings, args.seed, provenance).write(args.result)


def _check(train: ImageSet, test: ImageSet) -> None:
    if train.class_names != test.class_names or train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"training images have {len(train.class_names)} classes and shape "
            f"{list(train.images.shape[1:])}, test images {len(test.class_names)} and "
            f"{list(test.images.shape[1:])}; expected the same; give the images of one data set."
        )
    present = len(np.unique(train.labels))
    if present < 2:
        raise UserError(
            f"accuracy got training images of {present} class; expected at least 2; an unconditional set has "
            "no accuracy, so leave it out."
        )
    if not len(test.labels):
        raise UserError("accuracy got no test images; expected some; check the source's test split.")


def _summary(values: list[float]) -> dict:
    return {"values": values, "mean": float(np.mean(values)), "std": float(np.std(values))}


if __name__ == "__main__":
    cli.run(main)
