"""Fine-tune the diffusion model on the sensitive images with DP-SGD, its noise calibrated from the ledger it is handed.

Reads: the sensitive training images; the pretrained model; the noisy query's cost, if the method releases a query.
Writes: the private model; the privacy statement; the training curve (internal: it is computed from sensitive images).
Privacy: DP release. Each step adds Gaussian noise to a sum of per-image gradients clipped to C, over a Poisson sample;
adding or removing one image moves that sum by at most C. The averaged weights are post-processing.
Source: Li et al. 2024 (query and DP-SGD in one budget); Dockhorn et al. 2023 (K noise levels an image).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from privimage import cli
from privimage.artifacts import Curve, ImageSet, Provenance, QueryResult, Subset, Weights, sha256
from privimage.checkpoints import Checkpoint, Every, fingerprint, flatten
from privimage.device import default_device
from privimage.diffusion.denoiser import Denoiser, adopt_labels, denoiser_from
from privimage.diffusion.ema import averaged
from privimage.diffusion.loss import NoisyBatch, draw_noise, per_image_loss, to_float
from privimage.diffusion.training import restore_training, training_tensors
from privimage.errors import UserError
from privimage.privacy import accounting
from privimage.privacy.dpsgd import clipped_gradient_sum, noisy_mean, poisson_sample
from privimage.privacy.event import Event
from privimage.privacy.ledger import Ledger, Release
from privimage.privacy.randomness import SecretKey
from privimage.progress import progress
from privimage.schema import plain
from privimage.settings import Declared, FinetuneSettings

VERSION = 1
SAVE_SECONDS = 60.0
COLUMNS = ("step", "loss", "images")


@dataclass(frozen=True)
class Mechanism:
    """Everything that one DP-SGD step depends on besides the images and the weights."""

    settings: FinetuneSettings
    noise_multiplier: float
    num_images: int  # declared, a public constant: the divisor is the expected batch size, never the drawn one
    key: SecretKey
    microbatch_size: int


def run(
    model: Denoiser, images: ImageSet, mechanism: Mechanism, release: Release | None = None
) -> tuple[Denoiser, Denoiser, Curve]:
    """The model after all steps, the average of its weights, and the curve; ``model`` is changed in place.

    With a ``release``, each step is reserved before sensitive images are read for it, and the run resumes: from its
    last checkpoint where the same steps can be replayed with the same draws, else past every step that was reserved,
    which then count among the declared number without having been taken.
    """
    settings = mechanism.settings
    model = model.to(default_device())
    ema = averaged(model, settings.ema_decay)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    pixels, labels = images.images, torch.from_numpy(images.labels)  # memory-mapped: never copied as a whole
    saves = Saves(release, mechanism) if release else None
    start, rows = saves.resume(model, ema, optimizer) if saves else (0, [])
    for step in progress(range(start, settings.num_steps), "finetune", settings.num_steps, start):
        if release:
            release.reserve_step(step)
        rows.append(_step(model, optimizer, pixels, labels, mechanism, step))
        ema.update_parameters(model)
        if saves and saves.every.due():
            saves.save(step + 1, model, ema, optimizer, rows)
    return model, ema.module, Curve(COLUMNS, tuple(rows))


class Saves:
    """The checkpoint of one release, and the step to go on from."""

    def __init__(self, release: Release, mechanism: Mechanism) -> None:
        self.release, self.every, self.num_steps = release, Every(SAVE_SECONDS), mechanism.settings.num_steps
        self.checkpoint = Checkpoint(release.folder / "checkpoint", release.fingerprint, shown=release.folder.parent)
        self.environment = {  # what must be the same for replayed steps to come out the same, besides weights and draws
            "key": mechanism.key.identity,
            "microbatch_size": mechanism.microbatch_size,
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "torch": torch.__version__,
        }

    def save(self, step: int, model: Denoiser, ema: torch.nn.Module, optimizer: torch.optim.Adam, rows: list) -> None:
        """The state after ``step`` steps is on the disk."""
        state = {"step": step, "curve": [list(row) for row in rows], "environment": self.environment}
        self.checkpoint.save(training_tensors(model, ema, optimizer), state)

    def resume(self, model: Denoiser, ema: torch.nn.Module, optimizer: torch.optim.Adam) -> tuple[int, list]:
        """The step to go on from, and the curve up to there; model, average and optimiser are as they were then."""
        saved, kept, rows = self.checkpoint.load(), 0, []
        if saved:
            tensors, state = saved
            restore_training(tensors, model, ema, optimizer)
            kept, rows = state["step"], [tuple(row) for row in state["curve"]]
            if state["environment"] == self.environment:
                return kept, rows
        # What was reserved since then cannot be replayed: skip it, and on the disk before anything new is drawn.
        start = max(kept, self.release.reserved_steps)
        self._tell(kept, start)
        self.save(start, model, ema, optimizer, rows)
        return start, rows

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
                "replayed (other key, microbatch size, threads, device or library); they count and are skipped.",
                file=sys.stderr,
            )


def _step(
    model: Denoiser, optimizer: torch.optim.Adam, pixels: np.ndarray, labels: Tensor, mechanism: Mechanism, step: int
) -> tuple[float, float, float]:
    """One step of DP-SGD; returned is a row of the curve, which stays internal."""
    settings = mechanism.settings
    index = poisson_sample(len(pixels), settings.sampling_probability, mechanism.key, step)
    batch = draw_batch(pixels, labels, index, settings, model.num_labels, mechanism.key, step)
    total, losses = clipped_gradient_sum(
        model,
        per_image_loss,
        NoisyBatch(*(tensor.to(default_device()) for tensor in batch)),
        copies=settings.noise_levels_per_image,
        clip_norm=settings.clip_norm,
        microbatch_size=mechanism.microbatch_size,
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
        parameter.grad = gradient[name].to(parameter.dtype)
    optimizer.step()
    return step, losses.mean().item() if len(losses) else 0.0, len(losses)


def draw_batch(
    pixels: np.ndarray,
    labels: Tensor,
    index: np.ndarray,
    settings: FinetuneSettings,
    no_label: int,
    key: SecretKey,
    step: int,
) -> NoisyBatch:
    """The images at ``index`` with their diffusion noise, keyed by image and step: a replay draws the same."""
    parts = [_draw_image(pixels, labels, int(i), settings, no_label, key, step) for i in index]
    if parts:
        return NoisyBatch(*(torch.cat(tensors) for tensors in zip(*parts)))
    levels, shape = settings.noise_levels_per_image, _floats(pixels, 0, 0).shape[1:]
    return NoisyBatch(torch.zeros(0, *shape), labels[:0], torch.zeros(0, levels), torch.zeros(0, levels, *shape))


def _floats(pixels: np.ndarray, start: int, stop: int) -> Tensor:
    return to_float(torch.from_numpy(np.array(pixels[start:stop])))  # [n, C, H, W]


def _draw_image(pixels, labels, image: int, settings: FinetuneSettings, no_label: int, key: SecretKey, step: int):
    return draw_noise(
        _floats(pixels, image, image + 1),
        labels[image : image + 1],
        levels=settings.noise_levels_per_image,
        P_mean=settings.P_mean,
        P_std=settings.P_std,
        label_dropout=settings.label_dropout,
        no_label=no_label,
        generator=torch.Generator().manual_seed(key.seed("diffusion", step, image)),
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
    query = QueryResult.read(args.query) if args.query else None
    before = paid_query(args.releases, query, declared)
    parents = {"pretrained": sha256(args.pretrained), "subset": sha256(args.subset)}
    parents |= {"query": sha256(args.query)} if args.query else {}
    pretrained, images = Weights.read(args.pretrained, "diffusion"), ImageSet.read(args.images)
    check_lineage(pretrained, Subset.read(args.subset), parents)
    model = _starting_model(pretrained, declared, images)
    noise_multiplier = accounting.calibrate(
        before,
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
    statement = accounting.statement([*before, event], declared, args.epsilon, provenance)
    ledger = Ledger(args.state_dir, args.dataset, declared, args.budget)
    with ledger.open("finetune", fingerprint(facts), label) as release:
        if not release.finished:
            release.reserve([event], continuing=release.reserved_steps > 0)
            mechanism = Mechanism(settings, noise_multiplier, declared.num_images, release.key, args.microbatch_size)
            model, ema, curve = run(model, images, mechanism, release)
            weights = _weights(model, ema, declared, provenance)
            release.finish({"weights": weights, "curve": curve})
        release.copy_out({"weights": args.weights, "curve": args.curve})
    statement.write(args.privacy)


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
    parser.add_argument("--declared", required=True, metavar="JSON", help="public constants of the sensitive set")
    parser.add_argument("--budget", type=cli.budget, help="epsilon of everything ever drawn from the set, or `none`")
    parser.add_argument(
        "--state-dir", required=True, type=Path, help="keys, checkpoints and odometer; outlives results"
    )
    parser.add_argument(
        "--microbatch-size", type=cli.count, default=64, help="images at once; changes memory, not results"
    )
    parser.add_argument("--weights", required=True, type=Path, help="output: the private model")
    parser.add_argument("--privacy", required=True, type=Path, help="output: the privacy statement")
    parser.add_argument("--curve", required=True, type=Path, help="output: training curve, internal")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
