"""Training a part of a denoiser: its attention and conditioning alone, or low-rank adapters beside its frozen layers.

What is trained privately gets noise, and the fewer parameters, the less noise there is in all.

Source: Liu et al. 2023 (DP-LDM: attention and conditioning); Hu et al. 2022 (LoRA); Tsai et al. 2025 (DP-LoRA).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from privimage.diffusion.denoiser import Denoiser
from privimage.diffusion.network import Attention, ResidualBlock

Trained = Literal["all", "attention", "lora"]
LAYERS = ("query", "key", "value", "out")  # of attention, those that get adapters


class LowRank(nn.Module):
    """A frozen layer plus a product of two small ones: ``base(x) + up(down(x))``, at the start the base alone."""

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        c_out, c_in = base.weight.shape[:2]
        if isinstance(base, nn.Conv2d):
            self.down, self.up = nn.Conv2d(c_in, rank, 1, bias=False), nn.Conv2d(rank, c_out, 1, bias=False)
        else:
            self.down, self.up = nn.Linear(c_in, rank, bias=False), nn.Linear(rank, c_out, bias=False)
        nn.init.normal_(self.down.weight, std=c_in**-0.5)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """As the base layer's, whose output changes by a map of rank ``rank`` at most."""
        return self.base(x) + self.up(self.down(x))

    @torch.no_grad()
    def merged(self) -> nn.Linear | nn.Conv2d:
        """One layer that does the same."""
        made = copy.deepcopy(self.base).requires_grad_(True)
        made.weight += (self.up.weight.flatten(1) @ self.down.weight.flatten(1)).view_as(made.weight)
        return made


def to_train(model: Denoiser, trained: Trained, rank: int, seed: int) -> Denoiser:
    """The denoiser, changed in place: only what is to be trained requires a gradient, which gives the same as before.

    ``attention``: the attention layers, and what leads labels and noise levels to each block. ``lora``: adapters of the
    ``rank`` beside the attention's layers and each block's view of labels and noise levels, and the labels' embedding,
    since classes are new. The adapters' start depends on the seed alone.
    """
    if trained == "all":
        return model
    model.requires_grad_(False)
    network = model.network
    if trained == "attention":
        parts = [network.embed_in, network.embed_out]
        parts += [m if isinstance(m, Attention) else m.embed for m in _parts(model)]
        for part in parts:
            part.requires_grad_(True)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for part in _parts(model):
                for name in LAYERS if isinstance(part, Attention) else ("embed",):
                    setattr(part, name, LowRank(getattr(part, name), rank))
    if network.label_embedding is not None:
        network.label_embedding.requires_grad_(True)
    return model


def merged(model: Denoiser) -> Denoiser:
    """A denoiser that does the same and has no adapters; all of it may be trained."""
    made = copy.deepcopy(model)
    for part in _parts(made):
        for name, layer in list(part.named_children()):
            if isinstance(layer, LowRank):
                setattr(part, name, layer.merged())
    return made.requires_grad_(True)


def _parts(model: Denoiser) -> Iterator[Attention | ResidualBlock]:
    return (m for m in list(model.modules()) if isinstance(m, (Attention, ResidualBlock)))
