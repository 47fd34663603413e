"""Measure how useful the images are: train classifiers on them, test on real images.

Reads:   synthetic images (or the real training images, for the row to compare with) and real test images; with
         `noisy-validation` the sensitive training images and the release's privacy statement.
Writes:  the accuracy of each classifier, as a fraction, and whom it takes for whom.
Privacy: evaluation, not private: the numbers depend on the real test images without any noise. What `noisy-validation`
         learns from the sensitive images is a DP release all the same, since it decides which number people quote.
Source:  Li et al. 2024 (logistic, mlp, cnn). Gong et al. 2025, DPImageBench (wrn, resnet, resnext; the protocols).

`noisy-validation`: for each deep classifier, which epoch gets most of the sensitive training images right? After each
epoch the classifier is a function of synthetic images and a seed alone, and says of each image what depends on that
image alone; so one image more adds 0 or 1 to each epoch's count of right answers (0 to R, summed over R repetitions,
which share their epoch). That is what `privacy.mechanism.report_noisy_max` asks for: its answer costs
`validation_epsilon`, once a method, epsilon, seed and classifier. `finetune` composed these events with the query and
DP-SGD before it calibrated its noise, and the statement lists them; here they are charged before an image is looked at,
and drawn once.

The images are all sensitive training images. Classifiers learn from none of them, but the generator did: a part left
out of fine-tuning would be judged with less bias, at the price of a generator that has seen less, of counts that
drown in the noise earlier, and of every measurement beside this one that takes the training images for what the
generator saw. Composition is sequential over the whole set, so the guarantee needs no such part; and that the generator
is private bounds how much better its images suit those it saw (Dwork et al. 2015).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from privimage import cli
from privimage.artifacts import EpochChoice, ImageSet, PrivacyStatement, Provenance, sha256
from privimage.checkpoints import fingerprint
from privimage.classifiers import linear
from privimage.classifiers.deep import History, Shown, trained
from privimage.errors import UserError
from privimage.evaluation_settings import DEEP, AccuracySettings
from privimage.measurements import Accuracy
from privimage.privacy.event import Event, noisy_choice
from privimage.privacy.ledger import Ledger, Release
from privimage.privacy.mechanism import report_noisy_max
from privimage.schema import plain
from privimage.settings import Declared

VERSION = 2
NOISY = ("sensitive", "privacy", "dataset", "method", "epsilon", "declared", "state_dir")  # flags of this protocol
ORACLE = "oracle (selected on test images: not a valid result)"
REAL = "validation on held-out real images"  # of the row to compare with
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
    noisy: Validation | None = None,
) -> Accuracy:
    """The accuracy on ``test`` of every classifier in the settings, trained on ``train``.

    ``noisy`` is what `noisy-validation` chooses by. Real training images, to compare with, are no release that could
    pay: for them a part is held out, as by `synthetic-validation`.

    Raises:
        UserError: if there is only one class, or the two sets do not fit each other.
    """
    check(train, test)
    learnt, validation = (train, noisy) if noisy else _validation(train, test, settings, seed)
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
        num_train=len(learnt.labels),
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
    return rest, Validation("synthetic-validation" if train.is_synthetic else REAL, held, _best)


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
    return {n: np.stack([linear.predictions(m, x, train.labels, asked) for m in models[n]]) for n in wanted}


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


@contextmanager
def noisy_validation(
    args: argparse.Namespace, train: ImageSet, settings: AccuracySettings, provenance: Provenance
) -> Iterator[Validation]:
    """Validation by the sensitive training images, reserved before they are looked at; what was drawn is restored.

    Raises:
        UserError: if the release's statement does not hold these events, or the budget would be exceeded.
    """
    declared = cli.settings_from(Declared, args.declared, "--declared")
    sensitive = ImageSet.read(args.sensitive)
    check(train, sensitive)
    events = [noisy_choice(epsilon) for epsilon in settings.validation_epsilons]
    _check_paid(events, PrivacyStatement.read(args.privacy))
    facts = {  # what the draw depends on
        "images": sensitive.identity,
        "train": train.identity,
        "settings": decisive(settings),
        "epsilon": args.epsilon,
        "seed": args.seed,
        "method": args.method,
        "version": VERSION,
    }
    label = f"epochs of classifiers, {args.method} epsilon {args.epsilon:g} seed {args.seed}"
    ledger = Ledger(args.state_dir, args.dataset, declared, args.budget)
    with ledger.open("accuracy", fingerprint(facts), label, facts) as release:
        release.restore("epochs.json")  # a damaged one is told before hours of training
        if not release.finished:
            release.reserve(events)
        images = None if release.finished else sensitive
        yield Validation(settings.protocol, images, lambda correct: choose(correct, events, release, provenance))


def decisive(settings: AccuracySettings) -> dict[str, Any]:
    """The settings on which the choice of epochs depends: those of classifiers with epochs that are trained."""
    of_another = tuple(name for name in DEEP if name not in settings.deep)
    beside = ("classifiers", "validation_fraction")
    kept = {k: v for k, v in plain(settings).items() if k not in beside and k.split("_")[0] not in of_another}
    return {**kept, "deep": list(settings.deep)}


def choose(
    correct: Mapping[str, np.ndarray], events: Sequence[Event], release: Release, provenance: Provenance
) -> dict[str, list[int]]:
    """For each classifier the epoch that was chosen with the noise of its event, or is now: one for all repetitions.

    ``correct`` maps a classifier to its right answers, int64 [repetitions, epochs]. What is chosen is kept.
    """
    if not release.finished:
        drawn = {
            name: report_noisy_max(counts.sum(axis=0), len(counts), event.noise_multiplier, release.key, "epoch", index)
            for index, ((name, counts), event) in enumerate(zip(correct.items(), events, strict=True))
        }
        release.finish({"epochs.json": EpochChoice(drawn, provenance)})
    kept = EpochChoice.read(release.restore("epochs.json")).epochs
    return {name: [kept[name]] * len(counts) for name, counts in correct.items()}


def _check_paid(events: Sequence[Event], statement: PrivacyStatement) -> None:
    paid = [event for event in statement.events if event.mechanism == "report_noisy_max"]
    if paid != list(events):
        raise UserError(
            f"the privacy statement pays for {len(paid)} noisy choices, and these settings make {len(events)} (or of "
            "another validation_epsilon); rerun finetune with them."
        )


def main() -> None:
    """Parse, read, run, write."""
    args = _arguments()
    settings = cli.settings_from(AccuracySettings, args.settings)
    train, test = ImageSet.read(args.train), ImageSet.read(args.test)
    check(train, test)  # before anything is charged
    # Nothing derived from real images is a parent, not even in a file that stays inside.
    parents = {"train": sha256(args.train)} if train.is_synthetic else {}
    provenance = Provenance("accuracy", VERSION, {**plain(settings), "seed": args.seed}, parents)
    noisy = bool(settings.validation_epsilons) and train.is_synthetic
    if args.sensitive and not noisy:
        raise UserError(
            "--sensitive is given, and nothing will be chosen by it; it goes with synthetic images and the protocol "
            "`noisy-validation`."
        )
    if noisy and None in (given := [getattr(args, name) for name in NOISY]):
        missing = NOISY[given.index(None)].replace("_", "-")
        raise UserError(f"--{missing} is missing; the protocol `noisy-validation` needs it.")
    with noisy_validation(args, train, settings, provenance) if noisy else nullcontext() as validation:
        run(train, test, settings, args.seed, provenance, validation).write(args.result)


def _arguments() -> argparse.Namespace:
    parser = cli.parser("accuracy", __doc__, AccuracySettings)
    parser.add_argument("--train", type=Path, required=True, help="synthetic images, or real ones to compare with")
    parser.add_argument("--test", type=Path, required=True, help="real test images")
    parser.add_argument("--seed", type=cli.seed, required=True, help="of initialisation and order")
    parser.add_argument("--result", type=Path, required=True, help="the accuracies (output)")
    noisy = parser.add_argument_group("noisy-validation")
    noisy.add_argument("--sensitive", type=Path, help="sensitive training images")
    noisy.add_argument("--privacy", type=Path, help="the release's privacy statement")
    noisy.add_argument("--dataset", help="name of the sensitive set, for the ledger")
    noisy.add_argument("--method", help="row of the methods' table")
    noisy.add_argument("--epsilon", type=cli.positive, help="target of everything this method releases")
    noisy.add_argument("--declared", metavar="JSON", help="public constants of the sensitive set")
    noisy.add_argument("--state-dir", type=Path, help="keys and odometer; outlives results")
    noisy.add_argument("--budget", type=cli.budget, help="epsilon of everything ever drawn from the set, or `none`")
    return parser.parse_args()


def check(train: ImageSet, test: ImageSet) -> None:
    """Return if classifiers that are trained on the one can be tested on the other.

    Raises:
        UserError: if they cannot.
    """
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
