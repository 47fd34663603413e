"""Feature networks give each image the vector that the network gives it, and refuse what they cannot read."""

import numpy as np
import pytest
import torch
from inception_stub import write_stub

from privimage.artifacts import Provenance, Weights
from privimage.checkpoints import flatten
from privimage.classifiers.resnet import ResNet
from privimage.errors import UserError
from privimage.metrics import features
from privimage.schema import plain
from privimage.settings import ClassifierSettings

SETTINGS = ClassifierSettings(block="basic", blocks_per_level=(1, 1), base_channels=4)


def noise(n, channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8, channels), dtype=np.uint8)


def test_classifier_features_are_those_before_its_last_layer():
    network = ResNet(SETTINGS, 1, 3)
    description = {"settings": plain(SETTINGS), "channels": 1, "num_classes": 3, "resolution": 8}
    weights = Weights("classifier", flatten("raw", network.state_dict()), description, {}, Provenance("c", 1))
    found, images = features.classifier_features(weights), noise(5, 1)
    with torch.no_grad():
        x = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
        expected = network.eval().features(x).numpy()
    got = found.extract(images)
    assert (found.name, found.width, got.dtype, got.shape) == ("classifier", 8, np.float64, (5, 8))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match=r"expected \[8, 8, 1\]"):
        found.extract(noise(1, 3))


@pytest.mark.parametrize("channels", [1, 3])
def test_inception_sees_images_of_299_pixels_in_minus_one_to_one(tmp_path, monkeypatch, channels):
    monkeypatch.setattr(features, "INCEPTION_BATCH_SIZE", 2)
    write_stub(tmp_path / features.INCEPTION_FILE)
    network = features.inception_features(tmp_path / features.INCEPTION_FILE)
    images = np.full((3, 8, 8, channels), 0, np.uint8)
    images[0] = 0
    images[1] = 128
    images[2] = 192
    got = network.extract(images)
    assert (network.name, network.width, got.dtype, got.shape) == ("inception", 2048, np.float64, (3, 2048))
    np.testing.assert_allclose(got, np.outer([-1, 0, 0.5], np.arange(1, 2049)), rtol=1e-4, atol=1e-4)


def test_inception_keeps_the_order_of_colours(tmp_path):
    write_stub(tmp_path / features.INCEPTION_FILE)
    images = np.zeros((1, 8, 8, 3), np.uint8)
    images[..., 2] = 128
    got = features.inception_features(tmp_path / features.INCEPTION_FILE).extract(images)
    np.testing.assert_allclose(got[0, :3], [-1, -2, 0], atol=1e-4)


def test_a_network_of_another_width_is_refused(tmp_path):
    write_stub(tmp_path / features.INCEPTION_FILE, width=1024)
    with pytest.raises(UserError, match="2048 features"):
        features.inception_features(tmp_path / features.INCEPTION_FILE)


@pytest.mark.parametrize("content", [b"", b"not a network", "tensors"])
def test_a_file_that_is_no_torchscript_is_refused(tmp_path, content):
    path = tmp_path / features.INCEPTION_FILE
    if content == "tensors":
        torch.save({"a": torch.zeros(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="TorchScript"):
        features.inception_features(path)


def test_a_file_of_another_name_is_refused(tmp_path):
    write_stub(tmp_path / "other.pt")
    with pytest.raises(UserError, match="rename"):
        features.inception_features(tmp_path / "other.pt")
