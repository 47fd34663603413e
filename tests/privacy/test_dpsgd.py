"""The clipped sum against independent references: single images, Opacus; more of it in the detectors' own modules."""

import pytest
import torch

from privimage.diffusion.denoiser import new_denoiser
from privimage.diffusion.loss import NoisyBatch, draw_noise, per_image_loss
from privimage.errors import UserError
from privimage.privacy.dpsgd import clipped_gradient_sum
from privimage.settings import NetworkSettings

SMALL = NetworkSettings(base_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,))


def model_of(seed=0, dtype=torch.float64):
    model = new_denoiser(SMALL, 8, 1, 3, seed).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=dtype))
    return model


def batch_of(num, levels, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    images, labels = (
        torch.rand(num, 1, 8, 8, generator=generator) * 2 - 1,
        torch.randint(3, (num,), generator=generator),
    )
    batch = draw_noise(
        images, labels, levels=levels, P_mean=-1.2, P_std=1.2, label_dropout=0.3, no_label=3, generator=generator
    )
    return NoisyBatch(*(t.to(dtype) if t.is_floating_point() else t for t in batch))


def rows_of(batch, part):
    return NoisyBatch(*(tensor[part] for tensor in batch))


def summed(model, batch, *, clip_norm=1.0, microbatch_size=100, engine="fast"):
    total, _ = clipped_gradient_sum(
        model,
        lambda part: per_image_loss(model, rows_of(batch, part)),
        len(batch.images),
        copies=batch.sigma.shape[1],
        clip_norm=clip_norm,
        microbatch_size=microbatch_size,
        engine=engine,
    )
    return torch.cat([g.flatten() for g in total.values()])


def plain_sum(model, x, clip_norm):
    """The sum for a model of one output, whose loss is that output."""
    total, _ = clipped_gradient_sum(
        model, lambda part: model(x[part]).sum(1), len(x), copies=1, clip_norm=clip_norm, microbatch_size=64
    )
    return total["weight"]


def single(model, batch, i):
    """The gradient of image i alone, by plain autograd."""
    model.zero_grad()
    per_image_loss(model, NoisyBatch(*(t[i : i + 1] for t in batch))).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("levels", [1, 4])
def test_sum_equals_clipping_image_by_image(levels):
    model, batch = model_of(), batch_of(5, levels)
    norms = [single(model, batch, i).norm() for i in range(5)]
    bound = sorted(norms)[2].item()  # clips some images and not others
    expected = sum(single(model, batch, i) * min(1.0, bound * (1 - 1e-4) / norms[i]) for i in range(5))
    torch.testing.assert_close(summed(model, batch, clip_norm=bound), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("levels", [1, 4])
def test_sum_equals_opacus(levels):
    """Opacus' per-sample gradients of the noisy copies, averaged over an image's copies, then clipped."""
    from opacus import GradSampleModule

    model, batch = model_of(), batch_of(4, levels)
    wrapped = GradSampleModule(model_of(), loss_reduction="sum")
    per_image_loss(Shim(wrapped), batch).sum().backward()
    rows = torch.cat([p.grad_sample.flatten(1) for p in wrapped.parameters()], dim=1)  # [B*K, P]
    rows = rows.unflatten(0, (4, levels)).sum(1)  # the loss holds the 1/K
    bound = rows.norm(dim=1).median().item()
    weights = (bound * (1 - 1e-4) / rows.norm(dim=1)).clamp(max=1)
    torch.testing.assert_close(summed(model, batch, clip_norm=bound), weights @ rows, rtol=1e-8, atol=1e-10)


class Shim:
    """The wrapped denoiser with its settings, which Opacus hides."""

    def __init__(self, wrapped):
        self.wrapped, self.settings = wrapped, SMALL

    def __call__(self, *args):
        return self.wrapped(*args)


@pytest.mark.parametrize("microbatch_size", [1, 3, 7])
def test_microbatches_do_not_change_the_sum(microbatch_size):
    model, batch = model_of(), batch_of(7, 2)
    torch.testing.assert_close(
        summed(model, batch, microbatch_size=microbatch_size), summed(model, batch), rtol=1e-10, atol=1e-12
    )


def test_large_equal_gradients_stay_within_the_bound():
    """Where float32 norms fall short: a million equal entries, clipped far down."""
    model = torch.nn.Linear(1_000_000, 1, bias=False)
    assert plain_sum(model, torch.full((1, 1_000_000), 1.7), 1.0).norm().item() <= 1.0
    model, many = torch.nn.Linear(100, 1, bias=False), torch.full((2_000, 100), 1.7)
    assert (plain_sum(model, many, 1.0) - plain_sum(model, many[:-1], 1.0)).norm().item() <= 1.0


@pytest.mark.parametrize("engine", ["fast", "opacus"])
def test_a_parameter_outside_the_loss_is_refused(engine):
    model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Linear(1, 1))
    x = torch.ones(2, 2)
    with pytest.raises(UserError, match="`1.weight` got no gradient"):
        clipped_gradient_sum(
            model, lambda part: model[0](x[part]).sum(1), 2, copies=1, clip_norm=1, microbatch_size=9, engine=engine
        )
