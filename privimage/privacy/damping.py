"""Damp each image's gradient, before it is clipped, in the directions in which gradients of public images vary most.

Most of an image's gradient lies in a few directions that all images share. Clipped as it is, the rest, which also has
something to teach, drowns in noise. Damped there, it gets a larger part of the bound.

The map is fixed by public images and by the weights that private training starts from, acts on each image's gradient by
itself and comes before clipping, so that it bears on no guarantee.

Source: preconditioning by public gradients before clipping, entry by entry: Li et al. 2022 (AdaDPS). Subspaces of
public gradients: Zhou et al. 2021; Yu et al. 2021 (gradient embedding perturbation).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

FLAT = 1e-4  # of the largest second moment: directions with less are left alone, so that a hundredth is always kept


@dataclass(frozen=True)
class Damping:
    """Directions by parameter, [k, entries], orthonormal over all parameters together; what is kept along each, [k]."""

    directions: dict[str, Tensor]
    kept: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """All that the map is made of, by name."""
        return {**self.directions, "kept": self.kept}

    def __call__(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The gradients [B, *shape] by parameter, damped: [B, entries]."""
        flat = {name: rows.flatten(1) for name, rows in gradients.items()}
        along = sum(rows @ self.directions[name].to(rows.dtype).T for name, rows in flat.items())  # [B, k]
        lost = along * (1 - self.kept.to(along.dtype))
        return {n: torch.addmm(rows, lost, self.directions[n].to(rows.dtype), alpha=-1) for n, rows in flat.items()}


def damping_by(gradients: Mapping[str, Tensor], num_directions: int) -> Damping:
    """The damping that public gradients tell, of M images by parameter [M, entries]: at most so many directions.

    Each image counts alike, whatever its gradient's norm. The directions are those of the largest second moments
    l_1 >= ... >= l_k, and sqrt(l_k / l_i) is kept along the i-th: along all of them gradients are then as large as
    along the last; where that is flat, as if it were just not. A gradient that is zero or not finite says nothing.
    """
    product = sum((rows @ rows.T).double() for rows in gradients.values())  # [M, M]
    norms = product.diagonal().clamp(min=0).sqrt()
    scale = torch.where(torch.isfinite(norms) & (norms > 0), 1 / norms, 0.0)
    product = torch.where(scale[:, None] * scale > 0, product * scale[:, None] * scale, 0.0)
    moments, vectors = torch.linalg.eigh(product)  # rising
    moments, vectors = moments.flip(0)[:num_directions], vectors.flip(1)[:, :num_directions]
    least, there = moments[-1:].clamp(min=FLAT * moments[0]), moments > FLAT * moments[0]
    moments, vectors = moments[there], vectors[:, there]
    weights = (vectors / moments.sqrt() * scale[:, None]).T  # [k, M]
    directions = {
        name: weights.to(rows.dtype) @ torch.where(scale[:, None] > 0, rows, 0.0) for name, rows in gradients.items()
    }
    return Damping(directions, (least / moments).sqrt())
