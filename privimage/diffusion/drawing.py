"""Images drawn from a denoiser, by one of the samplers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from privimage.compute import Compute
from privimage.diffusion.denoiser import Denoiser
from privimage.diffusion.sampler import SAMPLERS, guided, noise_levels
from privimage.generators.contract import Drawer
from privimage.settings import SampleSettings


def sampled(model: Denoiser, settings: SampleSettings, compute: Compute, labels: Tensor, noise: Tensor) -> Tensor:
    """What the sampler makes of standard normal ``noise`` [n, C, H, W] under labels [n], on the device."""
    denoise = guided(compute.compiled(model), settings.guidance_scale, model.num_labels)
    levels = noise_levels(settings.num_steps, settings.sigma_min, settings.sigma_max, settings.rho)
    with compute.autocast():
        return SAMPLERS[settings.sampler](denoise, noise.to(compute.device), labels.to(compute.device), levels)


def drawer_of(model: Denoiser, settings: SampleSettings, compute: Compute) -> Drawer:
    """Images in bytes, each from noise of the generator alone."""
    return latent_drawer(model, lambda x: x, (model.resolution, model.resolution, model.channels), settings, compute)


def latent_drawer(
    model: Denoiser,
    decode: Callable[[Tensor], Tensor],
    shape: tuple[int, int, int],
    settings: SampleSettings,
    compute: Compute,
) -> Drawer:
    """Images of a shape (H, W, C) in bytes, each decoded from what the model makes of the generator's noise."""
    model = compute.place(model).eval().requires_grad_(False)

    def draw(labels: Tensor, first: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn((len(labels), model.channels, model.resolution, model.resolution), generator=generator)
        return to_bytes(decode(sampled(model, settings, compute, labels, noise)))

    return Drawer(shape, draw)


def to_bytes(x: Tensor) -> Tensor:
    """Floats [N, C, H, W] in [-1, 1] as rounded bytes [N, H, W, C], on the CPU."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
