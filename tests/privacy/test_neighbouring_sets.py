"""Neighbours: one image more or less moves the clipped sum by at most C, whatever the images are.

A batch loses one image after another, in any order, until none is left; each time the sum before and the sum after are
compared in float64, each split into microbatches of its own. Images may be alike, not finite, huge or tiny.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from watched import Small, mechanism, unet

from privimage import private_training
from privimage.diffusion.loss import per_image_loss
from privimage.privacy.damping import Damping, damping_by
from privimage.privacy.dpsgd import clipped_gradient_sum
from privimage.privacy.randomness import SecretKey

SCALES = (0.0, 1e-30, 1e-3, 1.0, 1e4, 1e18, 1e30, float("inf"), float("nan"))
BOUNDS = (1e-6, 1e-3, 1.0, 1e3)


@dataclass
class Floats:
    """Images by number, as the loop reads them, of any floating-point values."""

    pixels: Tensor  # [N, 1, 4, 4]
    labels: Tensor
    device: torch.device = torch.device("cpu")

    def at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.pixels[index], self.labels[index]


@dataclass(frozen=True)
class Case:
    """A batch and how it is computed."""

    seed: int
    scales: tuple[float, ...]  # of each image
    alike: bool  # all images the same, but for their scales
    one_pixel: bool  # only one pixel is scaled
    copies: int
    clip_norm: float
    microbatches: tuple[int, int]
    bfloat16: bool
    damped: bool  # along directions that are the seed's alone

    def data(self) -> Floats:
        generator = torch.Generator().manual_seed(self.seed)
        num = len(self.scales)
        pixels = torch.rand(num, 1, 4, 4, generator=generator) * 2 - 1
        labels = torch.randint(2, (num,), generator=generator)
        if self.alike and num:
            pixels, labels = pixels[:1].expand(num, -1, -1, -1).clone(), labels[:1].expand(num).clone()
        where = (slice(None), 0, 0, 0) if self.one_pixel else (slice(None),)
        factors = torch.tensor(self.scales, dtype=torch.float32)
        pixels[where] *= factors if self.one_pixel else factors[:, None, None, None]
        return Floats(pixels, labels)

    def sum(self, model: torch.nn.Module, data: Floats, index: np.ndarray, microbatch_size: int) -> Tensor:
        """The clipped sum of the images at an index, with the diffusion noise that the loop draws for them."""
        key = SecretKey.from_seed(self.seed)
        how = mechanism(key, 1.0, noise_levels_per_image=self.copies).settings

        def losses_of(part: slice) -> Tensor:
            batch = private_training.draw_batch(data, index[part], how, 2, key.seed("diffusion", 0))
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
                return per_image_loss(model, batch)

        bounds = dict(copies=self.copies, clip_norm=self.clip_norm, microbatch_size=microbatch_size)
        bounds["damping"] = self.damping(model) if self.damped else None
        total, losses = clipped_gradient_sum(model, losses_of, len(index), **bounds)
        assert len(losses) == len(index)
        return torch.cat([value.flatten() for value in total.values()])

    def damping(self, model: torch.nn.Module) -> Damping:
        generator = torch.Generator().manual_seed(self.seed)
        shapes = {name: p.numel() for name, p in model.named_parameters()}
        weight = torch.rand(6, 1, generator=generator) * 3
        shared = {name: torch.randn(count, generator=generator) for name, count in shapes.items()}
        rows = {n: torch.randn(6, count, generator=generator) + weight * shared[n] for n, count in shapes.items()}
        damping = damping_by(rows, 3)
        assert damping.kept[0] < 0.9  # else it would do next to nothing
        return damping

    def check(self, model: torch.nn.Module) -> int:
        """Every pair of neighbours keeps the bound; returned is how many there were."""
        data, order = self.data(), np.random.default_rng(self.seed).permutation(len(self.scales))
        before = None
        for kept in range(len(order), -1, -1):
            after = self.sum(model, data, np.sort(order[:kept]), self.microbatches[kept % 2])
            assert after.dtype == torch.float64
            assert torch.isfinite(after).all()
            assert before is None or (before - after).norm().item() <= self.clip_norm
            before = after
        assert not before.any()
        return len(order)


def cases(num: int) -> st.SearchStrategy[Case]:
    sizes = st.integers(1, num + 1)
    scales = st.tuples(*[st.one_of(st.just(1.0), st.sampled_from(SCALES))] * num)
    return st.builds(
        Case, st.integers(0, 10_000), scales, st.booleans(), st.booleans(), st.sampled_from((1, 2, 4)),
        st.sampled_from(BOUNDS), st.tuples(sizes, sizes), st.booleans(), st.booleans(),
    )  # fmt: skip


def compare(network: Callable[[int], torch.nn.Module], num: int, pairs: int) -> None:
    """At least so many pairs keep the bound, from batches of ``num`` images."""
    seen = []

    @settings(max_examples=math.ceil(pairs / num), deadline=None, database=None)
    @given(cases(num))
    def every(case: Case) -> None:
        seen.append(case.check(network(case.seed)))

    every()
    assert sum(seen) >= pairs


@pytest.mark.slow
def test_with_a_small_network_the_bound_holds():
    compare(Small, 7, 500)


def test_with_the_real_network_the_bound_holds():
    compare(unet, 4, 40)


@pytest.mark.slow
def test_with_a_small_network_the_bound_holds_ten_thousand_times():
    compare(Small, 12, 10_000)


@pytest.mark.slow
def test_with_the_real_network_the_bound_holds_two_thousand_times():
    compare(unet, 9, 2_000)


@pytest.mark.parametrize("draws", ["independent", "balanced"])
@pytest.mark.parametrize("fewer", [(), (7,), (2,), (7, 9), (2, 4, 9)])
def test_an_image_s_draw_is_the_same_whichever_images_are_beside_it(fewer, draws):
    data = Case(3, (1.0,) * 10, False, False, 4, 1.0, (1, 1), False, False).data()
    key = SecretKey.from_seed(1)
    how = mechanism(key, 1.0, label_dropout=0.5, noise_levels_per_image=4, noise_draws=draws).settings
    everyone = np.array([2, 4, 7, 9])
    kept = np.setdiff1d(everyone, fewer)
    many, few = (
        private_training.draw_batch(data, index, how, 2, key.seed("diffusion", 5)) for index in (everyone, kept)
    )
    for before, after in zip(many, few):
        assert torch.equal(before[np.isin(everyone, kept)], after)
