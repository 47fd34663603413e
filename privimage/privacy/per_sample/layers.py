"""The weight gradient of each image at one layer, its K copies folded into the contraction.

Each rule takes the layer, its input and the gradient of its output, both with B*K leading rows in which the K copies
of an image stand together, and returns a gradient [B, *shape] for each parameter: the sum over the copies. It is
formed once an image, not once a copy.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

Rule = Callable[[nn.Module, Tensor, Tensor, int], dict[str, Tensor]]


def linear(layer: nn.Linear, x: Tensor, g: Tensor, copies: int) -> dict[str, Tensor]:
    """Linear layer on rows [B*K, ..., in]: outer products, summed over copies and positions."""
    x = x.reshape(len(x) // copies, -1, layer.in_features)  # [B, K*L, in]
    g = g.reshape(len(x), -1, layer.out_features)  # [B, K*L, out]
    return _with_bias(layer, g.transpose(1, 2) @ x, g.sum(1))


def conv2d(layer: nn.Conv2d, x: Tensor, g: Tensor, copies: int) -> dict[str, Tensor]:
    """Convolution [B*K, in, H, W]: the library's weight gradient over the K copies of each image.

    At the sizes of these networks one library call an image beats batched products over unfolded patches.
    """
    shape, num = layer.weight.shape, len(x) // copies
    weight = g.new_empty(num, *shape)  # [B, out, in, k, k]
    for image, (x_image, g_image) in enumerate(zip(x.split(copies), g.split(copies))):
        weight[image] = conv2d_weight(x_image, shape, g_image, layer.stride, layer.padding)
    return _with_bias(layer, weight, g.unflatten(0, (num, copies)).sum((1, 3, 4)))


def group_norm(layer: nn.GroupNorm, x: Tensor, g: Tensor, copies: int) -> dict[str, Tensor]:
    """Group normalisation [B*K, C, ...]: the normalised input is formed again."""
    normalised = F.group_norm(x, layer.num_groups, eps=layer.eps)
    scale = (g * normalised).flatten(2).sum(2)  # [B*K, C]
    shift = g.flatten(2).sum(2)
    return {
        "weight": scale.unflatten(0, (-1, copies)).sum(1),
        "bias": shift.unflatten(0, (-1, copies)).sum(1),
    }


def embedding(layer: nn.Embedding, x: Tensor, g: Tensor, copies: int) -> dict[str, Tensor]:
    """Embedding of indices [B*K]: each image's rows are added up where it looked."""
    num = len(x) // copies
    weight = g.new_zeros(num, *layer.weight.shape)  # [B, entries, width]
    image = torch.arange(num, device=x.device).repeat_interleave(copies)
    return {"weight": weight.index_put_((image, x), g, accumulate=True)}


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear,
    nn.Conv2d: conv2d,
    nn.GroupNorm: group_norm,
    nn.Embedding: embedding,
}


def unsupported(layer: nn.Module) -> str:
    """Why no rule applies to a layer that has parameters, or nothing if one does."""
    if type(layer) not in RULES:
        return f"layers of type {type(layer).__name__} have no rule"
    if isinstance(layer, nn.Conv2d):
        plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
        return "" if plain and not isinstance(layer.padding, str) else "only plain convolutions have a rule"
    if isinstance(layer, nn.Embedding):
        plain = layer.padding_idx is None and layer.max_norm is None and not layer.scale_grad_by_freq
        return "" if plain else "only plain embeddings have a rule"
    return ""


def _with_bias(layer: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {"weight": weight} if layer.bias is None else {"weight": weight, "bias": bias}
