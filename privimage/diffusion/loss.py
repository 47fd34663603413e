"""EDM's training loss, with several noise levels an image.

Source: Karras et al. 2022, section 5; Dockhorn et al. 2023 (noise multiplicity).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class NoisyBatch(NamedTuple):
    """Images with the noise drawn for them.

    Shapes: ``images`` float [B, C, H, W] in [-1, 1]; ``labels`` int64 [B]; ``sigma`` [B, K];
    ``noise`` [B, K, C, H, W], standard normal.
    """

    images: Tensor
    labels: Tensor
    sigma: Tensor
    noise: Tensor


def to_float(images: Tensor) -> Tensor:
    """Bytes [B, H, W, C] as floats [B, C, H, W] in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def draw_noise(
    images: Tensor,
    labels: Tensor,
    *,
    levels: int,
    P_mean: float,
    P_std: float,
    label_dropout: float,
    no_label: int,
    generator: torch.Generator,
    among: int | None = None,
    part: slice = slice(None),
) -> NoisyBatch:
    """The batch with K = ``levels`` noise levels and noises an image; a dropped label is dropped for all K.

    Images that are only a ``part`` of so many get what they would get among them all.
    """
    num, where = among or len(images), {"generator": generator, "device": generator.device}
    sigma = torch.exp(P_mean + P_std * torch.randn(num, levels, **where))[part]  # [B, K]
    noise = torch.randn(num, levels, *images.shape[1:], **where)[part]  # [B, K, C, H, W]
    dropped = (torch.rand(num, **where) < label_dropout)[part]
    return NoisyBatch(images, torch.where(dropped, no_label, labels), sigma, noise)


def per_image_loss(denoiser: nn.Module, batch: NoisyBatch) -> Tensor:
    """The loss [B] of each image: weighted squared error, averaged over its K noise levels and its pixels.

    The K copies of an image stand next to each other in the network's batch, images in order.
    """
    levels = batch.sigma.shape[1]
    clean = batch.images[:, None].expand_as(batch.noise).flatten(0, 1)  # [B*K, C, H, W]
    sigma = batch.sigma.flatten()  # [B*K]
    noisy = clean + sigma[:, None, None, None] * batch.noise.flatten(0, 1)
    denoised = denoiser(noisy, sigma, batch.labels.repeat_interleave(levels))
    data = denoiser.settings.sigma_data
    weight = (sigma**2 + data**2) / (sigma * data) ** 2  # [B*K]
    error = (denoised - clean).square().flatten(1).mean(dim=1)
    return (weight * error).unflatten(0, (-1, levels)).mean(dim=1)  # [B]
