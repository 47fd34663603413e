"""Ordinary training in several processes: each computes its share of every batch, and all take the same step.

What is drawn for a batch is drawn whole in each of them, so that the weights come out as from a single process, up to
rounding. All hold the same state; the leader loads it, tells it the others, and saves it. A process that dies ends the
others where they wait for it; what the leader saved last is then where the next start goes on, with as many processes
as it likes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from privimage import stopping
from privimage.checkpoints import Every
from privimage.distributed import Group, unbroken

# The connections, lest torch's reducer be the last to hold them: it would end them without giving up Python's lock, and
# wait for a thread that waits for that lock.
_KEPT: list[dist.ProcessGroup] = []


def averaging(module: nn.Module, group: Group) -> nn.Module:
    """The module, whose backward pass leaves the average of all processes' gradients in each."""
    if group.size == 1:
        return module
    _KEPT.append(dist.group.WORLD)
    with unbroken():
        return DistributedDataParallel(module)


def is_due(every: Every, group: Group) -> bool:
    """Whether all are to save now: by the leader's clock, or since one of them was told to stop."""
    return group.any(every.due() if group.leads else stopping.asked())


def spread(tensors: Mapping[str, Tensor], group: Group) -> None:
    """Everyone's tensors hold the leader's values; they have the same names everywhere, in any order."""
    group.spread(tensors[name] for name in sorted(tensors))


def prepare(optimizer: torch.optim.Optimizer) -> None:
    """The optimiser has a state of the right shapes, as after a step; its values and the weights' are to be told."""
    for parameters in optimizer.param_groups:
        for parameter in parameters["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
