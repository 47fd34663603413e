"""The device that a stage computes on."""

from __future__ import annotations

import torch


def default_device() -> torch.device:
    """The first CUDA device that the process may see, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
