"""Train the semantic query function: a classifier of the public images.

Reads:   the public training and validation images.
Writes:  the weights of the epoch that classifies the validation images best, and their accuracy.
Privacy: none; only public images are used.
Source:  Li et al. 2024.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import torch

from privimage import cli, stopping
from privimage.artifacts import ImageSet, Provenance, Weights, sha256
from privimage.checkpoints import Checkpoint, Every, fingerprint, flatten
from privimage.checkpoints import group as under
from privimage.classifiers.inference import accuracy
from privimage.classifiers.resnet import ResNet
from privimage.classifiers.training import FLOAT32, Recipe, Trainer, initialised
from privimage.compute import Compute
from privimage.data_parallel import is_due
from privimage.distributed import ALONE, Group, joined
from privimage.errors import UserError
from privimage.schema import plain
from privimage.settings import ClassifierSettings, ComputeSettings

VERSION = 1
SEED = 0  # the public row has no seed: every seed of every data set shares its classifier


def run(
    train: ImageSet,
    holdout: ImageSet,
    settings: ClassifierSettings,
    provenance: Provenance,
    checkpoint: Checkpoint | None,
    compute: Compute = FLOAT32,
    group: Group = ALONE,
    *,
    save_seconds: float = 60.0,
) -> Weights | None:
    """The classifier, trained; goes on from ``checkpoint``, which the leader has, as it alone has the result.

    In several processes the weights come out as in a single one up to rounding: batch normalisation sees whole batches.

    Raises:
        UserError: if the two sets do not fit each other, or the loss is no longer finite.
    """
    _check(train, holdout)
    shape = {"channels": train.images.shape[3], "num_classes": len(train.class_names)}
    network = initialised(lambda: ResNet(settings, **shape), SEED)
    recipe = Recipe(**{f.name: getattr(settings, f.name) for f in fields(Recipe)})
    trainer, every = Trainer(network, train, recipe, SEED, compute, group), Every(save_seconds)
    best, facts = _resume(trainer, checkpoint)

    def save_if_due() -> None:
        if is_due(every, group):
            if checkpoint:
                checkpoint.save({**trainer.tensors(), **flatten("best", best)}, {**facts, "step": trainer.step})
            group.check()

    with stopping.deferred():
        for epoch in trainer.epochs("classifier", within=save_if_due):
            score = _validated(network, holdout, group)
            if group.leads and score > facts["validation_accuracy"]:
                best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
                facts = {"epoch": epoch, "validation_accuracy": score}
            save_if_due()
    if not group.leads:
        return None
    return Weights(
        kind="classifier",
        tensors=flatten("raw", best),
        network={"settings": plain(settings), **shape, "resolution": train.images.shape[1]},
        facts={"class_names": list(train.class_names), **facts},
        provenance=provenance,
    )


def main() -> None:
    """Parse, read, run, write."""
    parser = cli.parser("classifier", __doc__, ClassifierSettings)
    parser.add_argument("--train", type=Path, required=True, help="public training images")
    parser.add_argument("--holdout", type=Path, required=True, help="public validation images")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder from which a stopped run goes on")
    parser.add_argument("--weights", type=Path, required=True, help="the classifier (output)")
    parser.add_argument("--compute", metavar="JSON", default="{}", help="precision")
    args = parser.parse_args()
    compute = Compute(cli.settings_from(ComputeSettings, args.compute, "--compute"))
    settings = cli.settings_from(ClassifierSettings, args.settings)
    parents = {"train": sha256(args.train), "holdout": sha256(args.holdout)}
    provenance = Provenance("classifier", VERSION, plain(settings), parents)
    name = fingerprint({"version": VERSION, "settings": plain(settings), **parents})
    with joined() as group:
        checkpoint = Checkpoint(args.checkpoints / name, name) if group.leads else None
        train, holdout = ImageSet.read(args.train), ImageSet.read(args.holdout)
        made = run(train, holdout, settings, provenance, checkpoint, compute, group)
        if group.leads:
            made.write(args.weights)
            checkpoint.remove()


def _check(train: ImageSet, holdout: ImageSet) -> None:
    for name, images in (("training", train), ("validation", holdout)):
        if not len(images.labels):
            raise UserError(f"the public {name} set is empty; expected images; check the source of the public set.")
    kinds = [(images.class_names, images.images.shape[1:]) for images in (train, holdout)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"the public training set has {len(kinds[0][0])} classes and shape {list(kinds[0][1])}, the "
            f"validation set {len(kinds[1][0])} and {list(kinds[1][1])}; expected the same classes and "
            "shape; rerun `preprocess`."
        )


def _validated(network: torch.nn.Module, holdout: ImageSet, group: Group) -> float:
    """The accuracy on all images, of which each process looks at a share."""
    if group.size == 1:
        return accuracy(network, holdout)
    count, part = len(holdout.labels), group.part(len(holdout.labels))
    share = replace(holdout, images=holdout.images[part], labels=holdout.labels[part])
    right = torch.zeros(1, dtype=torch.int64)
    if len(share.labels):
        right += round(accuracy(network, share) * len(share.labels))
    group.total(right)
    return int(right) / count


def _resume(trainer: Trainer, checkpoint: Checkpoint | None) -> tuple[dict, dict]:
    """The best weights so far and their facts, at the leader; the trainers stand where the checkpoint left them."""
    best, facts = {}, {"epoch": 0, "validation_accuracy": -1.0}
    saved = checkpoint.load() if checkpoint else None
    if saved:
        tensors, state = saved
        trainer.restore(tensors, state["step"])
        best, facts = under("best", tensors), {name: state[name] for name in facts}
    trainer.join()
    return best, facts


if __name__ == "__main__":
    cli.run(main)
