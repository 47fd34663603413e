"""How many images fit into memory at once."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from privimage.errors import UserError
from privimage.ranks import leads

GPU_SHARE = 0.6  # of what is free: fragments, workspaces of libraries and the largest layer's gradients take the rest
CPU_BYTES = 1_000_000_000  # caches are small: more images at once are no faster


def bytes_kept(forward: Callable[[], Tensor]) -> int:
    """The bytes that autograd keeps for the backward pass of ``forward()``, each stretch of memory counted once."""
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(seen.values())


def images_that_fit(bytes_per_image: int, device: torch.device, most: int) -> int:
    """At least one, at most ``most``, a power of two in between: small changes of what is free then change nothing."""
    free = torch.cuda.mem_get_info(device)[0] * GPU_SHARE if device.type == "cuda" else CPU_BYTES
    fit = max(1, int(free // max(1, bytes_per_image)))
    return max(1, min(1 << (fit.bit_length() - 1), most))


def is_full(error: BaseException) -> bool:
    """Whether the error is about memory."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def smaller(size: int, error: BaseException) -> int:
    """Half of a number of images that was too large; an error that is not about memory goes on.

    Raises:
        UserError: if it was a single image.
    """
    if not is_full(error):
        raise error
    torch.cuda.empty_cache()
    if size == 1:
        raise UserError(
            "a single image does not fit into memory; lower finetune.noise_levels_per_image or the network's size."
        ) from error
    if leads():
        print(f"warning: out of memory with {size} images at once; going on with {size // 2}.", file=sys.stderr)
    return size // 2
