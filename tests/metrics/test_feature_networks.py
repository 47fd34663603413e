"""Feature networks give each image the vector that the network gives it, and refuse what they cannot read."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from inception_stub import write_stub
from safetensors.torch import save_file
from torch.nn import functional as F

from privimage.artifacts import Provenance, Weights, sha256
from privimage.checkpoints import flatten
from privimage.classifiers.cifar_resnet import CifarResNet
from privimage.classifiers.resnet import ResNet
from privimage.data.published import INCEPTION
from privimage.errors import UserError
from privimage.metrics import feature_networks
from privimage.metrics.feature_networks import inception_network, load_network
from privimage.networks import NETWORKS, Network
from privimage.schema import plain
from privimage.settings import ClassifierSettings

SETTINGS = ClassifierSettings(block="basic", blocks_per_level=(1, 1), base_channels=4)


def noise(n, channels, seed=0, size=8):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def seen(network, images):
    """Features and logits of the images, as arrays."""
    with torch.inference_mode():
        features, logits = network.forward(network.prepare(images))
    return features.numpy(), None if logits is None else logits.numpy()


def test_classifier_features_are_those_before_its_last_layer(tmp_path):
    network = ResNet(SETTINGS, 1, 3)
    description = {"settings": plain(SETTINGS), "channels": 1, "num_classes": 3, "resolution": 8}
    weights = Weights("classifier", flatten("raw", network.state_dict()), description, {}, Provenance("c", 1))
    weights.write(tmp_path / "file")
    found, images = load_network("classifier", NETWORKS["classifier"], tmp_path / "file"), noise(5, 1)
    with torch.no_grad():
        x = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
        expected = network.eval().features(x).numpy(), network(x).numpy()
    assert (found.name, found.sha256) == ("classifier", sha256(tmp_path / "file"))
    for got, wanted in zip(seen(found, images), expected):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match=r"expected \[8, 8, 1\]"):
        found.prepare(noise(1, 3))


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """A stand-in of Inception in a cache folder."""
    folder = tmp_path_factory.mktemp("cache") / "privimage"
    folder.mkdir()
    write_stub(folder / INCEPTION.name)
    return folder / INCEPTION.name


@pytest.mark.parametrize("name", ["inception", "inception-legacy"])
@pytest.mark.parametrize("channels", [1, 3])
def test_inception_sees_images_of_299_pixels_in_minus_one_to_one(inception, name, channels):
    network = inception_network(name, NETWORKS[name], inception)
    images = np.full((3, 8, 8, channels), 0, np.uint8)
    images[1], images[2] = 128, 192
    features, logits = seen(network, images)
    assert (network.name, features.shape) == (name, (3, 2048))
    np.testing.assert_allclose(features, np.outer([-1, 0, 0.5], np.arange(1, 2049)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, [[0, -1], [0, 0], [0, 0.5]], atol=1e-4)  # the bias of 100 does not count


def test_the_two_resizings_differ_and_are_told_apart(inception):
    """clean-fid's `clean` is a bicubic of Pillow before the network, its `legacy_tensorflow` the network's own."""
    from cleanfid.resize import build_resizer

    images = noise(2, 3)
    clean, legacy = (inception_network(name, NETWORKS[name], inception) for name in ("inception", "inception-legacy"))
    assert (clean.resizing, legacy.resizing) == ("clean-fid `clean`", "clean-fid `legacy_tensorflow`")
    expected = np.stack([build_resizer("clean")(image) for image in images]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(clean.prepare(images).numpy(), expected)
    np.testing.assert_array_equal(legacy.prepare(images).numpy(), images.transpose(0, 3, 1, 2))
    assert np.abs(seen(clean, images)[0] - seen(legacy, images)[0]).max() > 1e-3


def test_inception_keeps_the_order_of_colours(inception):
    images = np.zeros((1, 8, 8, 3), np.uint8)
    images[..., 2] = 128
    got, _ = seen(inception_network("inception", NETWORKS["inception"], inception), images)
    np.testing.assert_allclose(got[0, :3], [-1, -2, 0], atol=1e-4)


def test_inception_comes_from_the_cache_unless_it_could_not_be_had(inception, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(inception.parents[1]))
    status = tmp_path / "complete.json"
    status.write_text(json.dumps([{"name": INCEPTION.name}]))
    with pytest.raises(UserError, match="has the sha256 checksum .*, and the published file has f58cb9b6"):
        load_network("inception", NETWORKS["inception"], status)
    stub = replace(INCEPTION, checksum=f"sha256:{sha256(inception)}")
    monkeypatch.setattr(feature_networks, "INCEPTION", stub)
    assert load_network("inception", NETWORKS["inception"], status).sha256 == sha256(inception)
    status.write_text(json.dumps({"missing": "no network"}))
    assert load_network("inception", NETWORKS["inception"], status) is None


def test_a_network_of_another_width_is_refused(tmp_path):
    write_stub(tmp_path / INCEPTION.name, width=1024)
    with pytest.raises(UserError, match="2048 features"):
        inception_network("inception", NETWORKS["inception"], tmp_path / INCEPTION.name)


@pytest.mark.parametrize("content", [b"", b"not a network", "tensors"])
def test_a_file_that_is_no_torchscript_is_refused(tmp_path, content):
    path = tmp_path / INCEPTION.name
    if content == "tensors":
        torch.save({"a": torch.zeros(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="TorchScript"):
        inception_network("inception", NETWORKS["inception"], path)
    with pytest.raises(UserError, match="TorchScript"):
        load_network("mine", Network(path=str(path)), path)
    with pytest.raises(UserError, match="ResNet-56"):
        load_network("mine", Network(kind="resnet56", path=str(path)), path)


class Colours(torch.nn.Module):
    """The mean and the corner of each channel: [B, 3, 16, 16] -> [B, 6]."""

    def forward(self, x):
        assert x.shape[2] == 16
        return torch.cat([x.mean(dim=[2, 3]), x[:, :, 0, 0]], dim=1)


def test_torchscript_of_a_user_sees_resized_and_normalised_images(tmp_path):
    path = tmp_path / "mine.pt"
    torch.jit.script(Colours()).save(str(path))
    row = Network(path=str(path), input_size=16, mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    images = noise(4, 3)
    got, logits = seen(load_network("mine", row, path), images)
    x = F.interpolate(torch.from_numpy(images).permute(0, 3, 1, 2) / 255, size=(16, 16), mode="bilinear")  # enlarges
    x = (x - torch.tensor(row.mean).view(3, 1, 1)) / torch.tensor(row.std).view(3, 1, 1)
    np.testing.assert_allclose(got, torch.cat([x.mean(dim=(2, 3)), x[:, :, 0, 0]], dim=1), atol=1e-5)
    assert logits is None
    with pytest.raises(UserError, match="input_size"):
        seen(load_network("mine", Network(path=str(path)), path), images)


def test_torchscript_that_gives_no_vectors_is_refused(tmp_path):
    torch.jit.script(torch.nn.Identity()).save(str(tmp_path / "mine.pt"))
    with pytest.raises(UserError, match="one vector an image"):
        seen(load_network("mine", Network(), tmp_path / "mine.pt"), noise(2, 3))


def test_resnet56_from_safetensors(tmp_path):
    network = CifarResNet(56, 3, 10).eval()
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    row, images = Network(kind="resnet56", path="net"), noise(2, 3, size=32)
    features, logits = seen(load_network("mine", row, tmp_path / "net.safetensors"), images)
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - torch.tensor(row.mean).view(3, 1, 1)) / torch.tensor(
        row.std
    ).view(3, 1, 1)
    with torch.no_grad():
        np.testing.assert_allclose(features, network.features(x), atol=1e-5)
        np.testing.assert_allclose(logits, network(x), atol=1e-5)
