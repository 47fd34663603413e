"""What is trained of a denoiser: adapters change nothing at first, are few, and merge into the layers beside them."""

import pytest
import torch
from small_model import images, mechanism, model
from torch import nn

from privimage import private_training
from privimage.diffusion.adapters import LowRank, merged, to_train
from privimage.diffusion.denoiser import Denoiser

ATTENTIONS, RANK = 3, 2  # at 4 pixels on the way down and up, and in the middle


def started():
    """A model whose layers all matter: fresh, some are next to zero."""
    made = model()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return made


def output(made: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x, sigma = torch.randn(6, 1, 8, 8, generator=generator), torch.rand(6, generator=generator) + 0.1
    with torch.no_grad():
        return made(x, sigma, torch.arange(6) % 3)


def trained_names(made: Denoiser) -> set[str]:
    return {name for name, p in made.named_parameters() if p.requires_grad}


def test_all_is_all():
    assert len(trained_names(to_train(model(), "all", RANK, 0))) == len(list(model().parameters()))


def test_attention_is_what_attends_and_what_is_told_of_labels_and_noise():
    made = to_train(model(), "attention", RANK, 0)
    told = ("label_embedding.", "embed_in.", "embed_out.", ".embed.", ".attention.")
    assert trained_names(made) == {name for name, _ in made.named_parameters() if any(part in name for part in told)}
    assert torch.equal(output(made), output(model()))


def test_adapters_change_nothing_at_first():
    before, after = output(started()), output(to_train(started(), "lora", RANK, 0))
    assert torch.equal(before, after)


def test_what_adapters_train_is_as_many_numbers_as_they_say():
    made, plain = to_train(model(), "lora", RANK, 0), model()
    embeddings = plain.network.label_embedding.weight.numel()
    layers = [
        layer for name, layer in plain.named_modules() if name.endswith((".query", ".key", ".value", ".out", ".embed"))
    ]
    assert sum(".attention." in name and name.endswith(".query") for name, _ in plain.named_modules()) == ATTENTIONS
    expected = embeddings + sum(RANK * sum(layer.weight.shape[:2]) for layer in layers)
    assert sum(p.numel() for p in made.parameters() if p.requires_grad) == expected
    parts = ("label_embedding.weight", "down.weight", "up.weight")
    assert all(name.endswith(parts) for name in trained_names(made))


def test_the_seed_decides_how_adapters_start_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    a, b, c = (to_train(model(), "lora", RANK, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a[name], b[name]) for name in a)
    drawn = {name for name in a if name.endswith(".down.weight")}
    assert {name for name in a if not torch.equal(a[name], c[name])} == drawn


@pytest.mark.parametrize("make", [lambda: nn.Linear(5, 7), lambda: nn.Conv2d(5, 7, 1)])
def test_a_layer_with_its_adapter_is_one_layer(make):
    layer = LowRank(make().double(), 3).double()
    nn.init.normal_(layer.up.weight)
    x = torch.randn((4, 5) if isinstance(layer.base, nn.Linear) else (4, 5, 2, 2), dtype=torch.float64)
    before = layer.base.weight.clone()
    torch.testing.assert_close(layer.merged()(x), layer(x))
    assert torch.equal(layer.base.weight, before)
    change = (layer.merged().weight - before).flatten(1)
    assert torch.linalg.matrix_rank(change) == 3


def test_the_merged_model_is_the_trained_one_and_has_the_plain_models_tensors():
    made = to_train(started(), "lora", RANK, 0)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made, ema, _ = private_training.run(made, images(), mechanism())
    for trained in (made, ema):
        state = trained.state_dict()
        moved = {name for name in state if not torch.equal(state[name], before[name])}
        assert moved == trained_names(made)
        plain = merged(trained)
        torch.testing.assert_close(output(plain), output(trained), rtol=1e-4, atol=1e-5)
        assert {name: v.shape for name, v in plain.state_dict().items()} == {
            name: v.shape for name, v in model().state_dict().items()
        }
        assert all(p.requires_grad for p in plain.parameters())
        assert not torch.allclose(output(plain), output(started()))


def test_merging_what_has_no_adapters_changes_nothing():
    assert torch.equal(output(merged(started())), output(started()))
