"""The autoencoder of latent diffusion: images to small latents and back, each image by itself.

Trained on public images alone, by squared error and a small Kullback-Leibler divergence; no adversary, no perceptual
loss. Latents are means, so encoding draws nothing; each of their channels is brought to the mean 0 and the standard
deviation that the denoiser expects of its images.

Source: Rombach et al. 2022 (latent diffusion); Kingma & Welling 2014.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from privimage.artifacts import ArtifactError
from privimage.checkpoints import Checkpoint
from privimage.compute import Compute
from privimage.data_parallel import spread
from privimage.diffusion.autoencoder_settings import AutoencoderSettings
from privimage.diffusion.images import Images
from privimage.diffusion.network import conv1, conv3, group_norm
from privimage.diffusion.training import descend, generator_for
from privimage.distributed import ALONE, Group
from privimage.schema import build, plain

MEASURED = 10_000  # public images, at most, whose latents are measured
BATCH = 500  # of them at once
DRAW = 1  # the last index of the draws' generator: the denoiser's has none
TRAINING, TRAINED = 1, 2  # parts of the checkpoint; part 0 is the denoiser's


class Autoencoder(nn.Module):
    """Images [N, C, H, W] in [-1, 1] to latents [N, C', H / factor, W / factor], and back."""

    def __init__(self, settings: AutoencoderSettings, channels: int) -> None:
        super().__init__()
        self.settings, self.channels = settings, channels
        widths = [settings.base_channels * 2**level for level in range(settings.factor.bit_length())]
        self.encoder = nn.Sequential(
            conv3(channels, widths[0]),
            Block(widths[0]),
            *(layer for pair in zip(widths, widths[1:]) for layer in _down(*pair)),
            *_last(widths[-1], 2 * settings.latent_channels),
        )
        self.decoder = nn.Sequential(
            conv3(settings.latent_channels, widths[-1]),
            Block(widths[-1]),
            *(layer for pair in zip(widths[::-1], widths[-2::-1]) for layer in _up(*pair)),
            *_last(widths[0], channels),
        )
        self.register_buffer("shift", torch.zeros(settings.latent_channels, 1, 1))
        self.register_buffer("scale", torch.ones(settings.latent_channels, 1, 1))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of images' latents, before these are brought to their unit."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The latents, in the denoiser's unit."""
        return (self.posterior(x)[0] - self.shift) / self.scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The images, which may reach beyond [-1, 1] a little."""
        return self.decoder(latents * self.scale + self.shift)

    def describe(self) -> dict[str, Any]:
        """What ``autoencoder_from`` needs to build this network again."""
        return {"settings": plain(self.settings), "channels": self.channels}


class Block(nn.Module):
    """Norm, activation, convolution, twice, beside the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_1, self.conv_1 = group_norm(channels), conv3(channels, channels)
        self.norm_2, self.conv_2 = group_norm(channels), conv3(channels, channels, scale=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, H, W]."""
        h = self.conv_1(F.silu(self.norm_1(x)))
        return x + self.conv_2(F.silu(self.norm_2(h)))


def _down(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
    return nn.AvgPool2d(2), conv1(c_in, c_out), Block(c_out)


def _up(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
    return nn.Upsample(scale_factor=2, mode="nearest"), conv3(c_in, c_out), Block(c_out)


def _last(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
    return group_norm(c_in), nn.SiLU(), conv3(c_in, c_out)


def new_autoencoder(settings: AutoencoderSettings, channels: int, seed: int) -> Autoencoder:
    """An autoencoder whose weights depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Autoencoder(settings, channels)


def autoencoder_from(described: Mapping[str, Any], tensors: dict[str, Tensor]) -> Autoencoder:
    """The autoencoder that was described so, with these weights, which are not trained any more.

    Raises:
        ArtifactError: if the weights do not fit the description.
    """
    settings = build(AutoencoderSettings, described["settings"], "autoencoder")
    made = new_autoencoder(settings, described["channels"], seed=0)
    try:
        made.load_state_dict(tensors)
    except RuntimeError as error:
        raise ArtifactError(f"the autoencoder's weights do not fit it ({error}); rerun the stage.") from error
    return made.eval().requires_grad_(False)


def train_autoencoder(
    images: np.ndarray,
    settings: AutoencoderSettings,
    seed: int,
    *,
    sigma_data: float,
    horizontal_flip: bool,
    checkpoint: Checkpoint | None,
    compute: Compute,
    group: Group = ALONE,
) -> Autoencoder:
    """An autoencoder trained on public images uint8 [N, H, W, C]; its latents have the standard deviation sigma_data.

    It is the average of the weights over the steps, the same in all processes. ``checkpoint`` is the leader's, of which
    it takes the parts ``TRAINING`` and ``TRAINED``.

    Raises:
        UserError: if the weights are no longer finite.
    """
    made = compute.place(new_autoencoder(settings, images.shape[3], seed))
    data = Images(images, np.zeros(len(images), np.int64), compute.device)
    kept = checkpoint.load(TRAINED) if checkpoint else None
    if kept:
        made.load_state_dict(kept[0])
    if group.numbers([0 if kept else 1]) == [1]:
        made = _trained(made, data, images.shape, settings, seed, horizontal_flip, checkpoint, compute, group)
        _to_unit(made, data, sigma_data)
        if checkpoint:
            checkpoint.save(made.state_dict(), {}, TRAINED)
    spread(made.state_dict(), group)
    return made.eval().requires_grad_(False)


def _trained(
    model: Autoencoder,
    data: Images,
    shape: tuple[int, ...],
    settings: AutoencoderSettings,
    seed: int,
    horizontal_flip: bool,
    checkpoint: Checkpoint | None,
    compute: Compute,
    group: Group,
) -> Autoencoder:
    num, part = settings.batch_size, group.part(settings.batch_size)
    latents = (settings.latent_channels, *(side // settings.factor for side in shape[1:3]))

    def draw(step: int) -> tuple[Tensor, Tensor]:
        generator = generator_for(seed, step, DRAW, device=compute.device)
        where = {"generator": generator, "device": generator.device}
        index = torch.randint(shape[0], (num,), **where)
        flip = torch.rand(num, **where) < (0.5 if horizontal_flip else 0.0)
        noise = torch.randn(num, *latents, **where)
        return data.at(index[part], flip[part])[0], noise[part]

    losses = _Losses(model, compute)
    return descend(model, losses, draw, settings, "pretrain.autoencoder", checkpoint, compute, group, TRAINING)


class _Losses(nn.Module):
    """The loss [B] of each image of a batch of images and noise for their latents."""

    def __init__(self, model: Autoencoder, compute: Compute) -> None:
        super().__init__()
        self.model, self.losses = model, compute.compiled(per_image_loss)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.losses(self.model, *batch)


def per_image_loss(model: Autoencoder, x: Tensor, noise: Tensor) -> Tensor:
    """The loss [B] of each image: its squared error, and the weighted divergence of its latents."""
    mean, log_variance = model.posterior(x)
    error = (model.decoder(mean + noise * (log_variance / 2).exp()) - x).square().flatten(1).mean(1)
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).mean(1) / 2
    return error + model.settings.kl_weight * divergence


def _to_unit(model: Autoencoder, data: Images, sigma_data: float) -> None:
    """Each channel of the latents has the mean 0 and the standard deviation ``sigma_data`` over public images."""
    num = len(data.labels)
    index = torch.from_numpy(np.linspace(0, num - 1, min(num, MEASURED)).astype(np.int64))
    latents = torch.cat([model.encode(data.at(rows)[0]).double() for rows in index.split(BATCH)])  # [n, C', h, w]
    std, mean = torch.std_mean(latents, dim=(0, 2, 3), correction=0)
    model.shift.copy_(mean[:, None, None])
    model.scale.copy_((std / sigma_data).clamp(min=1e-6)[:, None, None])
