"""Generator and discriminator of BigGAN's shape, the discriminator such that DP-SGD can train it.

The discriminator has group normalisation where others have spectral or batch normalisation: no layer of it mixes
images, each is used once in a forward pass and none adds to its input in place; per-image gradients rest on that.

Source: Brock et al. 2019 (BigGAN); Kang et al. 2023 (StudioGAN), whose structure gives the sizes that Li et al. 2024
used; Miyato & Koyama 2018 (projection discriminator); Zhang et al. 2019 (self-attention).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from privimage.errors import UserError
from privimage.gan.settings import GanNetworkSettings


class Generator(nn.Module):
    """Maps latent vectors and labels to images. A single class needs no embedding: it is then unconditional."""

    def __init__(self, settings: GanNetworkSettings, resolution: int, channels: int, num_labels: int) -> None:
        super().__init__()
        widths = [multiplier * settings.conv_dim for multiplier in settings.generator_multipliers]
        blocks = len(widths) - 1
        self.side, self.chunk = resolution >> blocks, settings.z_dim // len(widths)
        if self.side << blocks != resolution or not self.side:
            raise UserError(
                f"{blocks} blocks that double the resolution do not lead to {resolution} pixels; set "
                "generator_multipliers to one entry more than the blocks that do."
            )
        if not self.chunk:
            raise UserError(f"z_dim is {settings.z_dim}; expected at least {len(widths)}, one for each block and stem.")
        self.latent_size = self.chunk * len(widths)
        self.label_embedding = nn.Embedding(num_labels, settings.shared_dim) if num_labels > 1 else None
        condition = self.chunk + (settings.shared_dim if num_labels > 1 else 0)
        self.stem = nn.Linear(self.chunk, widths[0] * self.side**2)
        self.blocks = nn.ModuleList(GeneratorBlock(*pair, condition) for pair in zip(widths, widths[1:]))
        self.attention_after = settings.attention_after
        attends = 1 <= settings.attention_after <= blocks
        self.attention = SelfAttention(widths[settings.attention_after]) if attends else None
        self.norm_out, self.conv_out = nn.BatchNorm2d(widths[-1]), conv3(widths[-1], channels)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Images [N, C, H, W] in [-1, 1] for latent vectors [N, latent_size] and labels [N]."""
        first, *rest = z.split(self.chunk, dim=1)  # each [N, chunk]
        h = self.stem(first).unflatten(1, (-1, self.side, self.side))  # [N, width, side, side]
        shared = [] if self.label_embedding is None else [self.label_embedding(labels)]
        for number, (block, part) in enumerate(zip(self.blocks, rest), start=1):
            h = block(h, torch.cat([part, *shared], dim=1))
            if self.attention is not None and number == self.attention_after:
                h = self.attention(h)
        return torch.tanh(self.conv_out(F.relu(self.norm_out(h))))


class GeneratorBlock(nn.Module):
    """A residual block that doubles the resolution, its normalisation conditioned on latent vector and label."""

    def __init__(self, c_in: int, c_out: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = ConditionalNorm(c_in, condition), conv3(c_in, c_out)
        self.norm2, self.conv2 = ConditionalNorm(c_out, condition), conv3(c_out, c_out)
        self.skip = conv1(c_in, c_out)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """[N, c_out, 2H, 2W] for x [N, c_in, H, W] and conditions [N, condition]."""
        h = self.conv1(doubled(F.relu(self.norm1(x, condition))))
        h = self.conv2(F.relu(self.norm2(h, condition)))
        return h + doubled(self.skip(x))  # one pixel at a time, so before it is doubled


class ConditionalNorm(nn.Module):
    """Batch normalisation whose scale and shift depend on a condition."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.shift = (nn.Linear(condition, channels, bias=False) for _ in range(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [N, C, H, W], normalised, scaled and shifted by what conditions [N, condition] say."""
        return self.norm(x) * (1 + self.gain(condition)[:, :, None, None]) + self.shift(condition)[:, :, None, None]


class SelfAttention(nn.Module):
    """Each pixel adds what it finds among all others, a quarter of them at most; at first nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.query, self.key = conv1(channels, narrow, bias=False), conv1(channels, narrow, bias=False)
        self.value, self.out = conv1(channels, half, bias=False), conv1(half, channels, bias=False)
        self.strength = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] for x [N, C, H, W]."""
        q = self.query(x).flatten(2).transpose(1, 2)  # [N, H*W, narrow]
        k = F.max_pool2d(self.key(x), 2).flatten(2)  # [N, narrow, H*W/4]
        v = F.max_pool2d(self.value(x), 2).flatten(2)  # [N, half, H*W/4]
        found = v @ (q @ k).softmax(dim=2).transpose(1, 2)  # [N, half, H*W]
        return x + self.strength * self.out(found.unflatten(2, x.shape[2:]))


class Discriminator(nn.Module):
    """Scores images, real ones high, with a projection on the label's embedding where there are labels."""

    def __init__(self, settings: GanNetworkSettings, resolution: int, channels: int, num_labels: int) -> None:
        super().__init__()
        widths = [multiplier * settings.conv_dim for multiplier in settings.discriminator_multipliers]
        halvings = settings.discriminator_halvings
        if halvings > len(widths) or resolution % 2**halvings:
            raise UserError(
                f"discriminator_halvings is {halvings}; expected at most {len(widths)}, the number of blocks, and "
                f"{resolution} pixels to be divisible by so many twos."
            )
        self.first = FirstBlock(channels, widths[0], halves=halvings > 0)
        pairs = enumerate(zip(widths, widths[1:]), start=1)
        self.blocks = nn.ModuleList(DiscriminatorBlock(*pair, halves=number < halvings) for number, pair in pairs)
        self.score = nn.Linear(widths[-1], 1)
        self.label_embedding = nn.Embedding(num_labels, widths[-1]) if num_labels > 1 else None

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Scores [N] of images [N, C, H, W] in [-1, 1] under labels [N]."""
        h = self.first(x)
        for block in self.blocks:
            h = block(h)
        h = F.relu(h).sum(dim=(2, 3))  # [N, width]
        score = self.score(h)[:, 0]
        return score if self.label_embedding is None else score + (self.label_embedding(labels) * h).sum(dim=1)


class FirstBlock(nn.Module):
    """The discriminator's first residual block, which starts at pixels."""

    def __init__(self, c_in: int, c_out: int, *, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.conv1, self.norm1, self.conv2 = conv3(c_in, c_out), group_norm(c_out), conv3(c_out, c_out)
        self.norm_skip, self.skip = group_norm(c_in), conv1(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        """[N, c_out, H/2, W/2] for images [N, c_in, H, W] if it halves, else [N, c_out, H, W]."""
        h = self.conv2(F.relu(self.norm1(self.conv1(x))))
        if self.halves:
            h, x = halved(h), halved(x)
        return h + self.skip(self.norm_skip(x))


class DiscriminatorBlock(nn.Module):
    """A residual block of the discriminator."""

    def __init__(self, c_in: int, c_out: int, *, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.norm1, self.conv1 = group_norm(c_in), conv3(c_in, c_out)
        self.norm2, self.conv2 = group_norm(c_out), conv3(c_out, c_out)
        changes = halves or c_in != c_out
        self.norm_skip, self.skip = (group_norm(c_in), conv1(c_in, c_out)) if changes else (None, None)

    def forward(self, x: Tensor) -> Tensor:
        """[N, c_out, H/2, W/2] for x [N, c_in, H, W] if it halves, else [N, c_out, H, W]."""
        h = self.conv1(F.relu(self.norm1(x)))
        h = self.conv2(F.relu(self.norm2(h)))
        if self.skip is not None:
            x = self.norm_skip(x)
            x = self.skip(halved(x) if self.halves else x)  # one pixel at a time, so after it is halved
        return (halved(h) if self.halves else h) + x


def conv1(c_in: int, c_out: int, *, bias: bool = True) -> nn.Conv2d:
    """A convolution that looks at each pixel alone."""
    return nn.Conv2d(c_in, c_out, 1, bias=bias)


def conv3(c_in: int, c_out: int) -> nn.Conv2d:
    """A convolution of three by three pixels."""
    return nn.Conv2d(c_in, c_out, 3, padding=1)


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation in at most 32 groups of at least four channels; a few colours are one group, and stay colours."""
    groups = next(n for n in range(max(1, min(32, channels // 4)), 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels)


def doubled(x: Tensor) -> Tensor:
    """Each pixel four times."""
    return F.interpolate(x, scale_factor=2)


def halved(x: Tensor) -> Tensor:
    """The mean of each four pixels."""
    return F.avg_pool2d(x, 2)
