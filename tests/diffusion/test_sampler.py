"""Samplers against the closed-form flow of Gaussian data: D is known, and so is where every point ends."""

import pytest
import torch

from privimage.diffusion.sampler import ddim, guided, heun, noise_levels

MEAN, STD = 0.3, 0.5


def gaussian_denoiser(x, sigma, labels):
    s = sigma[:, None, None, None].double()
    return (STD**2 * x + s**2 * MEAN) / (STD**2 + s**2)


def exact(start, sigma_max):
    """The flow keeps (x - mean) / root(std^2 + sigma^2) constant."""
    x = sigma_max * start
    return MEAN + (x - MEAN) * STD / (STD**2 + sigma_max**2) ** 0.5


def error(sampler, num_steps):
    start = torch.randn(64, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    levels = noise_levels(num_steps, 0.002, 80.0, 7.0)
    out = sampler(gaussian_denoiser, start, torch.zeros(64, dtype=torch.int64), levels)
    return (out - exact(start, 80.0)).abs().max().item()


def test_grid_falls_from_the_largest_level_to_zero():
    levels = noise_levels(18, 0.002, 80.0, 7.0)
    assert levels[0].item() == pytest.approx(80)
    assert levels[-2].item() == pytest.approx(0.002)
    assert levels[-1] == 0
    assert (levels.diff() < 0).all()


def test_heun_is_second_order_and_ddim_first_order():
    assert error(heun, 80) < 0.005
    assert error(heun, 80) < error(heun, 40) / 3
    assert error(ddim, 80) < error(ddim, 40) / 1.6
    assert error(heun, 40) < error(ddim, 40)


def test_guidance_of_zero_changes_nothing_and_more_pushes_away_from_no_label():
    def denoise(x, sigma, labels):
        return labels.to(x.dtype)[:, None, None, None].expand_as(x)

    x, sigma, labels = torch.zeros(2, 1, 1, 1), torch.ones(2), torch.tensor([0, 1])
    assert guided(denoise, 0.0, 5) is denoise
    out = guided(denoise, 2.0, 5)(x, sigma, labels).flatten()
    assert out.tolist() == [0 + 2 * (0 - 5), 1 + 2 * (1 - 5)]


@pytest.mark.parametrize("sampler", [heun, ddim])
def test_noise_levels_follow_the_images_to_their_device(sampler):
    start, labels = torch.empty(2, 1, 2, 2, device="meta"), torch.empty(2, dtype=torch.int64, device="meta")
    assert sampler(gaussian_denoiser, start, labels, noise_levels(4, 0.002, 80.0, 7.0)).device.type == "meta"
