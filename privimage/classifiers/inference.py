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


def predictions(network: nn.Module, images: Tensor) -> np.ndarray:
    """The class that each image gets, which depends on that image alone; the network is left in evaluation mode.

    Shapes: uint8 [N, H, W, C] -> int64 [N].
    """
    return image_by_image(network, lambda x: network(x).argmax(dim=1), images).numpy()


@torch.inference_mode()
def image_by_image(network: nn.Module, function: Callable[[Tensor], Tensor], images: np.ndarray | Tensor) -> Tensor:
    """``function`` of each image by the network, on the CPU, which depends on that image alone.

    The network is left in evaluation mode. Every batch has the same shape (the last one is filled up), so that one more
    image does not select other kernels with other roundings. Shapes: uint8 [N, H, W, C] -> [N, ...].
    """
    network.eval()
    device, found = next(network.parameters()).device, []
    for start in range(0, len(images), BATCH_SIZE):
        index = np.arange(start, start + BATCH_SIZE) % len(images)
        found.append(function(to_float(images[index]).to(device)).cpu())
    return torch.cat(found)[: len(images)]


def accuracy(network: nn.Module, images: ImageSet) -> float:
    """The fraction of images that get their label; the network is left in evaluation mode."""
    network.eval()
    scores = in_batches(network, images.images, next(network.parameters()).device)  # [N, num_classes]
    return float((scores.argmax(dim=1).numpy() == images.labels).mean())
