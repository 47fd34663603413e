"""The residual networks for CIFAR: the published sizes, shortcuts without weights, features before the last layer."""

import pytest
import torch

from privimage.classifiers.cifar_resnet import Block, CifarResNet


@pytest.mark.parametrize(("depth", "parameters"), [(20, 0.27e6), (56, 0.85e6)])
def test_sizes_are_those_of_the_paper(depth, parameters):
    network = CifarResNet(depth, 3, 10)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(parameters, rel=0.02)  # He et al., table 6
    assert sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in network.modules()) == depth


def test_a_shortcut_drops_pixels_and_pads_channels():
    block = Block(16, 32, 2).eval()
    for parameter in block.parameters():
        parameter.data.zero_()  # the residual is zero
    x = torch.rand(2, 16, 8, 8)
    out = block(x)
    assert out.shape == (2, 32, 4, 4)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2]) and not out[:, :8].any() and not out[:, 24:].any()


def test_scores_are_the_last_layer_of_the_features():
    network = CifarResNet(20, 1, 7).eval()
    x = torch.rand(3, 1, 12, 12)
    with torch.no_grad():
        features = network.features(x)
        assert features.shape == (3, 64) and torch.equal(network(x), network.linear(features))


@pytest.mark.parametrize("depth", [2, 55])
def test_other_depths_do_not_exist(depth):
    with pytest.raises(ValueError, match="6 n"):
        CifarResNet(depth, 3, 10)
