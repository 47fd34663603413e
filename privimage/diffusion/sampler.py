"""Solvers of the probability-flow equation over ``D(x, sigma, labels)``.

Source: Karras et al. 2022, algorithm 1 (Heun, without churn); Song et al. 2021 (DDIM, which on this grid is Euler);
Lu et al. 2022, arXiv 2211.01095, algorithm 2 (DPM-Solver++(2M)).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]
ROUNDING = 1e-6  # of a noise level in single precision


def noise_levels(num_steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """The grid [num_steps + 1] of noise levels, falling from ``sigma_max`` to ``sigma_min`` and then 0 (equation 5)."""
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])


def unconditional(denoise: Denoise, no_label: int) -> Denoise:
    """What the denoiser guesses without a label, whatever labels it is given."""
    return lambda x, sigma, labels: denoise(x, sigma, torch.full_like(labels, no_label))


def guided(denoise: Denoise, away: Denoise, scale: float, low: float = 0.0, high: float = math.inf) -> Denoise:
    """The denoiser pushed away from another guess at noise levels from ``low`` to ``high``; scale 0 leaves it as it is.

    Source: Ho & Salimans 2022 (the other guess is its own without a label); Zhong et al. 2025, arXiv 2504.01521 (that
    of the model that it was tuned from); Kynkäänniemi et al. 2024, arXiv 2404.07724 (some levels alone).
    """
    if scale == 0:
        return denoise

    def push(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        guess = denoise(x, sigma, labels)
        if (low, high) != (0, math.inf):
            level = float(sigma[0])  # that of all images of a batch, in their precision
            if level < low * (1 - ROUNDING) or level > high * (1 + ROUNDING):
                return guess
        return guess + scale * (guess - away(x, sigma, labels))

    return push


def heun(denoise: Denoise, start: Tensor, labels: Tensor, levels: Tensor) -> Tensor:
    """Images from standard normal ``start`` [N, C, H, W] by Heun's second-order steps."""
    x = start * levels[0].to(start.dtype)
    for now, then in zip(levels[:-1], levels[1:]):
        slope = _slope(denoise, x, now, labels)
        moved = x + (then - now).to(x.dtype) * slope
        if then > 0:
            slope = (slope + _slope(denoise, moved, then, labels)) / 2
            moved = x + (then - now).to(x.dtype) * slope
        x = moved
    return x


def ddim(denoise: Denoise, start: Tensor, labels: Tensor, levels: Tensor) -> Tensor:
    """Images from standard normal ``start`` [N, C, H, W] by first-order steps."""
    x = start * levels[0].to(start.dtype)
    for now, then in zip(levels[:-1], levels[1:]):
        x = x + (then - now).to(x.dtype) * _slope(denoise, x, now, labels)
    return x


def dpmpp2m(denoise: Denoise, start: Tensor, labels: Tensor, levels: Tensor) -> Tensor:
    """Images from standard normal ``start`` [N, C, H, W] by DPM-Solver++(2M): second order, one evaluation a step.

    Exponential steps in lambda = -ln sigma towards a guess of the clean image that is extrapolated from the last two.
    The first step has one guess alone; the last, to 0, is infinitely long in lambda and ends at its guess.

    Source: Lu et al. 2022, algorithm 2, with alpha = 1.
    """
    x, clean, h = start * levels[0].to(start.dtype), None, None
    for now, then in zip(levels[:-1], levels[1:]):
        before, clean = clean, denoise(x, _level(x, now), labels)
        h_before, h = h, (now / then).log()  # lengths in lambda
        if h_before is None or then == 0:
            ahead = clean
        else:
            ahead = clean + (h / (2 * h_before)).to(x.dtype) * (clean - before)
        x = (then / now).to(x.dtype) * x + (1 - then / now).to(x.dtype) * ahead
    return x


def _slope(denoise: Denoise, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
    level = _level(x, sigma)
    return (x - denoise(x, level, labels)) / level[:, None, None, None]


def _level(x: Tensor, sigma: Tensor) -> Tensor:
    return sigma.to(x.device, x.dtype).expand(len(x))  # [N]


SAMPLERS = {"heun": heun, "ddim": ddim, "dpmpp2m": dpmpp2m}
