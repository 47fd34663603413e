"""The DP-SGD loop on the denoiser: its steps reserved before they are taken, its state saved, its draws replayed.

Here diffusion and privacy meet. Released models come from it (``finetune``), and models that are only audited.

Source: Dockhorn et al. 2023 (K noise levels an image).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from privimage import stopping
from privimage.artifacts import ImageSet, Weights, tensors_sha256
from privimage.checkpoints import Checkpoint, Every
from privimage.compute import DEFAULT, Compute
from privimage.config import canonical
from privimage.diffusion.adapters import to_train
from privimage.diffusion.denoiser import Denoiser, adopt_labels, denoiser_from
from privimage.diffusion.ema import averaged
from privimage.diffusion.images import Encode, Images
from privimage.diffusion.keyed_noise import keyed_noise
from privimage.diffusion.loss import NoisyBatch, per_image_loss
from privimage.diffusion.training import restore_training, training_tensors
from privimage.distributed import ALONE, Group
from privimage.errors import UserError
from privimage.measurements import Curve
from privimage.memory import bytes_kept, images_that_fit, smaller
from privimage.privacy.canaries import Canaries
from privimage.privacy.damping import Damping
from privimage.privacy.dpsgd import clipped_gradient_sum, noisy_mean, poisson_sample
from privimage.privacy.ledger import Release
from privimage.privacy.per_sample.capture import trained
from privimage.privacy.randomness import SecretKey
from privimage.progress import progress
from privimage.settings import Declared, FinetuneSettings

SAVE_SECONDS = 60.0
COLUMNS = ("step", "loss", "images")
Losses = Callable[[Denoiser, NoisyBatch], Tensor]
Taken = TypeVar("Taken")  # what a step gives


@dataclass(frozen=True)
class Mechanism:
    """Everything that one DP-SGD step depends on besides the images and the weights."""

    settings: FinetuneSettings
    noise_multiplier: float
    num_images: int  # declared, a public constant: the divisor is the expected batch size, never the drawn one
    key: SecretKey
    compute: Compute = DEFAULT
    canaries: Canaries | None = None  # of an audit, whose model is never released
    damping: Damping | None = None  # of each image's gradient, before it is clipped


def run(
    model: Denoiser,
    images: ImageSet,
    mechanism: Mechanism,
    release: Release | None = None,
    group: Group = ALONE,
    encode: Encode | None = None,
) -> tuple[Denoiser, Denoiser, Curve]:
    """The model after all steps, the average of its weights, and the curve; ``model`` is changed in place.

    Weights that require no gradient are no part of it. For a model of latents, ``encode`` makes them of images, each by
    itself and by what is public, so that an image more is a latent more.

    With a ``release``, each step is reserved before sensitive images are read for it, and the run resumes: from its
    last checkpoint where the same steps can be replayed with the same draws, else past every step that was reserved,
    which then count among the declared number without having been taken.

    The leader of a ``group`` runs it; the others ``assist``. All sum up gradients; the leader alone draws.
    """
    settings, compute = mechanism.settings, mechanism.compute
    model = compute.place(model)
    ema = averaged(model, settings.ema_decay)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=compute.device.type == "cuda")
    data = Images(images.images, images.labels, compute.device, encode)
    losses = compute.compiled(per_image_loss)
    computers = group.digest(canonical(compute.describe()))
    saves = Saves(release, mechanism, group, computers) if release else None
    start, rows, size = 0, [], None
    if saves:
        start, rows, size = saves.resume(model, ema, optimizer, lambda: microbatch_size(model, mechanism, group))
    size = size or microbatch_size(model, mechanism, group)
    expected = settings.sampling_probability * mechanism.num_images
    steps = progress(range(start, settings.num_steps), "finetune", settings.num_steps, start, expected)
    with stopping.deferred():
        for step in steps:
            if release:
                release.reserve_step(step)

            def take(size: int, step: int = step) -> tuple[float, float, float]:
                return _step(model, optimizer, losses, data, mechanism, size, step, group)

            save = partial(saves.save, step, model, ema, optimizer, rows) if saves else None
            row, size = attempted(take, size, save)
            rows.append(row)
            ema.update_parameters(model)
            if saves and saves.every.due():
                saves.save(step + 1, model, ema, optimizer, rows, size)
            stopping.check()
    if saves and group.size > 1:  # whatever becomes of the others, nothing is left to draw
        saves.save(settings.num_steps, model, ema, optimizer, rows, size)
    group.numbers([])  # no further step
    group.spread(model.parameters())
    return model, ema.module, Curve(COLUMNS, tuple(rows))


def attempted(take: Callable[[int], Taken], size: int, save: Callable[[int], None] | None) -> tuple[Taken, int]:
    """What ``take(size)`` gives, and how many images it computed at once: ``size``, or fewer where memory runs out.

    A step that ends before its time has changed nothing, and will draw the same again. ``save`` notes a size before a
    step is taken with it: a replay must not begin with the larger one.
    """
    save = save or (lambda size: None)
    while True:
        try:
            return take(size), size
        except stopping.Stopped:
            save(size)
            raise
        except (RuntimeError, MemoryError) as error:
            size = smaller(size, error)
            save(size)


def assist(
    model: Denoiser,
    images: ImageSet,
    settings: FinetuneSettings,
    compute: Compute,
    group: Group,
    encode: Encode | None = None,
    damping: Damping | None = None,
) -> Denoiser:
    """The model that the leader's ``run`` ends with, after this process has computed its share of every step."""
    model = compute.place(model)
    data = Images(images.images, images.labels, compute.device, encode)
    losses = compute.compiled(per_image_loss)
    group.digest(canonical(compute.describe()))
    with stopping.deferred():
        while work := group.numbers([]):
            try:
                _gradient_sum(model, losses, data, settings, compute, work, group, damping)
            except MemoryError as error:  # the leader hands the step out again, with fewer images at once
                smaller(work[1], error)
            stopping.check()
    group.spread(model.parameters())
    return model


class Saves:
    """The checkpoint of one release, and the step to go on from."""

    def __init__(self, release: Release, mechanism: Mechanism, group: Group, computers: str) -> None:
        self.release, self.every, self.num_steps = release, Every(SAVE_SECONDS), mechanism.settings.num_steps
        self.checkpoint = Checkpoint(release.folder / "checkpoint", release.fingerprint, shown=release.folder.parent)
        self.asked = mechanism.compute.settings.microbatch_size  # None: to be found, or as it was
        # What must be the same for replayed steps to come out the same, besides weights, draws and the microbatch.
        self.environment = {"key": mechanism.key.identity, "world_size": group.size, **mechanism.compute.describe()}
        if mechanism.damping:
            self.environment["damping"] = tensors_sha256(mechanism.damping.tensors())
        if group.size > 1:
            self.environment["computers"] = computers  # of all processes, which may run on unlike machines

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
                "replayed (other key, microbatch size, precision, engine, threads, number of processes, device or "
                "library); they count and are skipped.",
                file=sys.stderr,
            )


def microbatch_size(model: Denoiser, mechanism: Mechanism, group: Group = ALONE) -> int:
    """Images that a process computes at once: as declared, or as many as fit, by a trial with a single blank one."""
    if mechanism.compute.settings.microbatch_size:
        return mechanism.compute.settings.microbatch_size
    settings, compute = mechanism.settings, mechanism.compute
    levels, shape = settings.noise_levels_per_image, (model.channels, model.resolution, model.resolution)
    with compute.device:
        label = torch.zeros(1, dtype=torch.int64)
        batch = NoisyBatch(torch.zeros(1, *shape), label, torch.ones(1, levels), torch.zeros(1, levels, *shape))
    with compute.autocast():
        kept = bytes_kept(lambda: per_image_loss(model, batch))
    # One gradient an image, in float32, and its copy while it is damped or masked; a layer's windows are a tenth of
    # `kept`.
    each = kept + (3 if mechanism.damping else 2) * 4 * sum(p.numel() for p in trained(model).values())
    each *= levels if compute.settings.engine == "opacus" else 1
    expected = math.ceil(settings.sampling_probability * mechanism.num_images / group.size)
    return images_that_fit(each * compute.workers, compute.device, math.ceil(expected / compute.workers))


def _step(
    model: Denoiser,
    optimizer: torch.optim.Adam,
    losses: Losses,
    data: Images,
    mechanism: Mechanism,
    microbatch: int,
    step: int,
    group: Group = ALONE,
) -> tuple[float, float, float]:
    """One step of DP-SGD; returned is a row of the curve, which stays internal.

    Raises:
        Stopped: if the stage was told to stop; then nothing has changed.
    """
    settings = mechanism.settings
    index = poisson_sample(len(data.labels), settings.sampling_probability, mechanism.key, step)
    work = group.numbers([mechanism.key.seed("diffusion", step), microbatch, *index])
    total, loss = _gradient_sum(model, losses, data, settings, mechanism.compute, work, group, mechanism.damping)
    if mechanism.canaries:
        mechanism.canaries.add(total, step)
    gradient = noisy_mean(
        total,
        noise_multiplier=mechanism.noise_multiplier,
        clip_norm=settings.clip_norm,
        expected_batch_size=settings.sampling_probability * mechanism.num_images,
        key=mechanism.key,
        step=step,
    )
    if mechanism.canaries:
        mechanism.canaries.see(gradient, step)
    row = step, loss / max(1, len(index)), len(index)
    for weights in optimizer.param_groups:
        weights["lr"] = settings.learning_rate_at(step)
    try:
        for name, parameter in trained(model).items():
            parameter.grad = torch.empty_like(parameter).copy_(gradient[name])  # laid out as the weights are
        optimizer.step()
    except (RuntimeError, MemoryError) as error:  # some weights may have moved: this step is not tried again from here
        raise UserError(
            f"step {step} failed while the weights were updated ({type(error).__name__}: {error}); free memory and "
            "start again, which goes on from the last checkpoint."
        ) from error
    return row


def _gradient_sum(
    model: Denoiser,
    losses: Losses,
    data: Images,
    settings: FinetuneSettings,
    compute: Compute,
    work: Sequence[int],
    group: Group,
    damping: Damping | None = None,
) -> tuple[dict[str, Tensor], float]:
    """At the leader: the sum of the step's clipped gradients, and of its losses. Each process computes its share.

    ``work``: the seed of the step's diffusion noise, the images to compute at once, the numbers of the step's images:
    one Poisson sample, of which the processes share the images, so that each is in the sum once at most.

    Raises:
        Stopped: if a process was told to stop, or has ended; then nothing has changed.
        MemoryError: if one had too little memory; here too.
    """
    seed, microbatch, *index = work
    mine = np.array(index[group.part(len(index))], np.int64)
    group.spread(model.parameters())

    def losses_of(part: slice) -> Tensor:
        stopping.check()
        batch = draw_batch(data, mine[part], settings, model.num_labels, seed)
        with compute.autocast():
            return losses(model, batch)

    total, values = group.together(
        lambda: clipped_gradient_sum(
            model,
            losses_of,
            len(mine),
            copies=settings.noise_levels_per_image,
            clip_norm=settings.clip_norm,
            microbatch_size=microbatch,
            engine=compute.settings.engine,
            workers=compute.workers,
            damping=damping,
        )
    )
    told = torch.tensor([values.double().sum(), len(mine)], dtype=torch.float64).to(data.device)
    group.add_up([*total.values(), told])
    loss, count = told.tolist()
    if group.leads and count != len(index):
        raise UserError(f"{count:g} images were added up, {len(index)} were drawn; no step was taken; start again.")
    return total, loss


def draw_batch(data: Images, index: np.ndarray, settings: FinetuneSettings, no_label: int, seed: int) -> NoisyBatch:
    """The images at ``index`` with their diffusion noise, keyed by image and seed: a replay draws the same."""
    rows = torch.from_numpy(index).to(data.device)
    return keyed_noise(
        *data.at(rows),
        rows,
        levels=settings.noise_levels_per_image,
        P_mean=settings.P_mean,
        P_std=settings.P_std,
        label_dropout=settings.label_dropout,
        no_label=no_label,
        key=seed,
        balanced=settings.noise_draws == "balanced",
    )


def starting_model(
    pretrained: Weights,
    declared: Declared,
    images: ImageSet,
    settings: FinetuneSettings,
    seed: int,
    pixels: tuple[int, int] | None = None,
) -> Denoiser:
    """The pretrained model with an embedding for each sensitive class: where private training starts.

    What is not trained requires no gradient. ``pixels`` are the resolution and the channels of the images that a model
    of latents is for; a model of images knows its own.

    Raises:
        UserError: if model, images and declaration do not fit each other, or a weight is not finite.
    """
    model = denoiser_from(pretrained, "ema")
    check_start(model, declared, images, pixels)
    if tuple(pretrained.facts["class_names"]) != declared.class_names:
        model = adopt_labels(model, len(declared.class_names))
    return to_train(model, settings.trained, settings.lora_rank, seed)


def check_start(
    model: torch.nn.Module, declared: Declared, images: ImageSet, pixels: tuple[int, int] | None = None
) -> None:
    """Return if a pretrained model, which knows its ``resolution`` and ``channels``, can be trained on the images.

    ``pixels``: as in ``starting_model``.

    Raises:
        UserError: if model, images and declaration do not fit each other, or a weight is not finite.
    """
    resolution, channels = pixels or (model.resolution, model.channels)
    if (resolution, channels) != images.images.shape[2:]:
        raise UserError(
            f"the pretrained model is for {resolution} pixels and {channels} channels, the sensitive "
            f"images have {images.images.shape[2]} and {images.images.shape[3]}; use one public row for both."
        )
    if images.class_names != declared.class_names:
        raise UserError("the sensitive images have other classes than declared; rerun preprocess.")
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise UserError(
            "the pretrained model has weights that are not finite; rerun pretrain with a lower learning rate."
        )
