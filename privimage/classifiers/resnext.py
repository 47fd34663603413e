"""ResNeXt for small images: bottlenecks whose middle convolution falls into groups.

Source: Xie et al. 2017, section 5.3: ResNeXt-29, 8x64d has 34.4 million parameters at RGB and ten classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from privimage.classifiers.resnet import conv_norm

STEM = 64
STAGES = 3
EXPANSION = 4  # what the first stage gives out over the stem


class ResNeXt(nn.Module):
    """Class scores of images of at least 4 pixels; ``depth`` is 9 n + 2, ``base_width`` that of one group at first.

    Shapes: [B, C, H, W] -> [B, num_classes].
    """

    def __init__(self, depth: int, cardinality: int, base_width: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(channels, STEM, 3), nn.ReLU())
        blocks, inside = [], STEM
        for stage in range(STAGES):
            for index in range((depth - 2) // 9):
                middle, outside = cardinality * base_width * 2**stage, STEM * EXPANSION * 2**stage
                blocks.append(
                    GroupedBlock(inside, middle, outside, cardinality, stride=2 if stage and not index else 1)
                )
                inside = outside
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inside, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """The scores before the softmax."""
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))


class GroupedBlock(nn.Module):
    """A bottleneck in groups beside a shortcut, which is a 1x1 convolution where shapes differ."""

    def __init__(self, inside: int, middle: int, outside: int, groups: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *conv_norm(inside, middle, 1),
            nn.ReLU(),
            nn.Conv2d(middle, middle, 3, stride, padding=1, groups=groups, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            *conv_norm(middle, outside, 1),
        )
        same = stride == 1 and inside == outside
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_norm(inside, outside, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inside, H, W] -> [B, outside, H / stride, W / stride]."""
        return torch.relu(self.shortcut(x) + self.residual(x))
