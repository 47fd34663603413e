"""ResNet-9: the convolutional network that measures how useful synthetic images are.

Source: the nine-layer network of the evaluation of Li et al. 2024: 2,274,880 parameters at 64 base
channels, RGB and ten classes. Its last convolution is padded here, so that images of 8 pixels pass; that
adds no parameter.
"""

from __future__ import annotations

from torch import Tensor, nn

from privimage.classifiers.resnet import conv_norm

SCORE_SCALE = 0.2  # keeps the first steps small at the published learning rate of 0.1


class ResNet9(nn.Module):
    """Class scores of images of at least 4 pixels.

    Shapes: [B, C, H, W] -> [B, num_classes].
    """

    def __init__(self, base_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        narrow, middle, wide = base_channels, 2 * base_channels, 4 * base_channels
        self.body = nn.Sequential(
            *_layer(channels, narrow, 3),
            *_layer(narrow, middle, 5, stride=2),  # [B, middle, H/2, W/2]
            Residual(middle),
            *_layer(middle, wide, 3),
            nn.MaxPool2d(2),  # [B, wide, H/4, W/4]
            Residual(wide),
            *_layer(wide, middle, 3),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),  # [B, middle]
        )
        self.head = nn.Linear(middle, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The scores before the softmax."""
        return self.head(self.body(x)) * SCORE_SCALE


class Residual(nn.Module):
    """Two layers beside an identity: the shape stays."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_layer(width, width, 3), *_layer(width, width, 3))

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] -> the same."""
        return x + self.layers(x)


def _layer(inside: int, outside: int, kernel: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return *conv_norm(inside, outside, kernel, stride), nn.ReLU()
