"""The device that a stage computes on."""

from __future__ import annotations

import os

import torch

from privimage.errors import UserError
from privimage.gpus import REQUIRED, VISIBLE


def default_device() -> torch.device:
    """The CUDA device of this process, else the CPU.

    Raises:
        UserError: if a scheduler gave the stage a GPU and none can be used.
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get(REQUIRED):
        built = "" if torch.version.cuda or torch.version.hip else ", which was built without support for any"
        raise UserError(
            f"a GPU was asked for and given ({VISIBLE}={os.environ.get(VISIBLE)}), and torch cannot use it{built}; "
            "mend its driver, or set the resource `gpu` to 0 to compute on the CPU."
        )
    return torch.device("cpu")
