"""One step of DP-SGD: clip each image's gradient, sum, add noise, divide by the declared batch size.

Adding or removing one image moves the clipped sum by at most C in L2 norm; noise of standard deviation
``noise_multiplier`` * C on it is what the accountant's event describes.

Source: Abadi et al. 2016, algorithm 1; De et al. 2022 and Dockhorn et al. 2023 for averaging an image's K copies
before clipping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from privimage.errors import UserError
from privimage.privacy.per_sample.capture import per_image_gradients
from privimage.privacy.randomness import SecretKey

ROUNDING = 1e-4  # clip to C (1 - ROUNDING): room for the rounding of float32 gradients, never for more than C
Batch = TypeVar("Batch", bound=tuple)  # a named tuple of tensors with one leading row an image
PerImageLoss = Callable[[nn.Module, Batch], Tensor]


def clipped_gradient_sum(
    model: nn.Module, loss: PerImageLoss, batch: Batch, *, copies: int, clip_norm: float, microbatch_size: int
) -> tuple[dict[str, Tensor], Tensor]:
    """The sum over images of their clipped gradients, by parameter, and the images' losses [B].

    Norms and the sum over microbatches are float64: a float32 norm of millions of entries, or a float32 sum of
    thousands of images, can be off by more than ``ROUNDING``.
    The batch's randomness was drawn beforehand, so one microbatch or many give the same sum. ``copies`` is the number
    of rows K that the loss makes of each image, side by side. An image whose gradient is not finite adds nothing.

    Formal guarantee: adding or removing one row of the batch changes the sum by at most ``clip_norm`` in L2 norm over
    all parameters together.
    """
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in model.named_parameters()}
    losses = [torch.zeros(0)]
    for rows in microbatches(batch, microbatch_size):
        with per_image_gradients(model, copies) as gradients:
            values = loss(model, rows)  # [b]
            values.sum().backward()
        _check_covered(total, gradients)
        _add_clipped(total, gradients, clip_norm)
        losses.append(values.detach().cpu())
    return total, torch.cat(losses)


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

    The noise of step and tensor comes from the key alone: replaying a step draws the same.
    """
    scale = noise_multiplier * clip_norm
    out = {}
    for index, (name, value) in enumerate(total.items()):
        noise = key.normal("gradient", step, index, shape=tuple(value.shape))
        out[name] = (value + scale * torch.from_numpy(noise).to(value.device)) / expected_batch_size
    return out


def poisson_sample(num_images: int, sampling_probability: float, key: SecretKey, step: int) -> np.ndarray:
    """The indices of this step's images: each is in with the given probability, independently of all others."""
    return np.flatnonzero(key.uniform("poisson", step, shape=(num_images,)) < sampling_probability)


def microbatches(batch: Batch, size: int) -> Iterator[Batch]:
    """The batch in slices of at most ``size`` rows, in order; none of an empty batch."""
    for start in range(0, len(batch[0]), size):
        yield type(batch)(*(tensor[start : start + size] for tensor in batch))


def _add_clipped(total: dict[str, Tensor], gradients: dict[str, Tensor], clip_norm: float) -> None:
    """Add each image's gradient, scaled to a norm of at most ``clip_norm``, to the running sum."""
    norms = [torch.linalg.vector_norm(g.flatten(1), dim=1, dtype=torch.float64) for g in gradients.values()]
    norms = torch.linalg.vector_norm(torch.stack(norms), dim=0)  # [b]
    finite = torch.isfinite(norms)
    weights = torch.where(finite, (clip_norm * (1 - ROUNDING) / norms).clamp(max=1.0), 0.0)
    for name, gradient in gradients.items():
        rows = gradient.flatten(1)  # [b, P]
        if not bool(finite.all()):
            rows = torch.where(finite[:, None], rows, 0.0)  # 0 * NaN is NaN: mask before the product
        total[name] += (weights.to(rows.dtype) @ rows).view_as(total[name])


def _check_covered(total: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
    missing: Sequence[str] = [name for name in total if name not in gradients or not gradients[name].numel()]
    if missing:
        raise UserError(f"the parameter `{missing[0]}` got no gradient; every parameter must take part in the loss.")
