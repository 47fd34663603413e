"""Let torchvision be imported beside a torch without GPU support.

The package registry's torchvision is built for CUDA. Beside a CPU torch its compiled operators do not load,
and its import fails on the first one that it wants to describe. Declaring that operator is enough for
everything that is written in Python: models, transforms, data sets. Calling the operator still fails, as it
should.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # a library's operators vanish with it


def prepare_torchvision() -> None:
    """``import torchvision`` works from here on, if torchvision is installed."""
    if _declared or torch.version.cuda or torch.version.hip or _operators_load():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}{SCHEMA}")
    _declared.append(library)


def _operators_load() -> bool:
    """Whether torchvision's compiled operators, if there are any, load into this torch."""
    found = importlib.util.find_spec("torchvision")
    compiled = sorted(Path(found.origin).parent.glob("_C*.so")) if found and found.origin else []
    try:
        for path in compiled:
            torch.ops.load_library(path)
    except OSError:
        return False
    return bool(compiled)
