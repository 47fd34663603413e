"""Keyed noise: the published generator, the distributions that are declared, and no image that moves another."""

import math

import pytest
import torch
from scipy import stats

from privimage.diffusion.keyed_noise import keyed_noise, normals, philox, uniforms

KEY = 0x0123_4567_89AB_CDEF
ARGUMENTS = dict(levels=2, P_mean=-1.2, P_std=1.2, label_dropout=0.3, no_label=5)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers that the authors publish with their library
        ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_the_generator_gives_the_published_answers(counter, key, expected):
    found = philox([torch.tensor([word]) for word in counter], key)
    assert [int(word) for word in found] == expected


def test_normals_and_uniforms_are_distributed_as_declared():
    index = torch.arange(50)
    assert stats.kstest(normals(KEY, index, 0, 999).flatten().numpy(), "norm").pvalue > 1e-4
    assert stats.kstest(uniforms(KEY, index, 0, 999).flatten().numpy(), "uniform").pvalue > 1e-4


def test_images_steps_and_purposes_are_uncorrelated():
    index = torch.tensor([0, 1, 2, 2**32])
    rows = torch.cat([normals(key, index, purpose, 10_000) for key in (KEY, KEY + 1) for purpose in (0, 1)])
    correlation = torch.corrcoef(rows.double()) - torch.eye(16)
    assert correlation.abs().max() < 5 / math.sqrt(10_000)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_shorter_draw_is_the_start_of_a_longer_one(count):
    index = torch.tensor([3, 9])
    assert torch.equal(uniforms(KEY, index, 1, count), uniforms(KEY, index, 1, 8)[:, :count])
    assert normals(KEY, index, 1, count).shape == (2, count)


def test_a_batch_has_the_shapes_and_the_moments_that_are_declared():
    images, labels = torch.zeros(4000, 1, 4, 4), torch.zeros(4000, dtype=torch.int64)
    batch = keyed_noise(images, labels, torch.arange(4000), key=KEY, **ARGUMENTS)
    assert batch.sigma.shape == (4000, 2) and batch.noise.shape == (4000, 2, 1, 4, 4)
    levels = batch.sigma.log().flatten()
    assert levels.mean().item() == pytest.approx(-1.2, abs=4.5 * 1.2 / math.sqrt(8000))
    assert levels.std().item() == pytest.approx(1.2, rel=0.04)
    assert set(batch.labels.tolist()) == {0, 5}
    assert (batch.labels == 5).float().mean().item() == pytest.approx(0.3, abs=4.5 * math.sqrt(0.21 / 4000))


def test_an_image_draws_the_same_alone_and_among_others():
    images, labels = torch.rand(3, 1, 4, 4), torch.arange(3)
    together = keyed_noise(images, labels, torch.tensor([4, 7, 9]), key=KEY, **ARGUMENTS)
    alone = keyed_noise(images[1:2], labels[1:2], torch.tensor([7]), key=KEY, **ARGUMENTS)
    assert all(torch.equal(a, b[1:2]) for a, b in zip(alone, together))


def balanced(levels, num=20_000):
    images, labels = torch.zeros(num, 1, 2, 2), torch.zeros(num, dtype=torch.int64)
    how = {**ARGUMENTS, "levels": levels, "balanced": True}
    return keyed_noise(images, labels, torch.arange(num), key=KEY, **how)


def test_balanced_copies_come_in_twos_of_opposite_noise_at_one_level():
    batch = balanced(6)
    assert torch.equal(batch.sigma[:, 0::2], batch.sigma[:, 1::2])
    assert torch.equal(batch.noise[:, 0::2], -batch.noise[:, 1::2])
    pairs = batch.noise[:, 0::2].flatten(2)  # [B, 3, 4]
    assert (pairs[:, 0] * pairs[:, 1]).mean().abs().item() < 5 / math.sqrt(80_000)


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
def test_each_balanced_copy_alone_is_distributed_as_an_independent_one(levels):
    batch = balanced(levels)
    assert batch.sigma.shape == (20_000, levels) and batch.noise.shape == (20_000, levels, 1, 2, 2)
    for copy in range(levels):
        z = (batch.sigma[:, copy].log() + 1.2) / 1.2
        assert stats.kstest(z.numpy(), "norm").pvalue > 1e-4
        assert stats.kstest(batch.noise[:, copy].flatten().numpy(), "norm").pvalue > 1e-4


def test_balanced_levels_are_one_in_each_stretch_of_equal_probability():
    quantiles = torch.special.ndtr((balanced(8).sigma[:, ::2].log() + 1.2) / 1.2).double()
    assert torch.equal((quantiles * 4).long().sort(dim=1).values, torch.arange(4).expand(20_000, 4))
