"""Pretrain the generator on the selected public images, each under the sensitive class it was selected for.

Reads: the public training images; the subset (which public classes for which sensitive class).
Writes: the pretrained model, raw and averaged weights.
Privacy: none of its own: public images, and post-processing of the noisy query.
Source: Li et al. 2024. With the policy ``whole`` (PDP-Diffusion) the public set's own labels are used;
with ``none`` (DPDM) the network is only initialised. What is trained, and how, is the generator's (``generators``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from privimage import cli
from privimage.artifacts import ImageSet, Provenance, Subset, Weights, sha256
from privimage.checkpoints import Checkpoint, fingerprint
from privimage.compute import DEFAULT, Compute
from privimage.distributed import ALONE, Group, joined
from privimage.errors import UserError
from privimage.generators import GENERATORS, check_processes, facts_of, settings_of
from privimage.generators.contract import Pretraining
from privimage.schema import plain
from privimage.settings import ComputeSettings, PretrainSettings

VERSION = 1


def selected(
    public: ImageSet, subset: Subset, class_names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Indices of the images to pretrain on, their new labels, and the labels' names.

    Raises:
        UserError: if the subset names a public class that the public set lacks.
    """
    if subset.policy == "none":
        return np.empty(0, np.int64), np.empty(0, np.int64), list(class_names)
    if subset.policy == "whole":
        single = len(class_names) == 1
        labels = np.zeros_like(public.labels) if single else public.labels
        return np.arange(len(labels)), labels, list(class_names if single else public.class_names)
    table = np.full(len(public.class_names), -1)  # public class -> sensitive class
    for label, name in enumerate(class_names):
        for chosen in subset.classes[name]:
            if chosen not in public.class_names:
                raise UserError(
                    f"the subset names the public class `{chosen}`, which the public set lacks; rerun select."
                )
            table[public.class_names.index(chosen)] = label
    index = np.flatnonzero(table[public.labels] >= 0)
    return index, table[public.labels[index]], list(class_names)


def run(
    public: ImageSet,
    subset: Subset,
    settings: Any,
    class_names: tuple[str, ...],
    seed: int,
    checkpoint: Checkpoint | None,
    provenance: Provenance,
    compute: Compute = DEFAULT,
    group: Group = ALONE,
    generator: str = "diffusion",
) -> Weights:
    """The pretrained (or only initialised) model."""
    index, labels, names = selected(public, subset, class_names)
    how = (settings, seed, checkpoint, compute, group)
    made = GENERATORS[generator].pretrain(Pretraining(public, index, labels, tuple(names), subset, class_names, *how))
    return Weights(made.kind, made.tensors, made.network, made.facts, provenance)


def main() -> None:
    """Run the stage from the command line."""
    parser = cli.parser("pretrain", __doc__, PretrainSettings)
    parser.add_argument("--seed", required=True, type=cli.seed, help="seed of initialisation and order of images")
    parser.add_argument("--public", required=True, type=Path, help="public training images")
    parser.add_argument("--subset", required=True, type=Path, help="selection of public classes")
    parser.add_argument("--class-names", type=cli.names, required=True, metavar="JSON", help="sensitive classes")
    parser.add_argument("--generator", choices=tuple(GENERATORS), default="diffusion", help="what is trained")
    parser.add_argument("--checkpoints", required=True, type=Path, help="folder of checkpoints")
    parser.add_argument("--weights", required=True, type=Path, help="output: the pretrained model")
    parser.add_argument("--compute", metavar="JSON", default="{}", help="precision and compilation")
    args = parser.parse_args()
    compute = Compute(cli.settings_from(ComputeSettings, args.compute, "--compute"))
    settings = cli.settings_from(settings_of(args.generator, "pretrain", PretrainSettings), args.settings)
    parents = {"public": sha256(args.public), "subset": sha256(args.subset)}
    facts = {**parents, "settings": plain(settings), "seed": args.seed, "version": VERSION}
    facts |= facts_of(args.generator)
    name = fingerprint({**facts, "class_names": list(args.class_names)})
    provenance = Provenance("pretrain", VERSION, {**plain(settings), "seed": args.seed}, parents)
    with joined() as group:
        check_processes(args.generator, group.size)
        checkpoint = Checkpoint(args.checkpoints / name, name) if group.leads else None
        public, subset = ImageSet.read(args.public), Subset.read(args.subset)
        how = (args.seed, checkpoint, provenance, compute, group, args.generator)
        made = run(public, subset, settings, args.class_names, *how)
        if group.leads:
            made.write(args.weights)
            checkpoint.remove()


if __name__ == "__main__":
    cli.run(main)
