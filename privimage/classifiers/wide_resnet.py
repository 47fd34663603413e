"""Wide residual networks for small images: normalisation and activation before each convolution.

Source: Zagoruyko & Komodakis 2016: WRN-28-10 has 36.5 million parameters and WRN-40-4 8.9, at RGB and ten classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEM = 16
STAGES = 3


class WideResNet(nn.Module):
    """Class scores of images of at least 4 pixels; ``depth`` is 6 n + 4, ``width`` multiplies the channels.

    Shapes: [B, C, H, W] -> [B, num_classes].
    """

    def __init__(self, depth: int, width: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, STEM, 3, padding=1, bias=False)
        blocks, inside = [], STEM
        for stage in range(STAGES):
            for index in range((depth - 4) // 6):
                outside = STEM * width * 2**stage
                blocks.append(WideBlock(inside, outside, stride=2 if stage and not index else 1))
                inside = outside
        self.blocks = nn.Sequential(*blocks, nn.BatchNorm2d(inside), nn.ReLU())
        self.head = nn.Linear(inside, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """The scores before the softmax."""
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))


class WideBlock(nn.Module):
    """Two convolutions beside a shortcut, which sees the activated input where it must change the shape."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(inside), nn.ReLU())
        self.residual = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, padding=1, bias=False),
        )
        same = stride == 1 and inside == outside
        self.shortcut = None if same else nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inside, H, W] -> [B, outside, H / stride, W / stride]."""
        h = self.activate(x)
        return torch.add(x if self.shortcut is None else self.shortcut(h), self.residual(h))
