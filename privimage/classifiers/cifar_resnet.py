"""The residual networks for CIFAR: 6 n + 2 layers deep, 16, 32 and 64 channels wide, without a weight in a shortcut.

Source: He et al. 2016, section 4.2 ("option A": a shortcut that halves the size drops every second pixel and pads the
channels with zeros). The names of the weights are those of the published ones (Idelbayev 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (16, 32, 64)


class CifarResNet(nn.Module):
    """Class scores, and the features before them.

    Shapes: [B, C, H, W] -> [B, num_classes].
    """

    def __init__(self, depth: int, channels: int, num_classes: int) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"a CIFAR ResNet has 6 n + 2 layers, such as 20 or 56; got {depth}")
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        count = (depth - 2) // 6
        self.layer1 = _level(WIDTHS[0], WIDTHS[0], 1, count)
        self.layer2 = _level(WIDTHS[0], WIDTHS[1], 2, count)
        self.layer3 = _level(WIDTHS[1], WIDTHS[2], 2, count)
        self.linear = nn.Linear(WIDTHS[2], num_classes)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees: [B, C, H, W] -> [B, 64]."""
        h = torch.relu(self.bn1(self.conv1(x)))
        h = self.layer3(self.layer2(self.layer1(h)))  # [B, 64, H/4, W/4]
        return h.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """The scores before the softmax."""
        return self.linear(self.features(x))


class Block(nn.Module):
    """Two convolutions beside a shortcut that has no weights."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, (outside - inside) // 2  # channels on either side
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inside, H, W] -> [B, outside, H / stride, W / stride]."""
        h = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return torch.relu(h + shortcut)


def _level(inside: int, outside: int, stride: int, count: int) -> nn.Sequential:
    blocks = [Block(inside, outside, stride), *(Block(outside, outside, 1) for _ in range(count - 1))]
    return nn.Sequential(*blocks)
