"""A residual network for small images: no early downsampling, so that 8 or 32 pixels are enough.

Source: He et al. 2016 (blocks); the form for 32 pixels that the paper trains on ImageNet: a 3x3
stem with stride 1, no max-pooling, the stride of a bottleneck in its 3x3 convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from privimage.settings import ClassifierSettings

EXPANSION = 4  # what a bottleneck gives out over its width


class ResNet(nn.Module):
    """Class scores, and the features before them.

    Shapes: [B, C, H, W] -> [B, num_classes].
    """

    def __init__(self, settings: ClassifierSettings, channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(channels, settings.base_channels, 3), nn.ReLU())
        blocks, inside = [], settings.base_channels
        for level, count in enumerate(settings.blocks_per_level):
            for index in range(count):
                stride = 2 if level > 0 and index == 0 else 1
                blocks.append(ResidualBlock(settings.block, inside, settings.base_channels * 2**level, stride))
                inside = blocks[-1].out_channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inside, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees: [B, C, H, W] -> [B, F]."""
        h = self.blocks(self.stem(x))  # [B, F, h, w]
        return h.mean(dim=(2, 3))  # [B, F]

    def forward(self, x: Tensor) -> Tensor:
        """The scores before the softmax: [B, C, H, W] -> [B, num_classes]."""
        return self.head(self.features(x))


class ResidualBlock(nn.Module):
    """Two or three convolutions beside a shortcut, which is a 1x1 convolution where shapes differ."""

    def __init__(self, kind: str, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.out_channels = width if kind == "basic" else width * EXPANSION
        build = _basic if kind == "basic" else _bottleneck
        self.residual = build(inside, width, stride)
        same = stride == 1 and inside == self.out_channels
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_norm(inside, self.out_channels, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inside, H, W] -> [B, out_channels, H / stride, W / stride]."""
        return torch.relu(self.shortcut(x) + self.residual(x))


def conv_norm(inside: int, outside: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """A convolution that keeps the size at stride 1, and its normalisation, which makes a bias useless."""
    conv = nn.Conv2d(inside, outside, kernel, stride, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(outside)


def _basic(inside: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(*conv_norm(inside, width, 3, stride), nn.ReLU(), *conv_norm(width, width, 3))


def _bottleneck(inside: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *conv_norm(inside, width, 1),
        nn.ReLU(),
        *conv_norm(width, width, 3, stride),
        nn.ReLU(),
        *conv_norm(width, width * EXPANSION, 1),
    )
