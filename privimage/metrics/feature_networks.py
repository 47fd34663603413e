"""Feature networks: what an image looks like to a network, as a vector.

A distance means something only beside the network that it was computed with; hence each network has a name and gives
its metrics theirs. Only Inception's Frechet distance, after a resizing of clean-fid, may be called FID.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from privimage.artifacts import Weights, reading, sha256
from privimage.classifiers.cifar_resnet import CifarResNet
from privimage.classifiers.inference import BATCH_SIZE, to_float
from privimage.classifiers.load import load_classifier
from privimage.data.placed import difference
from privimage.data.published import INCEPTION
from privimage.device import default_device
from privimage.errors import UserError
from privimage.metrics import torchscript
from privimage.metrics.torchvision_cpu import prepare_torchvision
from privimage.networks import Network, cache_folder

INCEPTION_WIDTH = 2048
INCEPTION_BATCH_SIZE = 50  # at 299 pixels, about a gigabyte
LARGE_BATCH_SIZE = 100  # of a user's network


@dataclass(frozen=True)
class FeatureNetwork:
    """A name, the checksum of the network's file, and how images become vectors.

    ``prepare`` runs on the CPU, beside the network: uint8 [B, H, W, C] -> float32. ``forward`` gives features [B, D]
    and, where the network has them, logits [B, K]. ``resizing`` says in words what the network sees.
    """

    name: str
    sha256: str
    resizing: str
    batch_size: int
    prepare: Callable[[np.ndarray], Tensor]
    forward: Callable[[Tensor], tuple[Tensor, Tensor | None]]


def load_network(name: str, row: Network, weights: Path) -> FeatureNetwork | None:
    """The network of a row from its file; None where Inception's could not be fetched, as ``weights`` then says.

    ``weights`` is the classifier's file, what `download` wrote of Inception, or the row's own file.

    Raises:
        UserError: if the file is not what the row says.
    """
    if row.kind == "classifier":
        return classifier_network(name, weights)
    if row.is_inception:
        path = cache_folder() / INCEPTION.name
        return None if why_missing(row, weights) else inception_network(name, row, published(path))
    return own_network(name, row, weights)


def why_missing(row: Network, weights: Path) -> str:
    """Why Inception could not be fetched, as `download` wrote it; empty for a network that is there."""
    if not row.is_inception:
        return ""
    with reading(weights):
        told = json.loads(weights.read_text(encoding="utf-8"))
        return told["missing"] if isinstance(told, dict) else ""


def published(path: Path) -> Path:
    """The path, if Inception as it was published lies there: a program, of which no other is run in its place.

    Raises:
        UserError: if something else does.
    """
    if wrong := difference(INCEPTION, path):
        raise UserError(f"{path} {wrong}; delete it, and it will be fetched anew, or put the published file there.")
    return path


def classifier_network(name: str, path: Path) -> FeatureNetwork:
    """The public classifier: its features are what its last layer sees."""
    weights, device = Weights.read(path, "classifier"), default_device()
    network = load_classifier(weights).to(device)
    shape = (weights.network["resolution"], weights.network["resolution"], weights.network["channels"])

    def prepare(images: np.ndarray) -> Tensor:
        if images.shape[1:] != shape:
            raise UserError(
                f"the classifier got images of shape {list(images.shape[1:])}; expected {list(shape)}, "
                "those of its public set."
            )
        return to_float(images)

    def forward(x: Tensor) -> tuple[Tensor, Tensor | None]:
        features = network.features(x.to(device))
        return features, network.head(features)

    return FeatureNetwork(name, sha256(path), "none", BATCH_SIZE, prepare, forward)


def inception_network(name: str, row: Network, path: Path) -> FeatureNetwork:
    """clean-fid's Inception from a local file, after one of clean-fid's two resizings. Nothing is downloaded.

    Its logits are those of the inception score as published: without the last layer's bias.

    Raises:
        UserError: if the file is not that network as TorchScript.
    """
    prepare_torchvision()
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    mode, device = "legacy_tensorflow" if row.kind == "inception-legacy" else "clean", default_device()
    resize = build_resizer(mode)  # uint8 [H, W, 3] -> [299, 299, 3]; `legacy_tensorflow` resizes in the network
    threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def prepare(images: np.ndarray) -> Tensor:
        resized = np.stack(list(threads.map(resize, _colour(images))))  # [B, S, S, 3], 0 to 255
        return torch.from_numpy(resized).permute(0, 3, 1, 2).float()

    def forward(x: Tensor) -> tuple[Tensor, Tensor | None]:
        features = network(x.to(device))
        return features, F.linear(features, network.base.output.weight)

    try:
        network = InceptionV3W(str(path.parent), download=False, resize_inside=mode != "clean").eval().to(device)
        with torch.inference_mode():
            forward(prepare(np.zeros((2, 8, 8, 3), np.uint8)))
    except (RuntimeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path} is not Inception as TorchScript with {INCEPTION_WIDTH} features "
            f"({type(error).__name__}); give the file that clean-fid downloads."
        ) from error
    return FeatureNetwork(name, sha256(path), f"clean-fid `{mode}`", INCEPTION_BATCH_SIZE, prepare, forward)


def own_network(name: str, row: Network, path: Path) -> FeatureNetwork:
    """A network from a user's file, after bilinear resizing.

    Raises:
        UserError: if the file is not of the row's kind.
    """
    device = default_device()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (row.mean, row.std))

    def prepare(images: np.ndarray) -> Tensor:
        x = torch.from_numpy(_colour(images)).permute(0, 3, 1, 2).float() / 255  # [B, 3, H, W]
        if row.input_size is not None and row.input_size != x.shape[2]:
            x = F.interpolate(x, size=(row.input_size,) * 2, mode="bilinear", antialias=True)
        return (x - mean) / std

    load = _resnet56 if row.kind == "resnet56" else _torchscript
    network = load(path, device)
    resizing = f"bilinear, antialiased, to {row.input_size} pixels" if row.input_size else "none"
    batch_size = BATCH_SIZE if row.kind == "resnet56" else LARGE_BATCH_SIZE
    return FeatureNetwork(name, sha256(path), resizing, batch_size, prepare, lambda x: network(x.to(device)))


def _torchscript(path: Path, device: torch.device) -> Callable[[Tensor], tuple[Tensor, Tensor | None]]:
    network = torchscript.load(path, device)

    def forward(x: Tensor) -> tuple[Tensor, Tensor | None]:
        try:
            features = network(x)
        except (RuntimeError, torch.jit.Error) as error:
            last = str(error).strip().splitlines()[-1]
            raise UserError(
                f"{path} does not take images of shape {list(x.shape[1:])} ({last}); set its row's `input_size`."
            ) from error
        if not isinstance(features, Tensor) or features.ndim != 2:
            got = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise UserError(f"{path} gives {got}; expected one vector an image, [B, D]; flatten its output.")
        return features, None

    return forward


def _resnet56(path: Path, device: torch.device) -> Callable[[Tensor], tuple[Tensor, Tensor | None]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        network = CifarResNet(56, 3, len(tensors["linear.bias"]))
        network.load_state_dict(tensors)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{path} does not hold the weights of a CIFAR ResNet-56 as safetensors ({type(error).__name__}); "
            "give its state dict, names without a prefix."
        ) from error
    return _split(network.eval().to(device))


def _split(network: CifarResNet) -> Callable[[Tensor], tuple[Tensor, Tensor | None]]:
    def forward(x: Tensor) -> tuple[Tensor, Tensor | None]:
        features = network.features(x)
        return features, network.linear(features)

    return forward


def _colour(images: np.ndarray) -> np.ndarray:
    """Grey becomes three equal colours: uint8 [B, H, W, C] -> [B, H, W, 3]."""
    return np.repeat(images, 3, axis=3) if images.shape[3] == 1 else np.ascontiguousarray(images)
