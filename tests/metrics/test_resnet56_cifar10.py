"""A published network on real images: its accuracy, and the distance between CIFAR-10's two splits."""

import importlib
import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from privimage.artifacts import ImageSet
from privimage.metrics.extraction import extract
from privimage.metrics.feature_networks import load_network
from privimage.metrics.frechet import frechet_distance
from privimage.networks import Network

EACH = 10_000  # images of each split: all of the test images


def cifar10(folder, split, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    tiles = importlib.import_module("unpack_cifar10").tiles
    with zipfile.ZipFile(folder / "cifar10_lossless_webp.zip") as archive:
        meta = json.loads(archive.read("labels.json"))
        images = np.concatenate([tiles(archive.read(f"{split}/{n:02}.webp")) for n in range(EACH // 1000)])
    labels = np.array(meta[f"{split}_labels"][:EACH], np.int64)
    return ImageSet(images, labels, tuple(meta["classes"]), "cifar10")


@pytest.mark.data
@pytest.mark.slow
def test_fd_resnet56_between_train_and_test(real_data, tmp_path, monkeypatch):
    path = real_data / "feature_nets" / "resnet56-4bfd9763.th"
    published = torch.load(path, weights_only=True, map_location="cpu")  # noqa: TID251 - converted below
    tensors = {key.removeprefix("module."): value for key, value in published["state_dict"].items()}
    save_file(tensors, tmp_path / "resnet56.safetensors")
    network = load_network("resnet56", Network(kind="resnet56"), tmp_path / "resnet56.safetensors")
    train, test = (extract(network, cifar10(real_data, split, monkeypatch), None, split) for split in ("train", "test"))
    accuracy = (test.logits.argmax(axis=1) == test.labels).mean()
    distance = frechet_distance(train, test)
    print(f"accuracy {accuracy:.4f}, FD-ResNet56 between {EACH:,} training and as many test images {distance:.4f}")
    assert accuracy == pytest.approx(0.934, abs=0.001)  # as published with the weights
    assert distance == pytest.approx(0.0741, rel=0.02)  # of these very images, by this network
