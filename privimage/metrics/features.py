"""Feature networks: what an image looks like to a network, as a vector.

A Frechet distance means something only beside the network that it was computed with; hence each has a name
and gives its distance a name. Only Inception's, after the resizing of clean-fid, may be called FID.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from privimage.artifacts import Weights
from privimage.classifiers.inference import in_batches
from privimage.classifiers.load import load_classifier
from privimage.device import default_device
from privimage.errors import UserError
from privimage.metrics.torchvision_cpu import prepare_torchvision

INCEPTION_FILE = "inception-2015-12-05.pt"  # the name under which clean-fid looks for it
INCEPTION_WIDTH = 2048
INCEPTION_BATCH_SIZE = 50  # at 299 pixels, about a gigabyte


@dataclass(frozen=True)
class FeatureNetwork:
    """A name, the width D of its vectors, and the function uint8 [N, H, W, C] -> float64 [N, D]."""

    name: str
    width: int
    extract: Callable[[np.ndarray], np.ndarray]


def classifier_features(weights: Weights) -> FeatureNetwork:
    """What the last layer of the public classifier sees."""
    device = default_device()
    network = load_classifier(weights).to(device)
    shape = (weights.network["resolution"], weights.network["resolution"], weights.network["channels"])

    def extract(images: np.ndarray) -> np.ndarray:
        if images.shape[1:] != shape:
            raise UserError(
                f"the classifier got images of shape {list(images.shape[1:])}; expected {list(shape)}, "
                "those of its public set."
            )
        return in_batches(network.features, images, device).numpy().astype(np.float64)

    return FeatureNetwork("classifier", network.head.in_features, extract)


def inception_features(path: Path) -> FeatureNetwork:
    """clean-fid's Inception from a local file, on the CPU, after clean-fid's resizing. Nothing is downloaded.

    Raises:
        UserError: if the file is not that network as TorchScript.
    """
    prepare_torchvision()
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    if path.name != INCEPTION_FILE:
        raise UserError(f"quality.inception_path is {path}; expected a file called {INCEPTION_FILE}; rename it.")
    resize = build_resizer("clean")  # uint8 [H, W, 3] -> float32 [299, 299, 3]

    def batch(images: np.ndarray) -> np.ndarray:
        colour = np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images
        x = np.stack([resize(image) for image in colour]).transpose(0, 3, 1, 2)  # [B, 3, 299, 299], 0 to 255
        with torch.inference_mode():
            return network(torch.from_numpy(x)).numpy().astype(np.float64)

    def extract(images: np.ndarray) -> np.ndarray:
        starts = range(0, len(images), INCEPTION_BATCH_SIZE)
        return np.concatenate([batch(images[i : i + INCEPTION_BATCH_SIZE]) for i in starts])

    try:
        network = InceptionV3W(str(path.parent), download=False).eval()
        extract(np.zeros((2, 8, 8, 3), np.uint8))
    except (RuntimeError, AttributeError) as error:
        raise UserError(
            f"{path} is not Inception as TorchScript with {INCEPTION_WIDTH} features "
            f"({type(error).__name__}); give the file that clean-fid downloads."
        ) from error
    return FeatureNetwork("inception", INCEPTION_WIDTH, extract)
