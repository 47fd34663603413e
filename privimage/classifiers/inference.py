"""Running a classifier over many images: conversion, batches, accuracy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from privimage.artifacts import ImageSet

BATCH_SIZE = 500


def to_float(images: np.ndarray | Tensor) -> Tensor:
    """What networks see, in [-1, 1]: uint8 [B, H, W, C] -> float32 [B, C, H, W]."""
    pixels = torch.from_numpy(np.array(images)) if isinstance(images, np.ndarray) else images
    return pixels.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1


@torch.inference_mode()
def in_batches(function: Callable[[Tensor], Tensor], images: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """``function`` of all images, on the CPU: uint8 [N, H, W, C] -> [N, ...]."""
    starts = range(0, len(images), BATCH_SIZE)
    return torch.cat([function(to_float(images[i : i + BATCH_SIZE]).to(device)).cpu() for i in starts])


@torch.inference_mode()
def predictions(network: nn.Module, images: Tensor) -> np.ndarray:
    """The class that each image gets, which depends on that image alone; the network is left in evaluation mode.

    Every batch has the same shape (the last one is filled up), so that one more image does not select other kernels
    with other roundings. Shapes: uint8 [N, H, W, C], on the network's device -> int64 [N].
    """
    network.eval()
    found = []
    for start in range(0, len(images), BATCH_SIZE):
        index = torch.arange(start, start + BATCH_SIZE, device=images.device) % len(images)
        found.append(network(to_float(images[index])).argmax(dim=1).cpu())
    return torch.cat(found)[: len(images)].numpy()


def accuracy(network: nn.Module, images: ImageSet) -> float:
    """The fraction of images that get their label; the network is left in evaluation mode."""
    network.eval()
    scores = in_batches(network, images.images, next(network.parameters()).device)  # [N, num_classes]
    return float((scores.argmax(dim=1).numpy() == images.labels).mean())
