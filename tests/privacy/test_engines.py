"""Both engines give the same clipped sum: every layer, any number of copies, any microbatch, any precision."""

import copy
import secrets

import pytest
import torch
from torch import nn

from privimage.diffusion.denoiser import new_denoiser
from privimage.diffusion.keyed_noise import keyed_noise
from privimage.diffusion.loss import NoisyBatch, per_image_loss
from privimage.privacy.dpsgd import clipped_gradient_sum
from privimage.settings import NetworkSettings

NETWORK = NetworkSettings(base_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,))
NUM = 5
LAYERS = {
    "linear": lambda: nn.Linear(5, 3),
    "linear without bias": lambda: nn.Linear(5, 3, bias=False),
    "convolution": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "convolution with stride": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "convolution without padding or bias": lambda: nn.Conv2d(4, 6, (3, 5), bias=False),
    "convolution of one pixel": lambda: nn.Conv2d(4, 6, 1),
    "group normalisation": lambda: nn.GroupNorm(2, 4),
    "embedding": lambda: nn.Embedding(7, 3),
}


def fresh_seed():
    return secrets.randbits(31)  # another at each run; a failure names it


def layer_input(layer, rows, generator):
    if isinstance(layer, nn.Embedding):
        return torch.randint(7, (rows,), generator=generator)
    shape = (rows, 5) if isinstance(layer, nn.Linear) else (rows, 4, 6, 6)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def summed(engine, model, losses_of, copies, microbatch_size=100, clip_norm=1.0):
    how = dict(copies=copies, clip_norm=clip_norm, microbatch_size=microbatch_size, engine=engine)
    total, losses = clipped_gradient_sum(model, losses_of, NUM, **how)
    assert len(losses) == NUM
    return torch.cat([g.flatten() for g in total.values()])


@pytest.mark.parametrize("copies", [1, 4, 8])
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_in_double_precision(name, copies):
    seed = fresh_seed()
    generator = torch.Generator().manual_seed(seed)
    layer = LAYERS[name]().double()
    x = layer_input(layer, NUM * copies, generator)

    def losses_of(part):
        rows = layer(x[part.start * copies : part.stop * copies]).square().flatten(1).mean(1)
        return rows.unflatten(0, (-1, copies)).mean(1)

    reference = summed("opacus", layer, losses_of, copies, clip_norm=0.3)
    for size in (1, 2, 3, NUM):
        found = summed("fast", layer, losses_of, copies, size, clip_norm=0.3)
        torch.testing.assert_close(found, reference, rtol=1e-10, atol=1e-11, msg=lambda m: f"seed {seed}: {m}")


def denoiser(dtype, seed):
    model = new_denoiser(NETWORK, 8, 1, 3, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model.to(dtype)


def batch_of(copies, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(NUM, 1, 8, 8, generator=generator) * 2 - 1
    how = dict(levels=copies, P_mean=-1.2, P_std=1.2, label_dropout=0.3, no_label=3)
    batch = keyed_noise(images, torch.arange(NUM) % 3, torch.arange(NUM), key=seed, **how)
    return NoisyBatch(*(t.to(dtype) if t.is_floating_point() else t for t in batch))


def of_denoiser(model, batch, precision=None):
    def losses_of(part):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision is not None):
            return per_image_loss(model, NoisyBatch(*(tensor[part] for tensor in batch)))

    return losses_of


def distance(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("copies", [1, 4, 8])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_diffusion_network(dtype, bound, copies):
    seed = fresh_seed()
    model, batch = denoiser(dtype, seed), batch_of(copies, dtype, seed)
    reference = summed("opacus", model, of_denoiser(model, batch), copies, clip_norm=1.0)
    for size in (1, 3, NUM):
        found = summed("fast", model, of_denoiser(model, batch), copies, size, clip_norm=1.0)
        assert distance(found, reference) < bound, f"seed {seed}, microbatches of {size}"


@pytest.mark.parametrize("copies", [1, 4, 8])
def test_in_bfloat16_it_errs_no_more_than_opacus(copies):
    """Over several draws, against float32; the networks compute the same, so only the contractions differ."""
    errors = {"fast": [], "opacus": []}
    for _ in range(4):
        seed = fresh_seed()
        model, batch = denoiser(torch.float32, seed), batch_of(copies, torch.float32, seed)
        exact = summed("fast", model, of_denoiser(model, batch), copies)
        for engine, seen in errors.items():
            seen.append(distance(summed(engine, model, of_denoiser(model, batch, "bfloat16"), copies), exact))
    assert sum(errors["fast"]) <= 1.02 * sum(errors["opacus"]), errors
    assert max(errors["fast"]) < 0.05


@pytest.mark.parametrize("engine", ["fast", "opacus"])
def test_in_bfloat16_no_image_adds_more_than_the_bound(engine):
    """One image at a time, its contribution measured in float64: products of rounded weights would add 0.4 %."""
    seed = fresh_seed()
    model, batch = denoiser(torch.float32, seed), batch_of(4, torch.float32, seed)
    for image in range(NUM):
        one = NoisyBatch(*(tensor[image : image + 1] for tensor in batch))
        how = dict(copies=4, clip_norm=1e-3, microbatch_size=1, engine=engine)
        total, _ = clipped_gradient_sum(model, of_denoiser(model, one, "bfloat16"), 1, **how)
        norm = torch.cat([g.flatten() for g in total.values()]).norm().item()
        assert 0.999e-3 < norm <= 1e-3, f"seed {seed}"


def test_the_opacus_engine_leaves_the_model_as_it_was():
    model, batch = denoiser(torch.float32, 0), batch_of(1, torch.float32, 0)
    before = copy.deepcopy(model.state_dict())
    summed("opacus", model, of_denoiser(model, batch), 1)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values()))
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    assert not any(hasattr(p, "grad_sample") or p.grad is not None for p in model.parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["fast", "opacus"])
@pytest.mark.parametrize("copies", [1, 4])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_a_gpu_gives_what_a_cpu_gives(dtype, bound, copies, engine, monkeypatch):
    """Float32 convolutions on a GPU may be of TF32 where the network runs; here they are not."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    seed = fresh_seed()
    model, batch = denoiser(dtype, seed), batch_of(copies, dtype, seed)
    expected = summed("fast", model, of_denoiser(model, batch), copies)
    model = model.to("cuda", memory_format=torch.channels_last)
    batch = NoisyBatch(*(tensor.cuda() for tensor in batch))
    found = summed(engine, model, of_denoiser(model, batch), copies, 3)
    assert distance(found.cpu(), expected) < bound, f"seed {seed}"


def test_a_compiled_pass_is_compiled_once_and_gives_the_same_sum():
    torch.manual_seed(fresh_seed())
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 2, 1), nn.Flatten(1))
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def losses(x):
        return model(x).square().mean(1).unflatten(0, (-1, 2)).mean(1)

    fast = torch.compile(losses, dynamic=False, backend=backend)
    for _ in range(3):  # steps of a training
        x = torch.randn(NUM * 2, 1, 6, 6)
        sums = [summed("fast", model, lambda part, of=of, x=x: of(x[2 * part.start : 2 * part.stop]), 2)
                for of in (fast, losses)]  # fmt: skip
        assert distance(*sums) < 1e-5
    assert len(graphs) == 1
