"""Images drawn from a denoiser, by one of the samplers."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from privimage.artifacts import Weights
from privimage.compute import Compute
from privimage.diffusion.denoiser import Denoiser, denoiser_from
from privimage.diffusion.sampler import SAMPLERS, guided, noise_levels, unconditional
from privimage.generators.contract import Drawer
from privimage.settings import SampleSettings


def sampled(
    model: Denoiser,
    settings: SampleSettings,
    compute: Compute,
    labels: Tensor,
    noise: Tensor,
    public: Denoiser | None = None,
) -> Tensor:
    """What the sampler makes of standard normal ``noise`` [n, C, H, W] under labels [n], on the device.

    Guidance, if there is any, is away from what ``public`` guesses without a label; without ``public``, from the
    model's own such guess.
    """
    denoise = compute.compiled(model)
    away = unconditional(compute.compiled(public) if public else denoise, (public or model).num_labels)
    where = (settings.guidance_sigma_min, settings.guidance_sigma_max or math.inf)
    denoise = guided(denoise, away, settings.guidance_scale, *where)
    levels = noise_levels(settings.num_steps, settings.sigma_min, settings.sigma_max, settings.rho)
    with compute.autocast():
        return SAMPLERS[settings.sampler](denoise, noise.to(compute.device), labels.to(compute.device), levels)


def public_guide(pretrained: Weights | None) -> Denoiser | None:
    """The model that private training started from, to be guided away from, if there is one."""
    return denoiser_from(pretrained, "ema") if pretrained else None


def drawer_of(model: Denoiser, settings: SampleSettings, compute: Compute, public: Denoiser | None = None) -> Drawer:
    """Images in bytes, each from noise of the generator alone."""
    shape = (model.resolution, model.resolution, model.channels)
    return latent_drawer(model, lambda x: x, shape, settings, compute, public)


def latent_drawer(
    model: Denoiser,
    decode: Callable[[Tensor], Tensor],
    shape: tuple[int, int, int],
    settings: SampleSettings,
    compute: Compute,
    public: Denoiser | None = None,
) -> Drawer:
    """Images of a shape (H, W, C) in bytes, each decoded from what the model makes of the generator's noise."""
    model = compute.place(model).eval().requires_grad_(False)
    public = compute.place(public).eval().requires_grad_(False) if public else None

    def draw(labels: Tensor, first: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn((len(labels), model.channels, model.resolution, model.resolution), generator=generator)
        return to_bytes(decode(sampled(model, settings, compute, labels, noise, public)))

    return Drawer(shape, draw)


def to_bytes(x: Tensor) -> Tensor:
    """Floats [N, C, H, W] in [-1, 1] as rounded bytes [N, H, W, C], on the CPU."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
