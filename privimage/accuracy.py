"""Measure how useful the images are: train classifiers on them, test on real images.

Reads:   synthetic images (or the real training images, for the row to compare with) and real test images.
Writes:  the accuracy of each classifier, as a fraction, and whom it takes for whom.
Privacy: evaluation, not private: the numbers depend on the real test images without any noise.
Source:  Li et al. 2024 (logistic, mlp, cnn). Gong et al. 2025, DPImageBench (wrn, resnet, resnext; the protocols).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from privimage import cli
from privimage.artifacts import ImageSet, Provenance, sha256
from privimage.classifiers import linear
from privimage.classifiers.deep import History, Shown, trained
from privimage.errors import UserError
from privimage.measurements import Accuracy
from privimage.schema import plain
from privimage.settings import AccuracySettings

VERSION = 2
ORACLE = "oracle (selected on test images: not a valid result)"
Choose = Callable[[Mapping[str, np.ndarray]], Mapping[str, Sequence[int]]]


@dataclass(frozen=True)
class Validation:
    """What decides which epoch counts.

    ``images`` are those that each epoch is asked about. ``choose`` maps the numbers of their right answers, int64
    [repetitions, epochs] of each deep classifier, to one epoch a repetition, counted from 0.
    """

    protocol: str
    images: ImageSet | None
    choose: Choose
    every_epoch: bool = True  # or the last alone


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
    learnt, validation = _validation(train, test, settings, seed)
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(settings.repetitions)]
    predicted = _plain_predictions(train, test, settings, seeds)  # name -> [repetitions, test images]
    chosen, deep = _deep_predictions(learnt, validation, test, settings, seeds)
    predicted |= deep
    classifiers = {name: _summary(predicted[name], test.labels) for name in dict.fromkeys(settings.classifiers)}
    for name, epochs in chosen.items():
        classifiers[name]["epochs"] = epochs
    return Accuracy(
        classifiers=classifiers,
        mean_accuracy=float(np.mean([entry["mean"] for entry in classifiers.values()])),
        protocol=validation.protocol,
        num_train=len(train.labels),
        num_test=len(test.labels),
        provenance=provenance,
        confusion={name: confusion(predicted[name], test.labels, len(test.class_names)) for name in classifiers},
    )


def confusion(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> list[list[int]]:
    """Test images by class and predicted class, summed over repetitions. Shapes: [R, N], [N] -> [classes, classes]."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (np.broadcast_to(labels, predicted.shape), predicted), 1)
    return counts.tolist()


def held_out(images: ImageSet, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """The images in two parts, at random: those that are learnt from, and those held out; neither is empty."""
    order = np.random.default_rng(seed).permutation(len(images.labels))
    count = min(max(round(fraction * len(order)), 1), len(order) - 1)
    parts = np.sort(order[count:]), np.sort(order[:count])
    rest, held = (replace(images, images=images.images[part], labels=images.labels[part]) for part in parts)
    return rest, held


def _validation(train: ImageSet, test: ImageSet, settings: AccuracySettings, seed: int) -> tuple[ImageSet, Validation]:
    """The images that deep classifiers learn from, and what chooses their epoch."""
    if settings.protocol == "last-epoch":
        return train, Validation(settings.protocol, None, _best, every_epoch=False)
    if settings.protocol == "oracle":
        return train, Validation(ORACLE, test, _best)
    rest, held = held_out(train, settings.validation_fraction, seed)
    return rest, Validation("synthetic-validation", held, _best)


def _best(correct: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    """Of each training its best epoch, the first of several."""
    return {name: counts.argmax(axis=1).tolist() for name, counts in correct.items()}


def _plain_predictions(
    train: ImageSet, test: ImageSet, settings: AccuracySettings, seeds: Sequence[int]
) -> dict[str, np.ndarray]:
    """What the classifiers without epochs say: name -> [repetitions, test images]. A logistic regression has one."""
    wanted = [name for name in ("logistic", "mlp") if name in settings.classifiers]
    if not wanted:
        return {}
    x, asked = linear.flattened(train.images), linear.flattened(test.images)  # once for both
    models = {"logistic": [linear.logistic()], "mlp": [linear.mlp(seed) for seed in seeds]}
    return {name: np.stack([model.fit(x, train.labels).predict(asked) for model in models[name]]) for name in wanted}


def _deep_predictions(
    train: ImageSet, validation: Validation, test: ImageSet, settings: AccuracySettings, seeds: Sequence[int]
) -> tuple[dict[str, list[int]], dict[str, np.ndarray]]:
    """Of each deep classifier the epochs that count, from 1, and what it says then: [repetitions, test images]."""
    if not settings.deep:
        return {}, {}
    asked = Shown.of(test)
    seen = asked if validation.images is test else validation.images and Shown.of(validation.images)
    histories: dict[str, list[History]] = {
        name: [trained(name, train, seen, asked, settings, seed, validation.every_epoch) for seed in seeds]
        for name in settings.deep
    }
    chosen = validation.choose({name: np.stack([h.correct for h in each]) for name, each in histories.items()})
    counting = {name: list(zip(each, chosen[name], strict=True)) for name, each in histories.items()}
    epochs = {name: [history.epochs[index] for history, index in each] for name, each in counting.items()}
    return epochs, {name: np.stack([h.predicted[index] for h, index in each]) for name, each in counting.items()}


def _summary(predicted: np.ndarray, labels: np.ndarray) -> dict:
    """Accuracy of each repetition; their mean and sample standard deviation, 0 where there is one."""
    values = (predicted == labels).mean(axis=1)
    return {
        "values": values.tolist(),
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
    }


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


if __name__ == "__main__":
    cli.run(main)
