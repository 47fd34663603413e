"""Per-image gradients of every supported layer against autograd on single images, and what is refused."""

import pytest
import torch
from torch import nn

from privimage.errors import UserError
from privimage.privacy.per_sample import layers
from privimage.privacy.per_sample.capture import tapped
from privimage.privacy.per_sample.layers import by_kernel_pixel, by_window, conv2d


def reference(model, x, copies):
    """Gradients by running each image's copies alone."""
    rows = []
    for part in x.split(copies):
        model.zero_grad()
        model(part).square().sum().backward()
        rows.append({name: p.grad.clone() for name, p in model.named_parameters()})
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


CASES = {
    "linear": (lambda: nn.Linear(5, 3), lambda n, g: torch.randn(n, 5, generator=g)),
    "linear without bias": (lambda: nn.Linear(5, 3, bias=False), lambda n, g: torch.randn(n, 5, generator=g)),
    "linear over positions": (lambda: nn.Linear(5, 3), lambda n, g: torch.randn(n, 4, 5, generator=g)),
    "conv 3x3": (lambda: nn.Conv2d(2, 3, 3, padding=1), lambda n, g: torch.randn(n, 2, 6, 6, generator=g)),
    "conv 1x1": (lambda: nn.Conv2d(2, 3, 1), lambda n, g: torch.randn(n, 2, 6, 6, generator=g)),
    "conv stride 2": (
        lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1),
        lambda n, g: torch.randn(n, 2, 6, 6, generator=g),
    ),
    "group norm": (lambda: nn.GroupNorm(2, 4), lambda n, g: torch.randn(n, 4, 3, 3, generator=g)),
    "embedding": (lambda: nn.Embedding(4, 3), lambda n, g: torch.randint(4, (n,), generator=g)),
    "stack": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(), nn.Linear(64, 2)),
        lambda n, g: torch.randn(n, 1, 6, 6, generator=g),
    ),
}


@pytest.mark.parametrize("few", [0, layers.FEW_PRODUCTS])  # convolutions by the library; by windows
@pytest.mark.parametrize("copies", [1, 4])
@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_those_of_single_images(monkeypatch, case, copies, few):
    monkeypatch.setattr(layers, "FEW_PRODUCTS", few)
    make, draw = CASES[case]
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = make().double()
    x = draw(3 * copies, generator)
    x = x.double() if x.is_floating_point() else x
    expected = reference(model, x, copies)
    with tapped(model, copies) as taps:
        _, found = taps.gradients(lambda: model(x).square().flatten(1).sum(1).unflatten(0, (3, copies)).sum(1), 3)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-10)


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].weight.requires_grad_(False)
    x = torch.randn(3, 2)
    with tapped(model, 1) as taps:
        taps.gradients(lambda: model(x).sum(1), 3)
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert not any("forward" in vars(m) for m in model.modules())


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.scale


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(self.layer(x))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.b.weight = self.a.weight


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.BatchNorm1d(2)), "`0`.*BatchNorm1d"),
        (nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), "`0`.*plain convolutions"),
        (nn.Sequential(Bare()), "`0`.*Bare"),
        (Tied(), "share a parameter"),
    ],
)
def test_layers_without_a_rule_are_refused_by_name(model, words):
    with pytest.raises(UserError, match=words), tapped(model, 1):
        pass


def test_a_layer_used_twice_is_refused_by_name():
    model = Twice()
    with pytest.raises(UserError, match="`layer` is used twice"), tapped(model, 1) as taps:
        taps.gradients(lambda: model(torch.randn(2, 2)).sum(1), 2)


@pytest.mark.parametrize("copies", [1, 4])
@pytest.mark.parametrize(
    "shape", [dict(kernel_size=3, padding=1), dict(kernel_size=(3, 5), stride=(2, 1), padding=(0, 2))]
)
@pytest.mark.parametrize("products", [by_kernel_pixel, by_window])
def test_the_products_of_a_gpu_and_of_small_convolutions_are_the_library_s_gradients(
    monkeypatch, products, shape, copies
):
    monkeypatch.setattr(layers, "FEW_PRODUCTS", 0)  # what is expected is the library's
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(3, 4, **shape).double()
    x = torch.randn(2 * copies, 3, 7, 8, generator=generator, dtype=torch.float64)
    g = torch.randn(layer(x).shape, generator=generator, dtype=torch.float64)
    for layout in (torch.contiguous_format, torch.channels_last):
        pair = (x.to(memory_format=layout), g.to(memory_format=layout))
        expected = conv2d(layer, *pair, copies)["weight"]
        torch.testing.assert_close(products(layer, *pair, copies), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("copies", [1, 3])
def test_one_pixel_convolutions_in_the_layout_of_a_gpu(copies):
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 5, 1), nn.Conv2d(5, 3, 1)).double().to(memory_format=torch.channels_last)
    x = torch.randn(2 * copies, 2, 4, 4, generator=generator, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last)
    expected = reference(model, x, copies)
    with tapped(model, copies) as taps:
        _, found = taps.gradients(lambda: model(x).square().flatten(1).sum(1).unflatten(0, (2, copies)).sum(1), 2)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-10)
