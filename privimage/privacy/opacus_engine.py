"""Each image's gradient by Opacus' hooks: the audited reference of the fast engine, slower and K times as large."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from privimage.errors import UserError
from privimage.privacy.per_sample.capture import Losses, trained


class OpacusHooks:
    """Opacus' hooks on one model, whose layers see B*``copies`` rows, the copies of an image together."""

    def __init__(self, model: nn.Module, copies: int) -> None:
        self.model, self.copies = model, copies

    def gradients(self, losses: Losses, num: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses [B] of ``num`` images, and their gradients [B, *shape] by parameter name.

        Raises:
            UserError: if a parameter takes no part in the losses.
        """
        values = losses()  # [B]
        values.sum().backward()
        gradients = {}
        for name, parameter in trained(self.model).items():
            if getattr(parameter, "grad_sample", None) is None:
                raise UserError(f"the parameter `{name}` got no gradient; every parameter must take part in the loss.")
            rows = parameter.grad_sample.unflatten(0, (num, self.copies))  # [B, K, *shape]
            gradients[name] = rows.sum(1)
            parameter.grad_sample = parameter.grad = None
        return values.detach(), gradients


@contextmanager
def opacus_hooks(model: nn.Module, copies: int) -> Iterator[OpacusHooks]:
    """Opacus' hooks on the model, as long as the block lasts."""
    from opacus import GradSampleModule  # takes seconds, and few need it

    wrapped = GradSampleModule(model, loss_reduction="sum")
    try:
        yield OpacusHooks(model, copies)
    finally:
        wrapped.to_standard_module()
