"""Audit the mechanism: train once more as the release was trained, with canaries, and count how many can be found.

Reads:   the sensitive training images, the pretrained model, the release's privacy statement.
Writes:  a lower bound on epsilon at 95 % confidence, beside what the statement claims of the training. Internal.
Privacy: evaluation, not private. The model, the keys and every gradient of this training end with the process and
    nothing of it leaves, so the ledger charges nothing. The counts that are written follow from noisy gradients of the
    real images: whoever hands them on owes this training's epsilon once more.
Source:  Steinke, Nasr & Jagielski 2023, arXiv 2305.08846.

Audited is DP-SGD as it runs, its sampling, noise and number of steps, against its own event in the statement. Not
audited are the query, and the clipping of images: canaries have norm C by construction. Since nothing of what is
audited depends on how an image's loss is averaged or its gradient damped before it is clipped, the images have one
noise level each here, whatever the release's number, and no damping, which takes less time. A bound far below the claim
is what a sound mechanism gives, since one run cannot show a large epsilon; a bound above the claim refutes it, and
comes up by chance in at most 5 % of runs.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from privimage import cli, private_training
from privimage.artifacts import ImageSet, PrivacyStatement, Provenance, Weights, sha256
from privimage.compute import Compute
from privimage.diffusion.denoiser import Denoiser
from privimage.errors import UserError
from privimage.evaluation_settings import AuditSettings
from privimage.measurements import Audit
from privimage.privacy import accounting, auditing
from privimage.privacy.canaries import Canaries, unkept_key
from privimage.privacy.event import Event
from privimage.private_training import Mechanism, starting_model
from privimage.schema import plain
from privimage.settings import ComputeSettings, Declared, FinetuneSettings

VERSION = 2
ADAPTERS_SEED = 0  # any: where adapters start is public and does not bear on what is audited


def run(
    model: Denoiser,
    images: ImageSet,
    mechanism: Mechanism,
    settings: AuditSettings,
    delta: float,
    provenance: Provenance,
) -> Audit:
    """What the guesses about the canaries of one training say; ``model`` is changed in place.

    Raises:
        UserError: if there are fewer canaries than guesses, or more than the model has coordinates.
    """
    if settings.num_guesses > settings.num_canaries:
        raise UserError(
            f"audit got {settings.num_canaries} canaries for {settings.num_guesses} guesses; expected at least as "
            "many; raise audit.num_canaries or lower audit.num_guesses."
        )
    trained, compute = replace(mechanism.settings, noise_levels_per_image=1, damped_directions=0), mechanism.compute
    event = Event("poisson_gaussian", mechanism.noise_multiplier, trained.sampling_probability, trained.num_steps)
    model = compute.place(model)
    canaries = Canaries(
        {name: p for name, p in model.named_parameters() if p.requires_grad},
        settings.num_canaries,
        event,
        clip_norm=trained.clip_norm,
        expected_batch_size=trained.sampling_probability * mechanism.num_images,
    )
    private_training.run(model, images, replace(mechanism, settings=trained, canaries=canaries))
    num_guesses = 2 * (settings.num_guesses // 2)
    num_correct = canaries.num_correct(num_guesses)
    return Audit(
        claimed_epsilon=accounting.epsilon([event], delta),
        delta=delta,
        lower_bound=auditing.lower_bound(
            num_correct, num_guesses=num_guesses, num_canaries=settings.num_canaries, delta=delta
        ),
        confidence=auditing.CONFIDENCE,
        num_canaries=settings.num_canaries,
        num_guesses=num_guesses,
        num_correct=num_correct,
        event=event.as_json(),
        provenance=provenance,
    )


def main() -> None:
    """Parse, read, run, write."""
    args = _arguments()
    settings = cli.settings_from(AuditSettings, args.settings)
    trained = cli.settings_from(FinetuneSettings, args.finetune, "--finetune")
    declared = cli.settings_from(Declared, args.declared, "--declared")
    compute = Compute(cli.settings_from(ComputeSettings, args.compute, "--compute"))
    parents = {"pretrained": sha256(args.pretrained), "privacy": sha256(args.privacy)}
    provenance = Provenance("audit", VERSION, plain(settings), parents)
    pretrained, images = Weights.read(args.pretrained, "diffusion"), ImageSet.read(args.images)
    statement = PrivacyStatement.read(args.privacy)
    event = _training(statement, trained, parents["pretrained"])
    model = starting_model(pretrained, declared, images, trained, ADAPTERS_SEED)
    mechanism = Mechanism(trained, event.noise_multiplier, declared.num_images, unkept_key(), compute)
    run(model, images, mechanism, settings, statement.delta, provenance).write(args.result)


def _training(statement: PrivacyStatement, trained: FinetuneSettings, pretrained: str) -> Event:
    """The statement's event of DP-SGD.

    Raises:
        UserError: if it is of another training than the one that the other files describe.
    """
    (event,) = [event for event in statement.events if event.mechanism == "poisson_gaussian"]
    described = Event("poisson_gaussian", event.noise_multiplier, trained.sampling_probability, trained.num_steps)
    if event != described or statement.provenance.parents.get("pretrained") != pretrained:
        raise UserError(
            f"--privacy states {event.num_steps} steps with probability {event.sampling_probability:g} after one "
            f"pretraining; --finetune and --pretrained describe {described.num_steps} with "
            f"{described.sampling_probability:g} or another one; give the files of one release."
        )
    return event


def _arguments() -> argparse.Namespace:
    parser = cli.parser("audit", __doc__, AuditSettings)
    parser.add_argument("--images", required=True, type=Path, help="sensitive training images")
    parser.add_argument("--pretrained", required=True, type=Path, help="the release's pretrained model")
    parser.add_argument("--privacy", required=True, type=Path, help="the release's privacy statement")
    parser.add_argument("--finetune", required=True, metavar="JSON", help="settings of the release's fine-tuning")
    parser.add_argument("--declared", required=True, metavar="JSON", help="public constants of the sensitive set")
    parser.add_argument("--compute", metavar="JSON", default="{}", help="precision, microbatch and the like")
    parser.add_argument("--result", required=True, type=Path, help="the measurement (output)")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
