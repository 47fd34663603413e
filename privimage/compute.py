"""How a stage computes on the device it has: precision, layout of memory, compilation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from privimage.device import default_device
from privimage.settings import ComputeSettings

GRADIENTS = 2  # raised when gradients are rounded otherwise than before: what was begun before is not replayed

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Compute:
    """The device and what is asked of it."""

    settings: ComputeSettings = ComputeSettings()

    @property
    def device(self) -> torch.device:
        """Where the stage computes."""
        return default_device()

    @property
    def precision(self) -> str:
        """``float32`` or ``bfloat16``: what `auto` means here."""
        if self.settings.precision != "auto":
            return self.settings.precision
        if self.device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return "bfloat16" if fast else "float32"

    @property
    def workers(self) -> int:
        """Microbatches of DP-SGD to compute side by side: on a CPU, one a core."""
        alone = self.device.type == "cuda" or self.settings.compile or self.settings.engine == "opacus"
        return 1 if alone else torch.get_num_threads()

    def autocast(self) -> torch.autocast:
        """A block in which products are of the wanted precision; weights and sums stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def place(self, model: Model) -> Model:
        """The model on the device; on a GPU, whose convolutions want it, with an image's channels side by side."""
        wanted = torch.channels_last if self.device.type == "cuda" else torch.preserve_format
        return model.to(self.device, memory_format=wanted)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, compiled if that is asked for; where compilation fails, a message, and the function itself."""
        if not self.settings.compile:
            return function
        return _Compiled(function)

    def describe(self) -> dict[str, Any]:
        """What must be the same for a replayed step to come out the same."""
        return {
            "gradients": GRADIENTS,
            "engine": self.settings.engine,
            "precision": self.precision,
            "compile": self.settings.compile,
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
        }


DEFAULT = Compute()


class _Compiled:
    """A compiled function until its first failure, then the function itself.

    It is compiled once, for the shapes of its first call; calls with others, such as a last smaller batch, are not.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.fast, self.shapes = function, torch.compile(function, dynamic=False), None

    def __call__(self, *args: Any) -> Any:
        shapes = [leaf.shape for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
        self.shapes = self.shapes or shapes
        if self.fast is not None and shapes == self.shapes:
            try:
                return self.fast(*args)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # a compiler fails in many ways; a mistake of the function's own shows below
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                print(f"warning: torch.compile failed ({reason}); going on without it.", file=sys.stderr)
                self.fast = None
        return self.function(*args)
