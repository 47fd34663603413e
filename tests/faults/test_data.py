"""Data that breaks a step breaks no bound: images that are not finite, memory that runs out, everything drawn."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from kills import SEED
from small_model import SETTINGS, images, mechanism, model, weights

from privimage import private_training
from privimage.compute import Compute
from privimage.privacy.randomness import SecretKey
from privimage.settings import ComputeSettings

WHOLE = replace(SETTINGS, sampling_probability=1.0, num_steps=2)
INF = float("inf")
FULL = "DefaultCPUAllocator: can't allocate memory"
C, DECLARED = SETTINGS.clip_norm, 24


def trained(monkeypatch, how=None, bad=(), value=0.0):
    """The model, and what left the mechanism at each step, where the losses of some images, by pixel, are a value."""
    real, left = private_training.per_image_loss, []

    def loss(made, batch):
        factors = [value if image.sum().item() in bad else 1.0 for image in batch.images]
        return real(made, batch) * torch.tensor(factors)

    def noted(total, **kwargs):
        left.append({name: tensor.clone() for name, tensor in total.items()})
        return noisy_mean(total, **kwargs)

    with monkeypatch.context() as patch:
        noisy_mean = private_training.noisy_mean
        patch.setattr(private_training, "per_image_loss", loss)
        patch.setattr(private_training, "noisy_mean", noted)
        made, ema, curve = private_training.run(model(), images(), how or mechanism(settings=WHOLE))
    assert len(curve.rows) == len(left) == (how or mechanism(settings=WHOLE)).settings.num_steps
    return made, ema, left


def pixel_sums():
    """By which an image is known inside a batch."""
    everything = private_training.Images(images().images, images().labels, torch.device("cpu"))
    return [everything.at(torch.tensor([index]))[0].sum().item() for index in range(len(images().labels))]


def norm(one, other=None):
    """Of the difference of two sums of gradients, over all parameters together."""
    return torch.sqrt(sum(((one[n] - (other[n] if other else 0)) ** 2).sum() for n in one)).item()


@pytest.mark.parametrize("value", [float("nan"), *(pytest.param(v, marks=pytest.mark.slow) for v in (INF, -INF, 1e38))])
def test_an_image_whose_gradient_is_not_finite_moves_the_first_sum_by_at_most_the_bound(monkeypatch, row, value):
    which = random.Random(f"{SEED} image").randrange(24)
    _, _, calm = trained(monkeypatch)
    made, ema, left = trained(monkeypatch, bad={pixel_sums()[which]}, value=value)
    assert (0 if value == 1e38 else 1e-9) < norm(left[0], calm[0]) <= C
    for network in (made, ema):
        assert bool(torch.isfinite(weights(network)).all())
    row(f"one loss of {value}", 1, 1)


@pytest.mark.parametrize("value", [INF, pytest.param(float("nan"), marks=pytest.mark.slow)])
def test_where_no_gradient_is_finite_every_step_is_noise(monkeypatch, row, value):
    made, _, left = trained(monkeypatch, bad=set(pixel_sums()), value=value)
    assert [norm(total) for total in left] == [0.0] * 2
    assert bool(torch.isfinite(weights(made)).all()) and not torch.equal(weights(made), weights(model()))
    row(f"all losses {value}", 1, 1)


def test_a_batch_of_all_images_in_small_microbatches(monkeypatch, row):
    few = mechanism(settings=WHOLE, microbatch_size=5)
    one, _, _ = trained(monkeypatch, few)
    other, _, left = trained(monkeypatch)
    torch.testing.assert_close(weights(one), weights(other), rtol=1e-3, atol=1e-4)
    assert all(0 < norm(total) <= DECLARED * C for total in left)
    row("a batch of all images", 1, 1)


@pytest.mark.parametrize("first", [3, *(pytest.param(first, marks=pytest.mark.slow) for first in (0, 1, 2, 4, 7))])
@pytest.mark.parametrize(
    "error", [MemoryError, *(pytest.param(error, marks=pytest.mark.slow) for error in (torch.OutOfMemoryError, FULL))]
)
def test_memory_that_runs_out_at_any_microbatch_costs_one_draw_a_step(monkeypatch, row, first, error):
    """The noise of a step and its mask are asked for again, and are the same; only one value leaves."""
    calls, drawn = [], []
    real, stream = private_training.per_image_loss, SecretKey._stream

    def loss(made, batch):
        calls.append(len(batch.images))
        if len(calls) > first and calls[-1] > 2:
            raise RuntimeError(error) if isinstance(error, str) else error
        return real(made, batch)

    def noted(key, kind, purpose, indices, *rest):
        made = stream(key, kind, purpose, indices, *rest)
        drawn.append((purpose, tuple(indices), made))
        return made

    how = replace(mechanism(settings=WHOLE), compute=Compute(ComputeSettings(microbatch_size=6)))
    calm, _, _ = trained(monkeypatch, how)
    with monkeypatch.context() as patch:
        patch.setattr(SecretKey, "_stream", noted)
        patch.setattr(private_training, "per_image_loss", loss)
        made, _, curve = private_training.run(model(), images(), how)
    assert len(curve.rows) == 2 and max(calls[-12:]) <= 2
    torch.testing.assert_close(weights(made), weights(calm), rtol=1e-3, atol=1e-4)
    noise = [(where, value) for purpose, where, value in drawn if purpose == "gradient"]
    assert len(noise) == len({where for where, _ in noise})  # each tensor's noise of each step: drawn once
    masks = {where: value for purpose, where, value in drawn if purpose == "poisson"}
    assert all(masks[where] == value for purpose, where, value in drawn if purpose == "poisson")
    row(f"out of memory at microbatch {first}", 1, 1)
