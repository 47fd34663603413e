"""The DP-SGD loop on the discriminator, which teaches the generator what it has learnt of sensitive images.

Here the adversarial network and privacy meet. Each sensitive image of a Poisson sample is paired with one made image,
whose latent vector depends on the step and the image's number alone and whose label is the image's own. A pair's
gradient is clipped as one, so adding or removing an image, and its pair with it, moves the sum by at most C: the
generator makes these images with fixed statistics of batch normalisation, so no pair depends on another. The
generator learns from the private discriminator under uniform labels: post-processing, which costs nothing.

Source: Li et al. 2024 (PrivImage+G); Xie et al. 2018 (DPGAN).
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from privimage import stopping
from privimage.artifacts import ImageSet
from privimage.diffusion.ema import averaged
from privimage.diffusion.images import Images
from privimage.diffusion.keyed_noise import normals
from privimage.diffusion.training import generator_for
from privimage.distributed import ALONE
from privimage.errors import UserError
from privimage.gan.networks import Generator
from privimage.gan.pair import Pair, labels_in_turn, settle
from privimage.gan.training import adam, discriminator_loss, generator_gradient, latent, step_generator
from privimage.measurements import Curve
from privimage.memory import bytes_kept, images_that_fit
from privimage.privacy.dpsgd import clipped_gradient_sum, noisy_mean, poisson_sample
from privimage.privacy.ledger import Release
from privimage.private_training import COLUMNS, Mechanism, Saves, attempted
from privimage.progress import progress

COPIES = 2  # rows that the discriminator sees of a pair
MADE_AT_ONCE = 256  # images over which batch normalisation averages, at most; part of the result


def run(
    pair: Pair, images: ImageSet, mechanism: Mechanism, release: Release | None = None
) -> tuple[Generator, Generator, Curve]:
    """The generator after all steps, the average of its weights, and the curve; ``pair`` is changed in place.

    With a ``release``, each step is reserved before sensitive images are read for it, and the run resumes as that of
    the diffusion model does.
    """
    settings, compute = mechanism.settings, mechanism.compute
    pair = compute.place(pair).train()  # the hooks of Opacus want the discriminator so
    pair.generator.eval()
    ema = averaged(pair.generator, settings.ema_decay)
    optimizer = adam(pair, settings, fused=compute.device.type == "cuda")
    data = Images(images.images, images.labels, compute.device)
    saves = Saves(release, mechanism, ALONE, "") if release else None
    start, rows, size = 0, [], None
    if saves:
        start, rows, size = saves.resume(pair, ema, optimizer, lambda: microbatch_size(pair, mechanism))
    size = size or microbatch_size(pair, mechanism)
    expected = settings.sampling_probability * mechanism.num_images
    with stopping.deferred():
        for step in progress(range(start, settings.num_steps), "finetune", settings.num_steps, start, expected):
            if release:
                release.reserve_step(step)

            def take(size: int, step: int = step) -> tuple[dict[str, Tensor], tuple[float, float, float]]:
                return private_gradient(pair, data, mechanism, size, step)

            save = partial(saves.save, step, pair, ema, optimizer, rows) if saves else None
            (gradient, row), size = attempted(take, size, save)
            rows.append(row)
            _update(pair, ema, optimizer, gradient, mechanism, step)
            if saves and saves.every.due():
                saves.save(step + 1, pair, ema, optimizer, rows, size)
            stopping.check()
    for number, generator in enumerate((pair.generator, ema.module)):
        random = generator_for(mechanism.key.seed("settle", number), device=compute.device)
        settle(generator, pair.num_labels, random)
    return pair.generator, ema.module, Curve(COLUMNS, tuple(rows))


def private_gradient(
    pair: Pair, data: Images, mechanism: Mechanism, microbatch: int, step: int
) -> tuple[dict[str, Tensor], tuple[float, float, float]]:
    """What leaves the mechanism in a step: the discriminator's noisy gradient. And a row of the curve, internal.

    Raises:
        Stopped: if the stage was told to stop; nothing has changed in any case.
    """
    settings = mechanism.settings
    index = poisson_sample(len(data.labels), settings.sampling_probability, mechanism.key, step)
    total, losses = gradient_sum(pair, data, index, mechanism, microbatch, step)
    gradient = noisy_mean(
        total,
        noise_multiplier=mechanism.noise_multiplier,
        clip_norm=settings.clip_norm,
        expected_batch_size=settings.sampling_probability * mechanism.num_images,
        key=mechanism.key,
        step=step,
    )
    return gradient, (step, float(losses.double().sum()) / max(1, len(index)), len(index))


def gradient_sum(
    pair: Pair, data: Images, index: np.ndarray, mechanism: Mechanism, microbatch: int, step: int
) -> tuple[dict[str, Tensor], Tensor]:
    """The sum of the clipped gradients of the pairs of the images at ``index``, and the pairs' losses [B]."""
    compute, seed = mechanism.compute, mechanism.key.seed("made images", step)

    def losses_of(part: slice) -> Tensor:
        stopping.check()
        rows = torch.from_numpy(index[part]).to(data.device)
        real, labels = data.at(rows)
        z = normals(seed, rows, 0, pair.generator.latent_size)
        return _losses(pair, real, labels, z, mechanism)

    return clipped_gradient_sum(
        pair.discriminator,
        losses_of,
        len(index),
        copies=COPIES,
        clip_norm=mechanism.settings.clip_norm,
        microbatch_size=microbatch,
        engine=compute.settings.engine,
        workers=compute.workers,
    )


def _losses(pair: Pair, real: Tensor, labels: Tensor, z: Tensor, mechanism: Mechanism) -> Tensor:
    """The loss [B] of each pair. The generator neither learns nor averages over the batch."""
    with mechanism.compute.autocast():
        with torch.no_grad():
            made = pair.generator(z.to(real.dtype), labels).to(real.dtype)
        return discriminator_loss(pair.discriminator, real, made, labels)


def microbatch_size(pair: Pair, mechanism: Mechanism) -> int:
    """Pairs to compute at once: as declared, or as many as fit, by a trial with a single blank one."""
    settings, compute = mechanism.settings, mechanism.compute
    if compute.settings.microbatch_size:
        return compute.settings.microbatch_size
    with compute.device:
        blank = torch.zeros(1, pair.channels, pair.resolution, pair.resolution)
        label, z = torch.zeros(1, dtype=torch.int64), torch.zeros(1, pair.generator.latent_size)
    kept = bytes_kept(lambda: _losses(pair, blank, label, z, mechanism))
    # One gradient a pair, in float32, and its copy while it is masked.
    each = kept + 2 * 4 * sum(p.numel() for p in pair.discriminator.parameters())
    each *= COPIES if compute.settings.engine == "opacus" else 1
    expected = math.ceil(settings.sampling_probability * mechanism.num_images)
    return images_that_fit(each * compute.workers, compute.device, math.ceil(expected / compute.workers))


def _update(
    pair: Pair,
    ema: torch.nn.Module,
    optimizer: torch.optim.Adam,
    gradient: dict[str, Tensor],
    mechanism: Mechanism,
    step: int,
) -> None:
    """The discriminator has moved by its noisy gradient and, when it is due, the generator by the discriminator."""
    try:
        for name, parameter in pair.discriminator.named_parameters():
            parameter.grad = torch.empty_like(parameter).copy_(gradient[name])  # laid out as the weights are
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % mechanism.settings.discriminator_steps == 0:
            _teach(pair, optimizer, mechanism, step)
            ema.update_parameters(pair.generator)
    except (RuntimeError, MemoryError) as error:  # some weights may have moved: this step is not tried again from here
        raise UserError(
            f"step {step} failed while the weights were updated ({type(error).__name__}: {error}); free memory and "
            "start again, which goes on from the last checkpoint."
        ) from error


def _teach(pair: Pair, optimizer: torch.optim.Adam, mechanism: Mechanism, step: int) -> None:
    """The generator has taken a step against the discriminator as it is. No sensitive image, no count takes part."""
    num, device = mechanism.settings.generator_batch_size, mechanism.compute.device
    random = generator_for(mechanism.key.seed("generator", step), device=device)
    labels = labels_in_turn(num, pair.num_labels, device)
    total: list[Tensor] | None = None
    pair.generator.train()
    for part in labels.tensor_split(math.ceil(num / MADE_AT_ONCE)):
        gradient = generator_gradient(pair, latent(pair.generator, len(part), random), part, mechanism.compute)
        weighed = [value * (len(part) / num) for value in gradient]
        total = weighed if total is None else [a + b for a, b in zip(total, weighed)]
    pair.generator.eval()
    step_generator(pair, optimizer, tuple(total))
