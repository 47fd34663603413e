"""ResNet-9 has the published size, and works on the smallest images."""

import pytest
import torch
from torch import nn

from privimage.classifiers.resnet9 import Residual, ResNet9


def test_published_size():
    network = ResNet9(64, channels=3, num_classes=10)
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_274_880


@pytest.mark.parametrize(("channels", "resolution"), [(1, 4), (1, 8), (3, 32)])
def test_scores_and_gradients(channels, resolution):
    network = ResNet9(4, channels, num_classes=7)
    scores = network(torch.randn(3, channels, resolution, resolution))
    assert scores.shape == (3, 7)
    scores.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_a_residual_without_layers_is_the_identity():
    residual, x = Residual(3), torch.randn(2, 3, 4, 4)
    nn.init.zeros_(residual.layers[-2].weight)
    torch.testing.assert_close(residual(x), x)
