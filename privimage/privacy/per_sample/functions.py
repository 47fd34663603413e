"""Layers whose backward pass is their own: it gives each image's gradients beside the input's, for less than a tap."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def group_norm(layer: nn.GroupNorm, x: Tensor, weight: Tensor | None, bias: Tensor | None, copies: int) -> Tensor:
    """The layer's output for [B*K, C, ...]; ``weight`` and ``bias`` stand for each image's own [B, C], or None."""
    if x.is_cuda and torch.is_autocast_enabled("cuda"):
        x = x.float()  # as autocast does
    return _GroupNorm.apply(x, layer.weight, layer.bias, weight, bias, layer.num_groups, layer.eps, copies)


class _GroupNorm(torch.autograd.Function):
    """The library's normalisation; backward takes the channels of all rows for channels of one.

    The library's backward pass gives the input's gradient and the sums over rows of the parameters'. Told that there is
    one row of B*K*C channels in B*K*groups groups, it leaves those sums undone.
    """

    @staticmethod
    def forward(ctx, x, layer_weight, layer_bias, weight, bias, groups: int, eps: float, copies: int):
        x = x.contiguous()
        rows, channels = x.shape[:2]
        y, mean, scale = torch.native_group_norm(
            x, layer_weight, layer_bias, rows, channels, x[0, 0].numel(), groups, eps
        )
        ctx.save_for_backward(x, layer_weight, mean, scale)
        ctx.groups, ctx.copies = groups, copies
        return y

    @staticmethod
    def backward(ctx, g):
        x, layer_weight, mean, scale = ctx.saved_tensors  # mean and scale: [B*K, groups]
        rows, channels = x.shape[:2]
        one = (1, rows * channels, x[0, 0].numel())
        of_x, weight, bias = torch.ops.aten.native_group_norm_backward.default(
            g.contiguous().view(one), x.view(one), mean.view(1, -1), scale.view(1, -1), layer_weight.repeat(rows),
            *one, rows * ctx.groups, (True, True, True),
        )  # fmt: skip
        weight, bias = (
            t.view(-1, ctx.copies, channels).sum(1) if need else None  # [B, C]
            for t, need in zip((weight, bias), ctx.needs_input_grad[3:5])
        )
        return of_x.view_as(x), None, None, weight, bias, None, None, None


def pointwise(layer: nn.Conv2d, x: Tensor, weight: Tensor | None, bias: Tensor | None, copies: int) -> Tensor:
    """A 1x1 convolution's output for [B*K, in, H, W]; ``weight`` and ``bias`` stand for each image's own, or None."""
    return _Pointwise.apply(x, layer.weight, layer.bias, weight, bias, copies)


class _Pointwise(torch.autograd.Function):
    """The library's 1x1 convolution; backward is products of matrices, which on CPUs take a fraction of its time."""

    @staticmethod
    def forward(ctx, x, layer_weight, layer_bias, weight, bias, copies: int):
        ctx.save_for_backward(x, layer_weight)
        ctx.copies = copies
        return F.conv2d(x, layer_weight, layer_bias)

    @staticmethod
    def backward(ctx, g):
        x, layer_weight = (t.to(g.dtype) for t in ctx.saved_tensors)
        if x.is_contiguous(memory_format=torch.channels_last) and g.is_contiguous(memory_format=torch.channels_last):
            rows, columns = (t.permute(0, 2, 3, 1).flatten(1, 2) for t in (g, x))  # views [B*K, H*W, channels]
            of_x = (rows @ layer_weight.flatten(1)).transpose(1, 2)  # [B*K, in, H*W]
            rows, columns = (t.reshape(len(t) // ctx.copies, -1, t.shape[2]) for t in (rows, columns))
            weight, bias = rows.transpose(1, 2) @ columns, rows.sum(1)  # [B, out, in], [B, out]
        else:
            rows, columns = g.flatten(2), x.flatten(2)  # [B*K, channels, H*W]
            of_x = layer_weight.flatten(1).T @ rows
            weight, bias = rows @ columns.transpose(1, 2), rows.sum(2)  # [B*K, out, in], [B*K, out]
            weight, bias = (t.unflatten(0, (-1, ctx.copies)).sum(1) for t in (weight, bias))
        weight = weight.reshape(len(weight), *layer_weight.shape) if ctx.needs_input_grad[3] else None
        bias = bias if ctx.needs_input_grad[4] else None
        return of_x.reshape(x.shape), None, None, weight, bias, None
