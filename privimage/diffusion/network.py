"""The network inside the denoiser: DDPM++ with BigGAN residual blocks, as PrivImage uses it.

Every layer is used once in a forward pass, no layer mixes images, and none adds to its input in place: per-image
gradients rest on that.

Source: Song et al. 2021, appendix H (DDPM++); Li et al. 2024, table of network sizes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from privimage.settings import NetworkSettings

ROOT_HALF = math.sqrt(0.5)


class UNet(nn.Module):
    """Maps a noisy image, its noise level and its label to an image-shaped output.

    ``num_labels`` counts the classes; index ``num_labels`` means 'no label'. A single class needs no embedding:
    the network is then unconditional.
    """

    def __init__(self, settings: NetworkSettings, resolution: int, channels: int, num_labels: int) -> None:
        super().__init__()
        base, multipliers = settings.widths(resolution)
        self.num_labels, self.base_channels, blocks = num_labels, base, settings.num_res_blocks
        embedding = 4 * base
        self.label_embedding = nn.Embedding(num_labels + 1, base) if num_labels > 1 else None
        self.embed_in, self.embed_out = linear(base, embedding), linear(embedding, embedding)
        self.conv_in = conv3(channels, base)

        sizes = [resolution // 2**level for level in range(len(multipliers))]
        self.down, skips, width = nn.ModuleList(), [base], base
        for level, (size, multiplier) in enumerate(zip(sizes, multipliers)):
            for _ in range(blocks):
                attend = size in settings.attention_resolutions
                self.down.append(Stage(width, base * multiplier, embedding, attend=attend))
                width = base * multiplier
                skips.append(width)
            if level < len(sizes) - 1:
                self.down.append(Stage(width, width, embedding, resample="down"))
                skips.append(width)

        self.middle = nn.ModuleList([Stage(width, width, embedding, attend=True), Stage(width, width, embedding)])

        self.up = nn.ModuleList()
        for level, (size, multiplier) in reversed(list(enumerate(zip(sizes, multipliers)))):
            for block in range(blocks + 1):
                attend = size in settings.attention_resolutions and block == blocks
                stage = Stage(width + skips.pop(), base * multiplier, embedding, attend=attend, joins=True)
                self.up.append(stage)
                width = base * multiplier
            if level > 0:
                self.up.append(Stage(width, width, embedding, resample="up"))

        self.norm_out, self.conv_out = group_norm(width), conv3(width, channels, scale=0.0)

    def forward(self, x: Tensor, noise_condition: Tensor, labels: Tensor) -> Tensor:
        """The output [N, C, H, W] for images [N, C, H, W], conditions [N] and labels [N]."""
        e = sinusoid(noise_condition, self.base_channels)  # [N, base]
        if self.label_embedding is not None:
            e = e + self.label_embedding(labels)
        e = F.silu(self.embed_out(F.silu(self.embed_in(e))))  # [N, 4 base]
        h = self.conv_in(x)
        skips = [h]
        for stage in self.down:
            h = stage(h, e)
            skips.append(h)
        for stage in self.middle:
            h = stage(h, e)
        for stage in self.up:
            h = stage(torch.cat([h, skips.pop()], dim=1) if stage.joins else h, e)
        return self.conv_out(F.silu(self.norm_out(h)))


class Stage(nn.Module):
    """A residual block, with self-attention after it if asked."""

    def __init__(
        self, c_in: int, c_out: int, embedding: int, *, attend: bool = False, resample: str = "", joins: bool = False
    ) -> None:
        super().__init__()
        self.joins = joins
        self.block = ResidualBlock(c_in, c_out, embedding, resample)
        self.attention = Attention(c_out) if attend else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """[N, c_in, H, W] and the embedding [N, E] to [N, c_out, H', W']."""
        return self.attention(self.block(x, e))


class ResidualBlock(nn.Module):
    """Norm, activation, convolution, twice; the embedding is added between (BigGAN, with naive resampling)."""

    def __init__(self, c_in: int, c_out: int, embedding: int, resample: str) -> None:
        super().__init__()
        self.resample = resample
        self.norm_1, self.conv_1 = group_norm(c_in), conv3(c_in, c_out)
        self.embed = linear(embedding, c_out)
        self.norm_2, self.conv_2 = group_norm(c_out), conv3(c_out, c_out, scale=0.0)
        plain = c_in == c_out and not resample
        self.shortcut = nn.Identity() if plain else conv1(c_in, c_out)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """[N, c_in, H, W] to [N, c_out, H', W']."""
        h = self.conv_1(self._resize(F.silu(self.norm_1(x))))
        h = h + self.embed(e)[:, :, None, None]
        h = self.conv_2(F.silu(self.norm_2(h)))
        return (self.shortcut(self._resize(x)) + h) * ROOT_HALF

    def _resize(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return x


class Attention(nn.Module):
    """Single-head self-attention over all positions of one image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.query, self.key, self.value = (
            conv1(channels, channels),
            conv1(channels, channels),
            conv1(channels, channels),
        )
        self.out = conv1(channels, channels, scale=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, H, W]."""
        h = self.norm(x)
        q, k, v = self.query(h).flatten(2), self.key(h).flatten(2), self.value(h).flatten(2)  # [N, C, HW]
        weights = torch.softmax(q.transpose(1, 2) @ k * q.shape[1] ** -0.5, dim=-1)  # [N, HW, HW]
        h = (v @ weights.transpose(1, 2)).reshape(x.shape)  # [N, C, H, W]
        return (x + self.out(h)) * ROOT_HALF


def sinusoid(values: Tensor, width: int) -> Tensor:
    """Sines and cosines [N, width] of values [N], frequencies from 1 down to 1/10000."""
    half = width // 2
    exponents = torch.arange(half, dtype=values.dtype, device=values.device) / (half - 1)
    angles = values[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with up to 32 groups of at least four channels."""
    groups = next(g for g in range(min(max(channels // 4, 1), 32), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6)


def linear(c_in: int, c_out: int) -> nn.Linear:
    """A linear layer, initialised like every layer here."""
    return _initialised(nn.Linear(c_in, c_out), 1.0)


def conv3(c_in: int, c_out: int, scale: float = 1.0) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size; ``scale`` 0 starts it at next to nothing."""
    return _initialised(nn.Conv2d(c_in, c_out, 3, padding=1), scale)


def conv1(c_in: int, c_out: int, scale: float = 1.0) -> nn.Conv2d:
    """A 1x1 convolution."""
    return _initialised(nn.Conv2d(c_in, c_out, 1), scale)


def _initialised(layer: nn.Linear | nn.Conv2d, scale: float) -> nn.Linear | nn.Conv2d:
    """Variance scaling over the mean of the fans, uniform; biases zero."""
    fan_in = layer.weight[0].numel()
    fan_out = layer.weight[:, 0].numel()
    bound = math.sqrt(3 * max(scale, 1e-10) / ((fan_in + fan_out) / 2))
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound)
        layer.bias.zero_()
    return layer
