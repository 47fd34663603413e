"""Samplers against the closed-form flow of Gaussian data: D is known, and so is where every point ends."""

import pytest
import torch

from privimage.diffusion.sampler import SAMPLERS, ddim, dpmpp2m, guided, heun, noise_levels, unconditional

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


@pytest.mark.parametrize("sampler, order", [(heun, 2), (ddim, 1), (dpmpp2m, 2)])
def test_the_error_falls_with_the_order_of_the_sampler(sampler, order):
    for coarse in (40, 80):
        assert error(sampler, coarse) / error(sampler, 2 * coarse) == pytest.approx(2**order, rel=0.2)


def test_at_equal_evaluations_second_order_is_nearer_to_the_flow_and_the_multistep_solver_nearest():
    assert error(dpmpp2m, 39) < error(heun, 20) / 3
    assert error(heun, 20) < error(ddim, 39)


@pytest.mark.parametrize("sampler", SAMPLERS.values())
def test_one_step_ends_at_the_first_guess(sampler):
    start, labels = torch.randn(5, 1, 2, 2, dtype=torch.float64), torch.zeros(5, dtype=torch.int64)
    out = sampler(gaussian_denoiser, start, labels, noise_levels(1, 0.002, 80.0, 7.0))
    guess = gaussian_denoiser(80 * start, torch.full((5,), 80.0), labels)
    assert torch.allclose(out, guess, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler, evaluations", [(heun, 2 * 7 - 1), (ddim, 7), (dpmpp2m, 7)])
def test_every_image_is_evaluated_as_often_as_the_order_says_with_its_own_label(sampler, evaluations):
    seen = []

    def denoise(x, sigma, labels):
        seen.append(sigma[0].item())
        return labels.to(x.dtype)[:, None, None, None].expand_as(x)  # each label's images are one constant

    labels = torch.tensor([0, 1, 2])
    out = sampler(denoise, torch.randn(3, 1, 2, 2), labels, noise_levels(7, 0.002, 80.0, 7.0))
    assert torch.allclose(out, labels.float()[:, None, None, None].expand_as(out), atol=1e-6)
    assert len(seen) == evaluations
    assert min(seen) > 0


@pytest.mark.parametrize("sampler", SAMPLERS.values())
def test_single_precision_stays_finite_down_to_the_smallest_levels(sampler):
    def denoise(x, sigma, labels):
        return gaussian_denoiser(x, sigma, labels).to(x.dtype)

    start, labels = torch.randn(16, 1, 2, 2), torch.zeros(16, dtype=torch.int64)
    out = sampler(denoise, start, labels, noise_levels(200, 1e-6, 80.0, 7.0))
    assert out.dtype == torch.float32
    assert torch.allclose(out, exact(start, 80.0), atol=0.03)


@pytest.mark.parametrize("sampler", SAMPLERS.values())
def test_a_guided_sampler_follows_the_guided_guess(sampler):
    def denoise(x, sigma, labels):
        return labels.to(x.dtype)[:, None, None, None].expand_as(x)

    start, labels = torch.zeros(2, 1, 1, 1), torch.tensor([0, 1])
    guess = guided(denoise, unconditional(denoise, 5), 2.0)
    out = sampler(guess, start, labels, noise_levels(7, 0.002, 80.0, 7.0))
    assert out.flatten().tolist() == pytest.approx([0 + 2 * (0 - 5), 1 + 2 * (1 - 5)], abs=1e-4)


def test_guidance_of_zero_changes_nothing_and_more_pushes_away_from_no_label():
    def denoise(x, sigma, labels):
        return labels.to(x.dtype)[:, None, None, None].expand_as(x)

    x, sigma, labels = torch.zeros(2, 1, 1, 1), torch.ones(2), torch.tensor([0, 1])
    away = unconditional(denoise, 5)
    assert guided(denoise, away, 0.0) is denoise
    out = guided(denoise, away, 2.0)(x, sigma, labels).flatten()
    assert out.tolist() == [0 + 2 * (0 - 5), 1 + 2 * (1 - 5)]


@pytest.mark.parametrize("sigma, pushed", [(0.09, False), (0.1, True), (0.3, True), (0.31, False)])
def test_outside_its_noise_levels_guidance_asks_nobody(sigma, pushed):
    asked = []

    def away(x, sigma, labels):
        asked.append(float(sigma[0]))
        return torch.ones_like(x)

    guess = guided(lambda x, sigma, labels: torch.zeros_like(x), away, 0.5, 0.1, 0.3)
    levels = torch.full((2,), sigma)  # in single precision 0.3 is above 0.3
    out = guess(torch.zeros(2, 1, 1, 1), levels, torch.zeros(2, dtype=torch.int64))
    assert out.flatten().tolist() == [-0.5 * pushed] * 2 and len(asked) == pushed


@pytest.mark.parametrize("sampler", SAMPLERS.values())
def test_noise_levels_follow_the_images_to_their_device(sampler):
    start, labels = torch.empty(2, 1, 2, 2, device="meta"), torch.empty(2, dtype=torch.int64, device="meta")
    assert sampler(gaussian_denoiser, start, labels, noise_levels(4, 0.002, 80.0, 7.0)).device.type == "meta"
