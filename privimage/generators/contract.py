"""What stages hand to a generator, and what they get back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from privimage.artifacts import ImageSet, Subset, Weights
from privimage.checkpoints import Checkpoint
from privimage.compute import DEFAULT, Compute
from privimage.distributed import ALONE, Group
from privimage.settings import Declared


@dataclass(frozen=True)
class Pretraining:
    """Public images to learn from: those at ``index`` [n] under ``labels`` [n], named ``class_names``; maybe none."""

    public: ImageSet
    index: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    subset: Subset
    declared_names: tuple[str, ...]  # of the sensitive classes
    settings: Any
    seed: int
    checkpoint: Checkpoint | None = None
    compute: Compute = DEFAULT
    group: Group = ALONE


@dataclass(frozen=True)
class PrivateTask:
    """Sensitive images to learn from, and where to start.

    ``classifier`` is there for generators that read it, ``public`` (public images) where gradients are damped by them.
    """

    pretrained: Weights
    images: ImageSet
    declared: Declared
    settings: Any
    seed: int
    classifier: Weights | None = None
    public: ImageSet | None = None
    compute: Compute = DEFAULT
    group: Group = ALONE


@dataclass(frozen=True)
class Made:
    """Weights without their provenance, which the stage knows."""

    kind: str
    tensors: dict[str, Tensor]
    network: dict[str, Any]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Drawer:
    """Where images come from.

    ``draw(labels, first, generator)`` gives uint8 images [n, H, W, C], on the CPU, for labels int64 [n]; the first of
    them is number ``first`` of the set, and all randomness is the generator's.
    """

    shape: tuple[int, int, int]  # H, W, C
    draw: Callable[[Tensor, int, torch.Generator], Tensor]
