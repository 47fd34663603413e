"""The network against the published parameter counts, and the properties that per-image gradients rest on."""

import pytest
import torch

from privimage.diffusion.network import UNet, sinusoid
from privimage.settings import NetworkSettings

CIFAR = dict(attention_resolutions=(16,))
CELEBA = dict(attention_resolutions=(8, 16))


PUBLISHED = {  # parameters of CIFAR-10 (ten classes), CelebA at 32 and at 64 pixels (none): Li et al. 2024
    "s": (1_754_499, 1_804_451, 1_999_907),
    "m": (3_954_563, 4_153_123, 4_348_579),
    "b": (6_077_123, 6_275_683, 6_471_139),
    "bm": (15_708_291, 16_153_059, 17_900_643),
    "bb": (27_907_587, 28_697_219, 31_801_475),
}


def num_parameters(settings, resolution, num_labels):
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(settings, resolution, 3, num_labels).parameters())


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameter_counts_equal_the_published_ones(size):
    shapes = ((CIFAR, 32, 10), (CELEBA, 32, 1), (CELEBA, 64, 1))
    assert tuple(num_parameters(NetworkSettings(size=size, **a), r, n) for a, r, n in shapes) == PUBLISHED[size]


def test_the_largest_published_network_has_the_published_parameters():
    assert num_parameters(NetworkSettings(size="bbbb", **CIFAR), 32, 10) == 88_578_819


def test_the_default_is_the_smallest_published_size():
    assert num_parameters(NetworkSettings(**CIFAR), 32, 10) == PUBLISHED["s"][0]


def small(num_labels=3, resolution=8, channels=1):
    settings = NetworkSettings(
        base_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,)
    )
    network = UNet(settings, resolution, channels, num_labels).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return network


@pytest.mark.parametrize(("resolution", "channels", "num_labels"), [(8, 1, 3), (12, 3, 1), (16, 3, 2)])
def test_output_has_the_shape_of_the_input(resolution, channels, num_labels):
    x = torch.randn(2, channels, resolution, resolution, dtype=torch.float64)
    out = small(num_labels, resolution, channels)(x, torch.zeros(2).double(), torch.tensor([0, num_labels - 1]))
    assert out.shape == x.shape


def test_no_layer_mixes_images():
    network, generator = small(), torch.Generator().manual_seed(1)
    x = torch.randn(3, 1, 8, 8, generator=generator, dtype=torch.float64)
    condition, labels = torch.tensor([-1.0, 0.0, 1.0]).double(), torch.tensor([0, 1, 3])
    together = network(x, condition, labels)
    alone = torch.cat([network(x[i : i + 1], condition[i : i + 1], labels[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)


def test_label_and_noise_level_both_change_the_output():
    network, x = small(), torch.randn(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    base = network(x, zero, torch.tensor([0]))
    assert not torch.allclose(base, network(x, zero, torch.tensor([1])))
    assert not torch.allclose(base, network(x, one, torch.tensor([0])))


def test_sinusoid_of_zero_is_zeros_and_ones():
    assert sinusoid(torch.zeros(1), 6).tolist() == [[0, 0, 0, 1, 1, 1]]
