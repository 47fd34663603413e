"""Each image's gradient of every parameter of a model, collected during one backward pass.

Only parameters that require a gradient are looked at. A layer without any stays as it is: it has no tap, needs no rule,
and may be used twice.

All parameters are frozen meanwhile, so that autograd computes the gradients of activations only. A tap behind each
layer lets its output through unchanged and, on the way back, turns the layer's input and the gradient of its output
into the gradients of single images; the layers of `functions` do so themselves. To autograd they are the gradients of
stand-ins, one for each parameter and image, which take no memory: each is a view of a single zero.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from privimage.errors import UserError
from privimage.privacy.per_sample.functions import group_norm, pointwise
from privimage.privacy.per_sample.layers import RULES, is_pointwise, unsupported

Losses = Callable[[], Tensor]


class Passing(threading.local):
    """The pass that a thread is in: its stand-ins [B, *shape] by parameter, the layers that it has used."""

    stand_ins: dict[str, Tensor]
    used: set[str]


class Taps:
    """The taps of one model, whose layers see B*``copies`` rows, the copies of an image together; for any threads.

    Raises:
        UserError: if a layer has no rule, or two layers share a parameter.
    """

    def __init__(self, model: nn.Module, copies: int) -> None:
        self.copies = copies
        self.layers = _layers(model)
        self.forwards = {name: partial(self.forward, name, layer) for name, layer in self.layers.items()}
        self.parameters: dict[str, Tensor] = {}
        self.passing = Passing()

    def gradients(self, losses: Losses, num: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses [B] of ``num`` images, and their gradients [B, *shape] by parameter name.

        Each of ``losses()`` must depend on its own image alone, so no layer may mix rows.

        Raises:
            UserError: if a layer is used twice in a pass, or a parameter takes no part in the losses.
        """
        now = self.passing
        now.used = set()
        now.stand_ins = {
            name: parameter.new_zeros(()).expand(num, *parameter.shape).requires_grad_()
            for name, parameter in self.parameters.items()
        }
        values = losses()  # [B]
        found = torch.autograd.grad(values.sum(), list(now.stand_ins.values()), allow_unused=True)
        now.stand_ins = {}
        gradients = dict(zip(self.parameters, found))
        for name, gradient in gradients.items():
            if gradient is None:
                raise UserError(f"the parameter `{name}` got no gradient; every parameter must take part in the loss.")
        return values.detach(), gradients

    def forward(self, name: str, layer: nn.Module, x: Tensor) -> Tensor:
        """The layer's output, tapped."""
        now = self.passing
        if name in now.used:
            raise UserError(f"the layer `{name}` is used twice in a pass; it cannot be trained privately.")
        now.used.add(name)
        prefix = f"{name}." if name else ""
        stand_ins = (now.stand_ins.get(f"{prefix}weight"), now.stand_ins.get(f"{prefix}bias"))
        if isinstance(layer, nn.GroupNorm):
            return group_norm(layer, x, *stand_ins, self.copies)
        if is_pointwise(layer):
            return pointwise(layer, x, *stand_ins, self.copies)
        return _Tap.apply(type(layer).forward(layer, x), x.detach(), *stand_ins, layer, self.copies)


class _Tap(torch.autograd.Function):
    """The identity on a layer's output, whose backward pass also gives the stand-ins their gradients."""

    @staticmethod
    def forward(
        ctx, output: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, layer: nn.Module, copies: int
    ):
        ctx.save_for_backward(x)
        ctx.layer, ctx.copies = layer, copies
        return output.view_as(output)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (x,) = ctx.saved_tensors
        rows = RULES[type(ctx.layer)](ctx.layer, x, gradient, ctx.copies)
        weight, bias = (rows.get(n) if need else None for n, need in zip(("weight", "bias"), ctx.needs_input_grad[2:]))
        return gradient, None, weight, bias, None, None


_TAPS: WeakKeyDictionary[nn.Module, Taps] = WeakKeyDictionary()  # a compiled pass holds only while its taps live


@contextmanager
def tapped(model: nn.Module, copies: int) -> Iterator[Taps]:
    """Taps behind every layer of the model that has parameters to train, as long as the block lasts.

    Raises:
        UserError: if a layer has no rule, or two layers share a parameter.
    """
    taps = _TAPS.get(model)
    if taps is None or taps.copies != copies or taps.layers != _layers(model):
        taps = _TAPS[model] = Taps(model, copies)
    taps.parameters = trained(model)
    wanted = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(False)
    try:
        for name, layer in taps.layers.items():
            layer.forward = taps.forwards[name]
        yield taps
    finally:
        for layer in taps.layers.values():
            layer.__dict__.pop("forward", None)
        for parameter, want in zip(model.parameters(), wanted):
            parameter.requires_grad_(want)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient; the others take no part in private training."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    layers = {name: m for name, m in model.named_modules() if any(p.requires_grad for p in m.parameters(recurse=False))}
    for name, layer in layers.items():
        if reason := unsupported(layer):
            raise UserError(f"the layer `{name}` cannot be trained privately: {reason}.")
    owned = [id(p) for layer in layers.values() for p in layer.parameters(recurse=False)]
    if len(set(owned)) != len(owned):
        raise UserError("two layers share a parameter; they cannot be trained privately.")
    return layers
