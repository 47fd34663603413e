"""The residual network has the published size, and the shapes that it promises."""

import pytest
import torch
from torch import nn

from privimage.classifiers.resnet import ResidualBlock, ResNet
from privimage.metrics.torchvision_cpu import prepare_torchvision
from privimage.settings import ClassifierSettings

TINY = ClassifierSettings(block="basic", blocks_per_level=(1, 1), base_channels=4)


def size(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_defaults_are_the_published_resnet50_of_25549352_parameters():
    with torch.device("meta"):
        assert size(ResNet(ClassifierSettings(), channels=3, num_classes=1000)) == 25_549_352


def test_it_is_torchvisions_resnet50_but_for_the_stem():
    prepare_torchvision()
    from torchvision.models import resnet50

    with torch.device("meta"):
        theirs, ours = resnet50(), ResNet(ClassifierSettings(), channels=3, num_classes=1000)
    assert size(theirs) - size(ours) == 64 * 3 * (7 * 7 - 3 * 3)
    shapes = [sorted(tuple(p.shape) for p in list(network.parameters())[1:]) for network in (theirs, ours)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("block", "width"), [("basic", 8), ("bottleneck", 32)])
@pytest.mark.parametrize(("channels", "resolution"), [(1, 8), (3, 32), (3, 7)])
def test_shapes(block, width, channels, resolution):
    settings = ClassifierSettings(block=block, blocks_per_level=(1, 2), base_channels=4)
    network = ResNet(settings, channels, num_classes=5).eval()
    x = torch.randn(2, channels, resolution, resolution)
    assert network.features(x).shape == (2, width)
    torch.testing.assert_close(network(x), network.head(network.features(x)))
    assert network(x).shape == (2, 5)


def test_each_level_after_the_first_halves_the_resolution():
    network = ResNet(ClassifierSettings(block="basic", blocks_per_level=(1, 1, 1), base_channels=2), 1, 2).eval()
    assert network.blocks(network.stem(torch.randn(1, 1, 32, 32))).shape == (1, 8, 8, 8)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_a_block_without_residual_is_its_shortcut(kind):
    width = 4 if kind == "basic" else 1  # gives out four channels either way
    block = ResidualBlock(kind, 4, width, stride=1)
    nn.init.zeros_(block.residual[-1].weight)
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(block(x), x.relu())
    assert ResidualBlock(kind, 4, width, stride=2)(x).shape == (2, 4, 3, 3)


def test_in_evaluation_an_image_is_scored_alone():
    network = ResNet(TINY, 1, 3).eval()
    x = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(network(x)[2:3], network(x[2:3]))
