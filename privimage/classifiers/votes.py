"""What a public classifier sees in labelled images: the votes of each image for public classes, and their histogram.

Source: Li et al. 2024 (PrivImage), the semantic distribution query.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from privimage.artifacts import ImageSet
from privimage.classifiers.inference import to_float
from privimage.device import default_device
from privimage.progress import progress

BATCH_SIZE = 250


def histogram(images: ImageSet, classifier: nn.Module, num_public_classes: int, top_k: int) -> np.ndarray:
    """How many images of each sensitive class vote for each public class: int64 [classes, public classes].

    Each image's votes depend on that image alone: the classifier is in evaluation mode, and every batch has the same
    shape (the last one is filled up), so that one more image does not select other kernels with other roundings.
    """
    counts = np.zeros((len(images.class_names), num_public_classes), np.int64)
    classifier = classifier.to(default_device()).eval()
    starts = range(0, len(images.labels), BATCH_SIZE)
    for start in progress(starts, "votes", len(starts), images=BATCH_SIZE):
        index = np.arange(start, start + BATCH_SIZE) % len(images.labels)
        with torch.no_grad():
            logits = classifier(to_float(images.images[index]).to(default_device())).cpu()
        labels = images.labels[start : start + BATCH_SIZE]  # [B]
        chosen = votes(logits[: len(labels)], top_k).numpy()  # [B, k]
        np.add.at(counts, (labels[:, None], chosen), 1)
    return counts


def votes(logits: Tensor, top_k: int) -> Tensor:
    """The ``top_k`` distinct classes with the largest logits of each image; NaN is smallest, ties go to the first.

    Shapes: [B, classes] -> int64 [B, top_k].
    """
    ranked = torch.where(torch.isnan(logits), -torch.inf, logits)
    return torch.sort(ranked, dim=1, descending=True, stable=True).indices[:, :top_k]
