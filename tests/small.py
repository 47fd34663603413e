"""A small set of grey images and a small public classifier for them, for tests of stages that need both."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from privimage.artifacts import ImageSet, Provenance, Weights
from privimage.checkpoints import flatten
from privimage.classifiers.resnet import ResNet
from privimage.schema import plain
from privimage.settings import ClassifierSettings


def noise_set(count: int, seed: int) -> ImageSet:
    """Random images of 8 pixels in three classes."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 200, (count, 8, 8, 1), dtype=np.uint8)
    return ImageSet(images, rng.integers(0, 3, count), ("a", "b", "c"), "made")


def write_classifier(path: Path) -> None:
    """An untrained classifier with four features and three classes, as the stage `classifier` writes it."""
    settings = ClassifierSettings(block="basic", blocks_per_level=(1,), base_channels=4)
    description = {"settings": plain(settings), "channels": 1, "num_classes": 3, "resolution": 8}
    tensors = flatten("raw", ResNet(settings, 1, 3).state_dict())
    Weights("classifier", tensors, description, {}, Provenance("classifier", 1)).write(path)
