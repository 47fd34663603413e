"""A batch normalisation that may be shared is torch's own where there is nothing to share."""

import copy

import pytest
import torch
from torch import nn

from privimage.classifiers.shared_norm import SharedBatchNorm2d, share_statistics
from privimage.distributed import ALONE, Group


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_output_gradients_and_running_statistics_are_those_of_torch(precision):
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(3)
    nn.init.normal_(plain.weight), nn.init.normal_(plain.bias)
    shared = SharedBatchNorm2d(copy.deepcopy(plain), ALONE)
    x, seen = 3 * torch.randn(4, 3, 5, 5) + 7, []
    for norm in (plain, shared):
        given = x.clone().to(precision).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            y = norm(given)
        (y.float() ** 3).sum().backward()
        quiet = norm.eval()(x)
        seen.append([y, given.grad, norm.weight.grad, norm.bias.grad, quiet, *norm.state_dict().values()])
    rough = {} if precision == torch.float32 else {"rtol": 2e-2, "atol": 2e-1}
    for ours, theirs in zip(*seen, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, **rough)


def test_a_network_keeps_its_weights_and_their_names_and_alone_everything():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.BatchNorm2d(2)))
    norm, before, weights = network[1][0], list(network.state_dict()), list(network.parameters())
    share_statistics(network, ALONE)
    assert network[1][0] is norm
    share_statistics(network, Group(0, 2))
    assert isinstance(network[1][0], SharedBatchNorm2d)
    assert list(network.state_dict()) == before
    assert all(a is b for a, b in zip(weights, network.parameters(), strict=True))
