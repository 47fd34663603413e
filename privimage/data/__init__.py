"""Readers of image sources: the only place that knows a data set's name.

A reader takes what `shard` was told of a row, and the declared class names of a sensitive set (None for a public one);
it returns the `Collection` of its images. A reader's module is imported when a row names its source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from privimage.data.record import Collection
from privimage.settings import Source

Reader = Callable[[Source, Sequence[str] | None], Collection]

MODULES = {  # source -> module
    "auto": "detect",
    "folder": "folder",
    "npz": "npz",
    "hdf5": "hdf5",
    "parquet": "parquet",
    "digits": "digits",
    "glyphs": "glyphs",
    "mnist": "mnist",
    "fashion-mnist": "mnist",
    "kmnist": "mnist",
    "emnist": "mnist",
    "cifar10": "cifar",
    "cifar100": "cifar",
    "imagenet": "imagenet",
    "imagenet-downsampled": "imagenet_downsampled",
    "celeba": "celeba",
    "camelyon17": "camelyon",
    "eurosat": "eurosat",
}


def reader(source: str) -> Reader:
    """What reads a source of this name."""
    return import_module(f"privimage.data.{MODULES[source]}").read
