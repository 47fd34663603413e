"""Which candidate each image is nearest to, in the features of a public classifier; and who lives on.

Each image casts one vote, for a candidate of its own class, and its vote depends on that image and the candidates
alone: on no other image, and not on how many there are. One image more adds 1 to one count, therefore, and changes no
other, whatever the candidates are.

Source: Lin et al., ICLR 2024, algorithms 1 and 2.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from privimage.classifiers.inference import image_by_image

BLOCK = 50_000_000  # distances that are held at once


def features(network: nn.Module, images: np.ndarray | Tensor) -> Tensor:
    """What the classifier's last layer sees in each image: uint8 [N, H, W, C] -> float32 [N, D], where it is itself."""
    return image_by_image(network, network.features, images).to(next(network.parameters()).device)


def counted(seen: Tensor, labels: Tensor, candidates: Tensor, candidate_labels: Tensor) -> np.ndarray:
    """The votes for each candidate, int64 [P]: each image votes for the nearest candidate of its class.

    Shapes: ``seen`` [N, D] with ``labels`` int64 [N]; ``candidates`` [P, D] with ``candidate_labels`` int64 [P], at
    least one of each class.
    """
    labels, candidate_labels = labels.to(seen.device), candidate_labels.to(seen.device)
    counts = torch.zeros(len(candidates), dtype=torch.int64, device=seen.device)
    for label in labels.unique():
        rivals = torch.nonzero(candidate_labels == label).flatten()  # [M]
        voters = seen[labels == label]
        for block in voters.split(max(1, BLOCK // len(rivals))):
            # Pair by pair, not by a matrix product, whose rounding may depend on the other images.
            distances = torch.cdist(block, candidates[rivals], compute_mode="donot_use_mm_for_euclid_dist")
            counts += torch.bincount(rivals[distances.argmin(dim=1)], minlength=len(counts))
    return counts.cpu().numpy()


def chances(noisy: np.ndarray, labels: Tensor, threshold: float) -> Tensor:
    """Each candidate's chance of being a parent, float64 [P], adding up to 1 over each class.

    Noisy counts below ``threshold`` are none; in a class that keeps none, all candidates have the same chance.
    """
    kept = torch.from_numpy(np.where(noisy >= threshold, noisy, 0).clip(min=0)).double()
    total = torch.zeros(int(labels.max()) + 1, dtype=torch.float64).index_add(0, labels, kept)[labels]
    size = torch.bincount(labels)[labels]
    return torch.where(total > 0, kept / total.clamp(min=1), 1 / size.double())


def parents(chance: Tensor, labels: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
    """A candidate for each of the ``wanted`` labels, int64 [M], of that label and drawn by its chance.

    Of m wanted of a class, a candidate of chance p is drawn m p times, rounded up or down (systematic resampling).
    """
    found = torch.empty_like(wanted)
    for label in wanted.unique():
        rivals = torch.nonzero(labels == label).flatten()
        places = torch.nonzero(wanted == label).flatten()
        start = torch.rand(1, generator=generator, dtype=torch.float64)
        points = (torch.arange(len(places)) + start) / len(places)  # in [0, 1)
        bounds = chance[rivals].cumsum(0)
        chosen = torch.searchsorted(bounds / bounds[-1], points, right=True).clamp(max=len(rivals) - 1)
        found[places] = rivals[chosen[torch.randperm(len(places), generator=generator)]]
    return found
