"""Pretrain the diffusion model on the selected public images, each under the sensitive class it was selected for.

Reads: the public training images; the subset (which public classes for which sensitive class).
Writes: the pretrained model, raw and averaged weights.
Privacy: none of its own: public images, and post-processing of the noisy query.
Source: Li et al. 2024. With the policy ``whole`` (PDP-Diffusion) the public set's own labels are used;
with ``none`` (DPDM) the network is only initialised.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from privimage import cli
from privimage.artifacts import ImageSet, Provenance, Subset, Weights, sha256
from privimage.checkpoints import Checkpoint, fingerprint, flatten
from privimage.compute import DEFAULT, Compute
from privimage.diffusion.denoiser import new_denoiser
from privimage.diffusion.training import train
from privimage.distributed import ALONE, Group, joined
from privimage.errors import UserError
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
    settings: PretrainSettings,
    class_names: tuple[str, ...],
    seed: int,
    checkpoint: Checkpoint | None,
    provenance: Provenance,
    compute: Compute = DEFAULT,
    group: Group = ALONE,
) -> Weights:
    """The pretrained (or only initialised) model; in several processes the same up to rounding."""
    index, labels, names = selected(public, subset, class_names)
    resolution, channels = public.images.shape[2:]
    model = compute.place(new_denoiser(settings.network, resolution, channels, len(names), seed))
    ema = model
    if len(index):
        ema = train(model, public.images, index, torch.from_numpy(labels), settings, seed, checkpoint, compute, group)
    return Weights(
        kind="diffusion",
        tensors={**flatten("raw", model.state_dict()), **flatten("ema", ema.state_dict())},
        network=model.describe(),
        facts={"class_names": names, "policy": subset.policy, "num_images": len(index)},
        provenance=provenance,
    )


def main() -> None:
    """Run the stage from the command line."""
    parser = cli.parser("pretrain", __doc__, PretrainSettings)
    parser.add_argument("--seed", required=True, type=int, help="seed of initialisation and of the order of images")
    parser.add_argument("--public", required=True, type=Path, help="public training images")
    parser.add_argument("--subset", required=True, type=Path, help="selection of public classes")
    parser.add_argument("--class-names", type=cli.names, required=True, metavar="JSON", help="sensitive classes")
    parser.add_argument("--checkpoints", required=True, type=Path, help="folder of checkpoints")
    parser.add_argument("--weights", required=True, type=Path, help="output: the pretrained model")
    parser.add_argument("--compute", metavar="JSON", default="{}", help="precision and compilation")
    args = parser.parse_args()
    compute = Compute(cli.settings_from(ComputeSettings, args.compute, "--compute"))
    settings = cli.settings_from(PretrainSettings, args.settings)
    parents = {"public": sha256(args.public), "subset": sha256(args.subset)}
    facts = {**parents, "settings": plain(settings), "seed": args.seed, "version": VERSION}
    name = fingerprint({**facts, "class_names": list(args.class_names)})
    provenance = Provenance("pretrain", VERSION, {**plain(settings), "seed": args.seed}, parents)
    with joined() as group:
        checkpoint = Checkpoint(args.checkpoints / name, name) if group.leads else None
        public, subset = ImageSet.read(args.public), Subset.read(args.subset)
        made = run(public, subset, settings, args.class_names, args.seed, checkpoint, provenance, compute, group)
        if group.leads:
            made.write(args.weights)
            checkpoint.remove()


if __name__ == "__main__":
    cli.run(main)
