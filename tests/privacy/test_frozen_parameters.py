"""Parameters that require no gradient take no part in private training: neither clipped, nor noised, nor moved."""

import pytest
import torch
from small_model import images, mechanism, model, weights
from torch import nn

from privimage import private_training
from privimage.diffusion.loss import NoisyBatch, draw_noise, per_image_loss
from privimage.privacy.dpsgd import ROUNDING, clipped_gradient_sum

CHOICES = {
    "biases": lambda name: name.endswith("bias"),
    "weights": lambda name: name.endswith("weight"),
    "attention": lambda name: ".attention." in name,
    "the first layers": lambda name: "label_embedding" in name or "conv_in" in name,
    "the last layer": lambda name: "conv_out" in name,
    "all": lambda name: True,
}
ENGINES = ("fast", "opacus")


def partly(choice, dtype=torch.float64):
    made = model().to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in made.named_parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=dtype))
            p.requires_grad_(CHOICES[choice](name))
    return made


def noisy(num, levels, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    pixels, labels = torch.rand(num, 1, 8, 8, generator=generator) * 2 - 1, torch.arange(num) % 2
    batch = draw_noise(
        pixels * scale, labels, levels=levels, P_mean=-1.2, P_std=1.2, label_dropout=0.3, no_label=2,
        generator=generator,
    )  # fmt: skip
    return NoisyBatch(*(t.double() if t.is_floating_point() else t for t in batch))


def rows_of(batch, part):
    return NoisyBatch(*(tensor[part] for tensor in batch))


def summed(made, batch, engine="fast", clip_norm=1.0, microbatch_size=3):
    return clipped_gradient_sum(
        made,
        lambda part: per_image_loss(made, rows_of(batch, part)),
        len(batch.images),
        copies=batch.sigma.shape[1],
        clip_norm=clip_norm,
        microbatch_size=microbatch_size,
        engine=engine,
    )[0]


def single(made, batch, i):
    """The gradient of image i alone, by plain autograd, of the parameters that require one."""
    names = [name for name, p in made.named_parameters() if p.requires_grad]
    loss = per_image_loss(made, rows_of(batch, slice(i, i + 1))).sum()
    return dict(zip(names, torch.autograd.grad(loss, [dict(made.named_parameters())[name] for name in names])))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("choice", CHOICES)
def test_the_sum_is_that_of_each_images_gradient_of_the_trained_parameters_clipped_alone(choice, engine):
    made, batch = partly(choice), noisy(5, 2)
    gradients = [single(made, batch, i) for i in range(5)]
    norms = [torch.stack([g.norm() for g in gradient.values()]).norm().item() for gradient in gradients]
    bound = sorted(norms)[2]  # clips some images and not others
    shares = [min(1.0, bound * (1 - ROUNDING) / norm) for norm in norms]
    found = summed(made, batch, engine, bound)
    assert list(found) == [name for name, p in made.named_parameters() if p.requires_grad]
    for name, value in found.items():
        expected = sum(share * gradient[name] for share, gradient in zip(shares, gradients))
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-12)
    assert all(p.requires_grad == CHOICES[choice](name) for name, p in made.named_parameters())


@pytest.mark.parametrize("engine", ENGINES)
def test_one_image_more_moves_the_sum_by_at_most_the_bound(engine):
    made = partly("attention", torch.float32)
    with torch.no_grad():  # so that gradients are far above the bound
        for p in made.parameters():
            p.mul_(3)
    batch = NoisyBatch(*(t.float() if t.is_floating_point() else t for t in noisy(6, 2, scale=50.0)))
    sums = [
        torch.cat([v.flatten() for v in summed(made, rows_of(batch, slice(num)), engine, 1e-3).values()])
        for num in range(7)
    ]
    moved = torch.stack([(after - before).norm() for before, after in zip(sums, sums[1:])])
    assert bool((moved <= 1e-3).all())
    assert bool((moved > 0.99e-3).all())  # each was clipped, and counts


def test_a_frozen_layer_needs_no_rule_and_may_be_used_twice():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.strange, self.head = nn.Bilinear(3, 3, 3), nn.Linear(3, 1)
            self.strange.requires_grad_(False)

        def forward(self, x):
            return self.head(self.strange(self.strange(x, x), x))

    made, x = Mixed(), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    total, _ = clipped_gradient_sum(
        made, lambda part: made(x[part]).sum(1), 4, copies=1, clip_norm=1e6, microbatch_size=4
    )
    made(x).sum().backward()
    assert list(total) == ["head.weight", "head.bias"]
    for name, value in total.items():
        torch.testing.assert_close(value.float(), made.get_parameter(name).grad)


@pytest.mark.parametrize("choice", ["attention", "biases"])
def test_private_training_moves_all_that_is_trained_and_leaves_the_rest_as_it_was_to_the_bit(choice):
    made = partly(choice, torch.float32)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made, ema, _ = private_training.run(made, images(), mechanism())
    for after in (made.state_dict(), ema.state_dict()):
        same = {name for name, value in after.items() if torch.equal(value, before[name])}
        assert same == {name for name in after if not CHOICES[choice](name)}


@pytest.mark.parametrize("choice", ["attention", "all"])
def test_noise_is_drawn_for_what_is_trained_alone(choice, monkeypatch):
    seen, real = [], private_training.noisy_mean

    def noted(total, **how):
        seen.append({name: value.shape for name, value in total.items()})
        return real(total, **how)

    monkeypatch.setattr(private_training, "noisy_mean", noted)
    made = partly(choice, torch.float32)
    private_training.run(made, images(), mechanism())
    expected = {name: p.shape for name, p in made.named_parameters() if CHOICES[choice](name)}
    assert all(total == expected and list(total) == list(expected) for total in seen)
    assert len(seen) == mechanism().settings.num_steps


def test_a_partly_trained_model_is_decided_by_its_key():
    a, b = (private_training.run(partly("attention", torch.float32), images(), mechanism())[0] for _ in range(2))
    assert torch.equal(weights(a), weights(b))
