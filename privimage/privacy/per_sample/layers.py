"""The weight gradient of each image at one layer, its K copies folded into the contraction.

Each rule takes the layer, its input and the gradient of its output, both with B*K leading rows in which the K copies
of an image stand together, and returns a gradient [B, *shape] for each parameter: the sum over the copies. It is
formed once an image, not once a copy. Under autocast the input is brought to the precision in which the layer computed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW_PRODUCTS = 1 << 17  # for an image and a pixel of the kernel; with fewer, `by_window` takes half the time or less

Rule = Callable[[nn.Module, Tensor, Tensor, int], dict[str, Tensor]]


def linear(layer: nn.Linear, x: Tensor, g: Tensor, copies: int) -> dict[str, Tensor]:
    """Linear layer on rows [B*K, ..., in]: outer products, summed over copies and positions."""
    x = x.to(g.dtype).reshape(len(x) // copies, -1, layer.in_features)  # [B, K*L, in]
    g = g.reshape(len(x), -1, layer.out_features)  # [B, K*L, out]
    return _named(layer, g.transpose(1, 2) @ x, g.sum(1))


def conv2d(layer: nn.Conv2d, x: Tensor, g: Tensor, copies: int) -> dict[str, Tensor]:
    """Convolution of [B*K, in, H, W].

    On a CPU the library's weight gradient over the copies of each image, which beats batched products over unfolded
    patches, but where so little is to be multiplied that the calls take longer; on a GPU, which would wait for so many
    small calls, one batched product a pixel of the kernel.
    """
    x = x.to(g.dtype)
    if x.is_cuda or torch.compiler.is_compiling():
        return _named(layer, by_kernel_pixel(layer, x, g, copies), g.unflatten(0, (-1, copies)).sum((1, 3, 4)))
    bias = g.sum((2, 3)).unflatten(0, (-1, copies)).sum(1)
    if layer.in_channels * layer.out_channels * copies * g[0, 0].numel() <= FEW_PRODUCTS:
        return _named(layer, by_window(layer, x, g, copies), bias)
    how = (layer.weight, None, layer.stride, layer.padding, (1, 1), False, (0, 0), 1, (False, True, False))
    pairs = zip(g.split(copies), x.split(copies))
    weight = torch.stack([torch.ops.aten.convolution_backward.default(*pair, *how)[1] for pair in pairs])
    return _named(layer, weight, bias)


def embedding(layer: nn.Embedding, x: Tensor, g: Tensor, copies: int) -> dict[str, Tensor]:
    """Embedding of indices [B*K]: each image's rows are added up where it looked."""
    num = len(x) // copies
    weight = g.new_zeros(num, *layer.weight.shape)  # [B, entries, width]
    image = torch.arange(num, device=x.device).repeat_interleave(copies)
    return {"weight": weight.index_put_((image, x), g, accumulate=True)}


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear,
    nn.Conv2d: conv2d,
    nn.Embedding: embedding,
}


def is_pointwise(layer: nn.Module) -> bool:
    """Whether the layer is a convolution that looks at each pixel alone."""
    plain = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.stride == (1, 1)
    return plain and layer.padding == (0, 0)


def unsupported(layer: nn.Module) -> str:
    """Why no rule applies to a layer that has parameters, or nothing if one does."""
    if type(layer) not in (*RULES, nn.GroupNorm):
        return f"layers of type {type(layer).__name__} have no rule"
    if isinstance(layer, nn.Conv2d):
        plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
        return "" if plain and not isinstance(layer.padding, str) else "only plain convolutions have a rule"
    if isinstance(layer, nn.Embedding):
        plain = layer.padding_idx is None and layer.max_norm is None and not layer.scale_grad_by_freq
        return "" if plain else "only plain embeddings have a rule"
    return ""


def _named(layer: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {"weight": weight} if layer.bias is None else {"weight": weight, "bias": bias}


def by_kernel_pixel(layer: nn.Conv2d, x: Tensor, g: Tensor, copies: int) -> Tensor:
    """The weight gradient [B, out, in, k, k]: for each pixel of the kernel, the inputs that it met times ``g``."""
    (height, width), (down, right), num = layer.kernel_size, layer.stride, len(x) // copies
    x = F.pad(x, (layer.padding[1],) * 2 + (layer.padding[0],) * 2).permute(0, 2, 3, 1)  # [B*K, H', W', in]
    rows, columns = g.shape[2:]
    g = g.permute(0, 2, 3, 1).reshape(num, -1, g.shape[1]).transpose(1, 2)  # [B, out, K*H*W]
    weight = g.new_empty(num, height, width, g.shape[1], x.shape[3])
    for i in range(height):
        for j in range(width):
            met = x[:, i : i + down * (rows - 1) + 1 : down, j : j + right * (columns - 1) + 1 : right]
            weight[:, i, j] = g @ met.reshape(num, -1, x.shape[3])  # [B, out, in]
    return weight.permute(0, 3, 4, 1, 2)


def by_window(layer: nn.Conv2d, x: Tensor, g: Tensor, copies: int) -> Tensor:
    """The weight gradient [B, out, in, k, k]: the windows that the kernel saw, side by side, times ``g``."""
    (height, width), (down, right), num = layer.kernel_size, layer.stride, len(x) // copies
    x = F.pad(x, (layer.padding[1],) * 2 + (layer.padding[0],) * 2).permute(0, 2, 3, 1).contiguous()
    rows, columns, channels = x.shape[1:]  # of [B*K, H', W', in]
    steps = (rows * columns * channels, down * columns * channels, right * channels, columns * channels, 1)
    windows = x.as_strided((len(x), *g.shape[2:], height, width * channels), steps)  # overlapping views
    windows = windows.reshape(num, -1, height * width * channels)  # [B, K*H*W, k*k*in]
    g = g.permute(0, 2, 3, 1).reshape(num, -1, g.shape[1])  # [B, K*H*W, out]
    weight = g.transpose(1, 2) @ windows  # [B, out, k*k*in]
    return weight.unflatten(2, (height, width, channels)).permute(0, 1, 4, 2, 3)
