"""Attack the released model: does its loss tell the images it was trained on from images it never saw?

Reads:   the fine-tuned model, its privacy statement, real training and test images.
Writes:  the attack's area under the curve, true-positive rates at few false positives, and what the guarantee permits.
Privacy: evaluation, not private: the numbers depend on the real images without any noise.
Source:  Carlini et al. 2023 and Matsumoto et al. 2023 (loss at fixed noise levels); Carlini et al. 2022 (rates).

An image's score at a noise level is minus its loss there, with its own label, averaged over draws of noise that are
the same for all images. The scores of the levels are combined by the mean of their ranks among all images, a fixed
rule that looks at nobody's membership.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata

from privimage import cli
from privimage.artifacts import ImageSet, PrivacyStatement, Provenance, Weights, sha256
from privimage.compute import DEFAULT, Compute
from privimage.diffusion.denoiser import Denoiser, denoiser_from
from privimage.diffusion.images import Images
from privimage.diffusion.loss import NoisyBatch, per_image_loss
from privimage.diffusion.training import generator_for
from privimage.errors import UserError
from privimage.evaluation_settings import MembershipSettings
from privimage.measurements import Membership
from privimage.metrics.roc import area, curve, permitted, rate_at
from privimage.progress import progress
from privimage.schema import plain
from privimage.settings import ComputeSettings

VERSION = 2
SEED = 0  # of the images that are looked at, and of the noise
BATCH_SIZE = 512  # noisy images at once
RATES = {0.05: 0, 0.01: 1000, 0.001: 10_000}  # a false-positive rate and the non-members that it takes
NUM_POINTS = 201  # of the curve


def run(
    model: Denoiser,
    train: ImageSet,
    test: ImageSet,
    statement: PrivacyStatement,
    settings: MembershipSettings,
    provenance: Provenance,
    compute: Compute = DEFAULT,
) -> Membership:
    """The attack's success on as many training as test images.

    Raises:
        UserError: if there are fewer than two of either, or they are not of the model's shape and classes.
    """
    size = min(len(train.labels), len(test.labels), settings.num_images)
    _check(model, train, test, size)
    rng = np.random.default_rng(SEED)
    chosen = [np.sort(rng.choice(len(images.labels), size, replace=False)) for images in (train, test)]
    found = [losses(model, images, index, settings, compute) for images, index in zip((train, test), chosen)]
    ranks = rankdata(-np.concatenate(found), axis=0).mean(axis=1)  # [2 * size]
    members, others = ranks[:size], ranks[size:]
    auc, interval = area(members, others)
    tpr = {}
    for false_positives, needed in RATES.items():
        if size >= needed:
            rate, around = rate_at(members, others, false_positives)
            most = permitted(false_positives, statement.epsilon, statement.delta) if statement.private else None
            tpr[f"{false_positives:g}"] = {"rate": rate, "interval": around, "permitted": most}
    return Membership(
        auc=auc,
        auc_interval=interval,
        tpr=tpr,
        roc=curve(members, others, NUM_POINTS),
        auc_by_sigma={f"{s:g}": area(-found[0][:, i], -found[1][:, i])[0] for i, s in enumerate(settings.sigmas)},
        num_members=size,
        num_non_members=size,
        provenance=provenance,
    )


@torch.inference_mode()
def losses(
    model: Denoiser, images: ImageSet, index: np.ndarray, settings: MembershipSettings, compute: Compute
) -> np.ndarray:
    """The loss of each of the images at an index [N], at each noise level: float64 [N, levels].

    In float32 whatever the precision asked for: the rounding of bfloat16 would hide what little a loss betrays.
    """
    device, model = compute.device, compute.place(model).eval()
    loss, held = compute.compiled(per_image_loss), Images(images.images, images.labels, device)
    shape = (settings.num_draws, model.channels, model.resolution, model.resolution)
    noises = [torch.randn(shape, generator=generator_for(SEED, i)).to(device) for i in range(len(settings.sigmas))]
    found = np.empty((len(index), len(settings.sigmas)))
    step = max(1, BATCH_SIZE // settings.num_draws)
    starts = range(0, len(index), step)
    for start in progress(starts, "losses", len(starts), images=step):
        x, labels = held.at(torch.from_numpy(index[start : start + step]))
        for level, (sigma, noise) in enumerate(zip(settings.sigmas, noises)):
            levels = torch.full((len(x), settings.num_draws), sigma, device=device)
            batch = NoisyBatch(x, labels, levels, noise.expand(len(x), *noise.shape))
            found[start : start + step, level] = loss(model, batch).cpu().numpy()
    return found


def main() -> None:
    """Parse, read, run, write."""
    parser = cli.parser("membership", __doc__, MembershipSettings)
    parser.add_argument("--weights", type=Path, required=True, help="the fine-tuned model")
    parser.add_argument("--privacy", type=Path, required=True, help="its privacy statement")
    parser.add_argument("--train", type=Path, required=True, help="real images that it was trained on")
    parser.add_argument("--test", type=Path, required=True, help="real images that it never saw")
    parser.add_argument("--compute", metavar="JSON", default="{}", help="whether to compile")
    parser.add_argument("--result", type=Path, required=True, help="the measurement (output)")
    args = parser.parse_args()
    compute = Compute(cli.settings_from(ComputeSettings, args.compute, "--compute"))
    settings = cli.settings_from(MembershipSettings, args.settings)
    model = denoiser_from(Weights.read(args.weights, "diffusion"), "ema")
    parents = {"weights": sha256(args.weights), "privacy": sha256(args.privacy)}
    provenance = Provenance("membership", VERSION, plain(settings), parents)
    train, test = ImageSet.read(args.train), ImageSet.read(args.test)
    statement = PrivacyStatement.read(args.privacy)
    if statement.provenance.parents.get("weights") != parents["weights"]:
        raise UserError(f"{args.privacy} is the statement of another model than {args.weights}; give its own.")
    run(model, train, test, statement, settings, provenance, compute).write(args.result)


def _check(model: Denoiser, train: ImageSet, test: ImageSet, size: int) -> None:
    expected = [model.resolution, model.resolution, model.channels]
    for name, images in (("training", train), ("test", test)):
        shape, num_classes = list(images.images.shape[1:]), len(images.class_names)
        if shape != expected or num_classes != model.num_labels:
            raise UserError(
                f"membership got {name} images of shape {shape} in {num_classes} classes; expected {expected} in "
                f"{model.num_labels}, the model's; give the images of its data set."
            )
    if size < 2:
        raise UserError(
            f"membership got {len(train.labels)} training and {len(test.labels)} test images; expected at least 2 of "
            "either; raise preprocess.test_fraction if there are no test images."
        )


if __name__ == "__main__":
    cli.run(main)
