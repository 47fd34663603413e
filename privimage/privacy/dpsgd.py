"""One step of DP-SGD: clip each image's gradient, sum, add noise, divide by the declared batch size.

Adding or removing one image moves the clipped sum by at most C in L2 norm; noise of standard deviation
``noise_multiplier`` * C on it is what the accountant's event describes.

Source: Abadi et al. 2016, algorithm 1; De et al. 2022 and Dockhorn et al. 2023 for averaging an image's K copies
before clipping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from privimage.privacy.damping import Damping
from privimage.privacy.opacus_engine import opacus_hooks
from privimage.privacy.per_sample.capture import tapped, trained
from privimage.privacy.randomness import SecretKey
from privimage.privacy.workers import side_by_side

ROUNDING = 1e-4  # clip to C (1 - ROUNDING): room for the rounding of float32 gradients, never for more than C
LONG_ROW = 4096  # entries whose squares are added up in float32; more are added in float64
SUMMED = 16  # images that are added up in float32 before they go to the float64 sum

ENGINES = {"fast": tapped, "opacus": opacus_hooks}  # what forms each image's gradient


def clipped_gradient_sum(
    model: nn.Module,
    losses_of: Callable[[slice], Tensor],
    num_images: int,
    *,
    copies: int,
    clip_norm: float,
    microbatch_size: int,
    engine: str = "fast",
    workers: int = 1,
    damping: Damping | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """The sum over images of their clipped gradients, by parameter, float64, and the images' losses [B].

    ``losses_of(part)`` computes the losses of the images in a slice of 0 to ``num_images``; it is called with at most
    ``microbatch_size`` at once, by ``workers`` threads (the engine `opacus` allows one). Its randomness must be fixed
    by the image, so that one microbatch or many give the same sum. ``copies`` is the number of rows K that the model
    sees of each image, side by side. ``damping`` maps each image's gradient by itself before it is clipped. An image
    whose gradient is not finite adds nothing. Nothing waits for the device between microbatches.

    Formal guarantee: adding or removing one image changes the sum by at most ``clip_norm`` in L2 norm over all
    parameters together that require a gradient; others are no part of it. Norms, weights and sums are of the gradients
    as they are added, in float32 and float64, in whichever precision the gradients were formed.

    Raises:
        UserError: if the model has a layer without a rule, or a parameter that takes no part in the losses.
    """
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in trained(model).items()}
    losses = [torch.zeros(0)]
    starts = range(0, num_images, microbatch_size)
    parts = [slice(start, min(start + microbatch_size, num_images)) for start in starts]
    with ENGINES[engine](model, copies) as per_image, exact_products():

        def clipped(part: slice) -> tuple[Tensor, dict[str, Tensor]]:
            values, gradients = per_image.gradients(lambda: losses_of(part), part.stop - part.start)
            return values, _clipped_sum(gradients, clip_norm, damping)

        for values, sums in side_by_side(clipped, parts, min(workers, max(1, len(parts)))):
            losses.append(values)
            for name, value in sums.items():
                total[name] += value.view_as(total[name])
    return total, torch.cat([values.to(losses[-1].device, torch.float32) for values in losses])


def noisy_mean(
    total: dict[str, Tensor],
    *,
    noise_multiplier: float,
    clip_norm: float,
    expected_batch_size: float,
    key: SecretKey,
    step: int,
) -> dict[str, Tensor]:
    """(sum + noise) / declared batch size, by parameter, float64: what leaves the mechanism.

    The noise of step and tensor comes from the key alone: replaying a step draws the same, on however many cores.
    """
    shapes = [tuple(value.shape) for value in total.values()]
    with ThreadPoolExecutor() as pool:
        noises = list(pool.map(lambda i: key.normal("gradient", step, i, shape=shapes[i]), range(len(shapes))))
    scale, out = noise_multiplier * clip_norm, {}
    for (name, value), noise in zip(total.items(), noises):
        out[name] = (value + scale * torch.from_numpy(noise).to(value.device)) / expected_batch_size
    return out


def poisson_sample(num_images: int, sampling_probability: float, key: SecretKey, step: int) -> np.ndarray:
    """The indices of this step's images: each is in with the given probability, independently of all others."""
    return np.flatnonzero(key.uniform("poisson", step, shape=(num_images,)) < sampling_probability)


@contextmanager
def exact_products() -> Iterator[None]:
    """Float32 products on a GPU are those of float32 numbers, not of numbers rounded to TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def public_gradients(
    model: nn.Module,
    losses_of: Callable[[slice], Tensor],
    num_images: int,
    *,
    copies: int,
    microbatch_size: int,
    engine: str = "fast",
    workers: int = 1,
) -> dict[str, Tensor]:
    """The gradients of public images, one a row, by parameter [M, entries]; the rest is as above."""
    starts = range(0, num_images, microbatch_size)
    parts = [slice(start, min(start + microbatch_size, num_images)) for start in starts]
    with ENGINES[engine](model, copies) as per_image, exact_products():

        def gradients(part: slice) -> dict[str, Tensor]:
            return per_image.gradients(lambda: losses_of(part), part.stop - part.start)[1]

        found = [_exact(rows) for rows in side_by_side(gradients, parts, min(workers, len(parts)))]
    return {name: torch.cat([rows.pop(name).flatten(1) for rows in found]) for name in list(found[0])}


def _exact(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: rows.float() if rows.dtype == torch.bfloat16 else rows for n, rows in gradients.items()}


def _clipped_sum(gradients: dict[str, Tensor], clip_norm: float, damping: Damping | None) -> dict[str, Tensor]:
    """The sum over images of their gradients, each scaled to a norm of at most ``clip_norm``: float64 [P]."""
    gradients = _exact(gradients)
    gradients = damping(gradients) if damping else gradients
    norms = torch.stack([_squared_norms(rows) for rows in gradients.values()]).sum(0).sqrt()  # [b]
    finite = torch.isfinite(norms)
    weights = torch.where(finite, (clip_norm * (1 - ROUNDING) / norms).clamp(max=1.0), 0.0)
    mask = norms.is_cuda or not bool(finite.all())  # a GPU is not waited for
    sums = {}
    for name, rows in gradients.items():
        rows = rows.flatten(1)  # [b, P]
        if mask:
            rows = torch.where(finite[:, None], rows, 0.0)  # 0 * NaN is NaN: mask before the product
        pairs = zip(rows.split(SUMMED), weights.to(rows.dtype).split(SUMMED))
        sums[name] = sum((scale @ few).double() for few, scale in pairs)
    return sums


def _squared_norms(rows: Tensor) -> Tensor:
    """The squared norm of each row, float64: [b, *shape] -> [b]. Float32 partial sums are short."""
    rows = rows.flatten(2) if rows.dim() > 2 else rows[:, None]  # [b, n, m]
    dtype = torch.float64 if rows.shape[2] > LONG_ROW else None
    return torch.linalg.vector_norm(rows, dim=2, dtype=dtype).double().square().sum(1)
