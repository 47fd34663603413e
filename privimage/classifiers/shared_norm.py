"""Batch normalisation by the whole batch, of which each process has a share: a network trains as in a single process.

torch has it for GPUs alone (``SyncBatchNorm``); this is for every device.

Source: Ioffe and Szegedy 2015.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from privimage.distributed import Group

ALL_BUT_CHANNELS = (0, 2, 3)


def share_statistics(network: nn.Module, group: Group) -> None:
    """The network's batch normalisations, if there are several processes, train by all processes' shares together.

    Weights, buffers and their names stay what they are.
    """
    if group.size == 1:
        return
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, SharedBatchNorm2d(child, group))


class SharedBatchNorm2d(nn.BatchNorm2d):
    """A batch normalisation in place of ``plain``, with its weights and buffers."""

    def __init__(self, plain: nn.BatchNorm2d, group: Group) -> None:
        super().__init__(plain.num_features, plain.eps, plain.momentum)
        self.weight, self.bias, self.group = plain.weight, plain.bias, group
        self.running_mean, self.running_var = plain.running_mean, plain.running_var
        self.num_batches_tracked = plain.num_batches_tracked
        self.train(plain.training)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W], where B may be 0, to the same."""
        if not self.training:
            return super().forward(x)
        y, mean, variance, count = _Normalised.apply(x, self.weight, self.bias, self.eps, self.group)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return y


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: Group) -> tuple[Tensor, ...]:
        ctx.group, wide = group, x.to(weight.dtype)
        values = torch.full((1,), x.numel() / x.shape[1], dtype=weight.dtype, device=x.device)
        sums = torch.cat([wide.sum(ALL_BUT_CHANNELS), values])
        group.total(sums)
        mean, count = sums[:-1] / sums[-1], sums[-1]
        squares = (wide - mean[:, None, None]).square().sum(ALL_BUT_CHANNELS)
        group.total(squares)
        variance = squares / count
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps), mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        wide = gradient.to(weight.dtype)
        normal = (x.to(weight.dtype) - mean[:, None, None]) * scale[:, None, None]
        sums = torch.stack([wide.sum(ALL_BUT_CHANNELS), (wide * normal).sum(ALL_BUT_CHANNELS)])
        of_bias, of_weight = sums.clone()  # of this share: they are averaged with all other weights' gradients
        ctx.group.total(sums)
        centre, slope = sums[..., None, None] / count
        of_x = (weight * scale)[:, None, None] * (wide - centre - normal * slope)
        return of_x.to(x.dtype), of_weight, of_bias, None, None
