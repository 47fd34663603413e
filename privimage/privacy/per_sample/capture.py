"""Each image's gradient of every parameter of a model, collected during one backward pass.

Parameters are frozen meanwhile, so that autograd computes the gradients of activations only; each layer's rule turns
its input and the gradient of its output into the gradients of single images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from privimage.errors import UserError
from privimage.privacy.per_sample.layers import RULES, unsupported


@contextmanager
def per_image_gradients(model: nn.Module, copies: int) -> Iterator[dict[str, Tensor]]:
    """A dictionary that a backward pass in the block fills: parameter name -> gradients [B, *shape].

    The sum of the images' losses is what the pass must start from, the batch of every layer B*``copies`` rows, the
    copies of an image together, and no layer may mix rows.

    Raises:
        UserError: if a layer has no rule, or is used twice in a pass.
    """
    found: dict[str, Tensor] = {}
    layers = _layers(model)
    wanted = [p.requires_grad for p in model.parameters()]
    hooks = [layer.register_forward_hook(_hook(name, found, copies)) for name, layer in layers.items()]
    model.requires_grad_(False)
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, want in zip(model.parameters(), wanted):
            parameter.requires_grad_(want)


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    layers = {name: m for name, m in model.named_modules() if any(True for _ in m.parameters(recurse=False))}
    for name, layer in layers.items():
        if reason := unsupported(layer):
            raise UserError(f"the layer `{name}` cannot be trained privately: {reason}.")
    owned = [id(p) for layer in layers.values() for p in layer.parameters(recurse=False)]
    if len(set(owned)) != len(owned):
        raise UserError("two layers share a parameter; they cannot be trained privately.")
    return layers


def _hook(name: str, found: dict[str, Tensor], copies: int):
    prefix = f"{name}." if name else ""

    def forward(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if f"{prefix}weight" in found:
            raise UserError(f"the layer `{name}` is used twice in a pass; it cannot be trained privately.")
        found[f"{prefix}weight"] = output.new_empty(0)  # marks the layer as used until its gradient arrives
        x = inputs[0].detach()

        def backward(gradient: Tensor) -> None:
            with torch.no_grad():
                rows = RULES[type(layer)](layer, x, gradient, copies)
            found.update({f"{prefix}{parameter}": rows[parameter] for parameter in rows})

        output = output if output.requires_grad else output.detach().requires_grad_()
        output.register_hook(backward)
        return output

    return forward
