"""Fine-tune the diffusion model on the sensitive images with DP-SGD, its noise calibrated from the ledger it is handed.

Reads: the sensitive training images; the pretrained model; the noisy query's cost, if the method releases a query;
what will be spent on choosing classifiers' epochs with these images, if it will.
Writes: the private model; the privacy statement; the training curve (internal: it is computed from sensitive images).
Privacy: DP release. Each step adds Gaussian noise to a sum of per-image gradients clipped to C, over a Poisson sample;
adding or removing one image moves that sum by at most C. The averaged weights are post-processing.
Source: Li et al. 2024 (query and DP-SGD in one budget); Dockhorn et al. 2023 (K noise levels an image).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from privimage import cli, heartbeat
from privimage.artifacts import ImageSet, Provenance, QueryResult, Subset, Weights, sha256
from privimage.checkpoints import Checkpoint, Every, fingerprint, flatten
from privimage.compute import DEFAULT, Compute
from privimage.diffusion.denoiser import Denoiser, adopt_labels, denoiser_from
from privimage.diffusion.ema import averaged
from privimage.diffusion.images import Images
from privimage.diffusion.keyed_noise import keyed_noise
from privimage.diffusion.loss import NoisyBatch, per_image_loss
from privimage.diffusion.training import restore_training, training_tensors
from privimage.errors import UserError
from privimage.measurements import Curve
from privimage.memory import bytes_kept, images_that_fit, smaller
from privimage.privacy import accounting
from privimage.privacy.dpsgd import clipped_gradient_sum, noisy_mean, poisson_sample
from privimage.privacy.event import Event, noisy_choice
from privimage.privacy.ledger import Ledger, Release
from privimage.privacy.randomness import SecretKey
from privimage.progress import progress
from privimage.schema import plain
from privimage.settings import ComputeSettings, Declared, FinetuneSettings

VERSION = 2
SAVE_SECONDS = 60.0
COLUMNS = ("step", "loss", "images")
Losses = Callable[[Denoiser, NoisyBatch], Tensor]


@dataclass(frozen=True)
class Mechanism:
    """Everything that one DP-SGD step depends on besides the images and the weights."""

    settings: FinetuneSettings
    noise_multiplier: float
    num_images: int  # declared, a public constant: the divisor is the expected batch size, never the drawn one
    key: SecretKey
    compute: Compute = DEFAULT


def run(
    model: Denoiser, images: ImageSet, mechanism: Mechanism, release: Release | None = None
) -> tuple[Denoiser, Denoiser, Curve]:
    """The model after all steps, the average of its weights, and the curve; ``model`` is changed in place.

    With a ``release``, each step is reserved before sensitive images are read for it, and the run resumes: from its
    last checkpoint where the same steps can be replayed with the same draws, else past every step that was reserved,
    which then count among the declared number without having been taken.
    """
    settings, compute = mechanism.settings, mechanism.compute
    model = compute.place(model)
    ema = averaged(model, settings.ema_decay)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=compute.device.type == "cuda")
    data = Images(images.images, images.labels, compute.device)
    losses = compute.compiled(per_image_loss)
    saves = Saves(release, mechanism) if release else None
    start, rows, size = 0, [], None
    if saves:
        start, rows, size = saves.resume(model, ema, optimizer, lambda: microbatch_size(model, mechanism))
    size = size or microbatch_size(model, mechanism)
    expected = settings.sampling_probability * mechanism.num_images
    for step in progress(range(start, settings.num_steps), "finetune", settings.num_steps, start, expected):
        if release:
            release.reserve_step(step)
        while True:
            try:
                rows.append(_step(model, optimizer, losses, data, mechanism, size, step))
                break
            except (RuntimeError, MemoryError) as error:  # the step has changed nothing yet, and draws the same again
                size = smaller(size, error)
                if saves:  # before the step is taken: a replay must not begin with the larger size
                    saves.save(step, model, ema, optimizer, rows, size)
        ema.update_parameters(model)
        if saves and saves.every.due():
            saves.save(step + 1, model, ema, optimizer, rows, size)
    return model, ema.module, Curve(COLUMNS, tuple(rows))


class Saves:
    """The checkpoint of one release, and the step to go on from."""

    def __init__(self, release: Release, mechanism: Mechanism) -> None:
        self.release, self.every, self.num_steps = release, Every(SAVE_SECONDS), mechanism.settings.num_steps
        self.checkpoint = Checkpoint(release.folder / "checkpoint", release.fingerprint, shown=release.folder.parent)
        self.asked = mechanism.compute.settings.microbatch_size  # None: to be found, or as it was
        # What must be the same for replayed steps to come out the same, besides weights, draws and the microbatch.
        self.environment = {"key": mechanism.key.identity, **mechanism.compute.describe()}

    def save(
        self, step: int, model: Denoiser, ema: torch.nn.Module, optimizer: torch.optim.Adam, rows: list, size: int
    ) -> None:
        """The state after ``step`` steps, and the microbatch of those that follow, are on the disk."""
        state = {"step": step, "curve": [list(row) for row in rows], "environment": self.environment}
        state |= {"microbatch_size": size, "asked": self.asked}
        self.checkpoint.save(training_tensors(model, ema, optimizer), state)

    def resume(
        self, model: Denoiser, ema: torch.nn.Module, optimizer: torch.optim.Adam, find_size: Callable[[], int]
    ) -> tuple[int, list, int]:
        """The step to go on from, the curve up to there, the microbatch; model and the like are as they were then."""
        saved, kept, rows = self.checkpoint.load(), 0, []
        if saved:
            tensors, state = saved
            restore_training(tensors, model, ema, optimizer)
            kept, rows, size = state["step"], [tuple(row) for row in state["curve"]], state["microbatch_size"]
            if state["environment"] == self.environment and self.asked in (None, size, state["asked"]):
                return kept, rows, size
        # What was reserved since then cannot be replayed: skip it, and on the disk before anything new is drawn.
        start = max(kept, self.release.reserved_steps)
        self._tell(kept, start)
        size = find_size()
        self.save(start, model, ema, optimizer, rows, size)
        return start, rows, size

    def _tell(self, kept: int, start: int) -> None:
        """Say what is lost; refuse if nothing would be left.

        Raises:
            UserError: if every step was reserved and none survives.
        """
        if kept == 0 and start >= self.num_steps:
            raise UserError(
                f"all {start} steps were reserved before a crash and none can be replayed; delete the release's folder "
                f"in {self.release.folder.parent} (the odometer names it) to draw anew, which is charged again."
            )
        if start > kept:
            print(
                f"warning: {start - kept} of {self.num_steps} steps were reserved before a crash and cannot be "
                "replayed (other key, microbatch size, precision, engine, threads, device or library); they count and "
                "are skipped.",
                file=sys.stderr,
            )


def microbatch_size(model: Denoiser, mechanism: Mechanism) -> int:
    """Images to compute at once: as declared, or as many as fit, by a trial with a single blank one."""
    if mechanism.compute.settings.microbatch_size:
        return mechanism.compute.settings.microbatch_size
    settings, compute = mechanism.settings, mechanism.compute
    levels, shape = settings.noise_levels_per_image, (model.channels, model.resolution, model.resolution)
    with compute.device:
        label = torch.zeros(1, dtype=torch.int64)
        batch = NoisyBatch(torch.zeros(1, *shape), label, torch.ones(1, levels), torch.zeros(1, levels, *shape))
    with compute.autocast():
        kept = bytes_kept(lambda: per_image_loss(model, batch))
    # One gradient an image, in float32, and its copy while it is masked.
    each = kept + 2 * 4 * sum(p.numel() for p in model.parameters())
    each *= levels if compute.settings.engine == "opacus" else 1
    expected = math.ceil(settings.sampling_probability * mechanism.num_images)
    return images_that_fit(each * compute.workers, compute.device, math.ceil(expected / compute.workers))


def _step(
    model: Denoiser,
    optimizer: torch.optim.Adam,
    losses: Losses,
    data: Images,
    mechanism: Mechanism,
    microbatch: int,
    step: int,
) -> tuple[float, float, float]:
    """One step of DP-SGD; returned is a row of the curve, which stays internal."""
    settings, compute = mechanism.settings, mechanism.compute
    index = poisson_sample(len(data.labels), settings.sampling_probability, mechanism.key, step)

    def losses_of(part: slice) -> Tensor:
        batch = draw_batch(data, index[part], settings, model.num_labels, mechanism.key, step)
        with compute.autocast():
            return losses(model, batch)

    total, values = clipped_gradient_sum(
        model,
        losses_of,
        len(index),
        copies=settings.noise_levels_per_image,
        clip_norm=settings.clip_norm,
        microbatch_size=microbatch,
        engine=compute.settings.engine,
        workers=compute.workers,
    )
    gradient = noisy_mean(
        total,
        noise_multiplier=mechanism.noise_multiplier,
        clip_norm=settings.clip_norm,
        expected_batch_size=settings.sampling_probability * mechanism.num_images,
        key=mechanism.key,
        step=step,
    )
    for name, parameter in model.named_parameters():
        parameter.grad = torch.empty_like(parameter).copy_(gradient[name])  # laid out as the weights are
    optimizer.step()
    return step, values.mean().item() if len(values) else 0.0, len(values)


def draw_batch(
    data: Images, index: np.ndarray, settings: FinetuneSettings, no_label: int, key: SecretKey, step: int
) -> NoisyBatch:
    """The images at ``index`` with their diffusion noise, keyed by image and step: a replay draws the same."""
    rows = torch.from_numpy(index).to(data.device)
    return keyed_noise(
        *data.at(rows),
        rows,
        levels=settings.noise_levels_per_image,
        P_mean=settings.P_mean,
        P_std=settings.P_std,
        label_dropout=settings.label_dropout,
        no_label=no_label,
        key=key.seed("diffusion", step),
    )


def paid_query(releases: Sequence[str], query: QueryResult | None, declared: Declared) -> list[Event]:
    """The events that this method's release contains before fine-tuning.

    Raises:
        UserError: if the method declares a query and none was handed over, or the reverse, or its noise is no secret.
    """
    if ("query" in releases) != (query is not None):
        wanted = "a query" if "query" in releases else "no query"
        raise UserError(f"the method declares {wanted}, and --query {'is missing' if query is None else 'was given'}.")
    if query and not query.private and not declared.reproducible_noise:
        raise UserError("the query's noise is reproducible, so it is not private; draw it anew without that setting.")
    return [query.event] if query else []


def check_lineage(pretrained: Weights, subset: Subset, hashes: Mapping[str, str]) -> None:
    """Return if the query that is paid for is the one that chose the public data behind the pretrained model.

    ``hashes`` are those of the files handed over: ``subset``, and ``query`` if there is one.

    Raises:
        UserError: if the model was pretrained on another subset, or the subset made from another query or none.
    """
    if pretrained.provenance.parents.get("subset") != hashes["subset"]:
        raise UserError("the pretrained model was made from another --subset; give the one that it was pretrained on.")
    if subset.provenance.parents.get("query") != hashes.get("query"):
        raise UserError("the subset was not made from the --query handed over; its cost is then not what is stated.")


def _starting_model(pretrained: Weights, declared: Declared, images: ImageSet) -> Denoiser:
    model = denoiser_from(pretrained, "ema")
    if (model.resolution, model.channels) != images.images.shape[2:]:
        raise UserError(
            f"the pretrained model is for {model.resolution} pixels and {model.channels} channels, the sensitive "
            f"images have {images.images.shape[2]} and {images.images.shape[3]}; use one public row for both."
        )
    if images.class_names != declared.class_names:
        raise UserError("the sensitive images have other classes than declared; rerun preprocess.")
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise UserError(
            "the pretrained model has weights that are not finite; rerun pretrain with a lower learning rate."
        )
    names = tuple(pretrained.facts["class_names"])
    return model if names == declared.class_names else adopt_labels(model, len(declared.class_names))


def main() -> None:
    """Run the stage from the command line."""
    args = _arguments()
    settings = cli.settings_from(FinetuneSettings, args.settings)
    declared = cli.settings_from(Declared, args.declared, "--declared")
    compute = Compute(cli.settings_from(ComputeSettings, args.compute, "--compute"))
    query = QueryResult.read(args.query) if args.query else None
    before = paid_query(args.releases, query, declared)
    after = [noisy_choice(epsilon) for epsilon in args.validation_epsilons]  # drawn by `accuracy`, paid for here
    parents = {"pretrained": sha256(args.pretrained), "subset": sha256(args.subset)}
    parents |= {"query": sha256(args.query)} if args.query else {}
    pretrained, images = Weights.read(args.pretrained, "diffusion"), ImageSet.read(args.images)
    check_lineage(pretrained, Subset.read(args.subset), parents)
    model = _starting_model(pretrained, declared, images)
    noise_multiplier = accounting.calibrate(
        [*before, *after],
        sampling_probability=settings.sampling_probability,
        num_steps=settings.num_steps,
        epsilon=args.epsilon,
        delta=declared.delta,
    )
    facts = {  # what the draw depends on; the query acts through the pretrained model and the noise
        "images": images.identity,
        "pretrained": pretrained.identity,
        "query": query.identity if query else None,
        "settings": plain(settings),
        "num_images": declared.num_images,
        "noise_multiplier": noise_multiplier,
        "epsilon": args.epsilon,
        "seed": args.seed,
        "method": args.method,
        "version": VERSION,
    }
    label = f"{args.method} epsilon {args.epsilon:g} seed {args.seed}"
    provenance = Provenance("finetune", VERSION, plain(settings), parents)
    event = Event("poisson_gaussian", noise_multiplier, settings.sampling_probability, settings.num_steps)
    statement = accounting.statement([*before, event, *after], declared, args.epsilon, provenance)
    heartbeat.tell(before=[e.as_json() for e in before], training=event.as_json(), delta=declared.delta)
    ledger = Ledger(args.state_dir, args.dataset, declared, args.budget)
    with ledger.open("finetune", fingerprint(facts), label) as release:
        if not release.finished:
            release.reserve([event], continuing=release.reserved_steps > 0)
            mechanism = Mechanism(settings, noise_multiplier, declared.num_images, release.key, compute)
            model, ema, curve = run(model, images, mechanism, release)
            weights = _weights(model, ema, declared, provenance)
            release.finish({"weights": weights, "curve": curve})
        release.copy_out({"weights": args.weights, "curve": args.curve})
    named = replace(provenance, parents={**parents, "weights": sha256(args.weights)})
    replace(statement, provenance=named).write(args.privacy)


def _weights(model: Denoiser, ema: Denoiser, declared: Declared, provenance: Provenance) -> Weights:
    tensors = {**flatten("raw", model.state_dict()), **flatten("ema", ema.state_dict())}
    return Weights("diffusion", tensors, model.describe(), {"class_names": list(declared.class_names)}, provenance)


def _arguments() -> Any:
    parser = cli.parser("finetune", __doc__, FinetuneSettings)
    parser.add_argument("--dataset", required=True, help="name of the sensitive set, for the ledger")
    parser.add_argument("--method", required=True, help="row of the methods' table")
    parser.add_argument("--epsilon", required=True, type=cli.positive, help="target of everything this method releases")
    parser.add_argument("--seed", required=True, type=int, help="seed of the experiment; privacy noise ignores it")
    parser.add_argument(
        "--releases", required=True, nargs="+", choices=("query", "finetune"), help="what the method releases"
    )
    parser.add_argument("--images", required=True, type=Path, help="sensitive training images")
    parser.add_argument("--pretrained", required=True, type=Path, help="pretrained model")
    parser.add_argument("--subset", required=True, type=Path, help="selection of public classes")
    parser.add_argument("--query", type=Path, help="noisy query, if the method releases one")
    parser.add_argument(
        "--validation-epsilons",
        nargs="+",
        type=cli.positive,
        default=[],
        help="what each later choice of a classifier's epoch by the sensitive images will cost",
    )
    parser.add_argument("--declared", required=True, metavar="JSON", help="public constants of the sensitive set")
    parser.add_argument("--budget", type=cli.budget, help="epsilon of everything ever drawn from the set, or `none`")
    parser.add_argument(
        "--state-dir", required=True, type=Path, help="keys, checkpoints and odometer; outlives results"
    )
    parser.add_argument("--compute", metavar="JSON", default="{}", help="precision, microbatch and the like")
    parser.add_argument("--weights", required=True, type=Path, help="output: the private model")
    parser.add_argument("--privacy", required=True, type=Path, help="output: the privacy statement")
    parser.add_argument("--curve", required=True, type=Path, help="output: training curve, internal")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
