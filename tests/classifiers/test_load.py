"""A classifier comes back from its file as it was written."""

import pytest
import torch

from privimage.artifacts import ArtifactError, Provenance, Weights
from privimage.checkpoints import flatten
from privimage.classifiers.load import load_classifier
from privimage.classifiers.resnet import ResNet
from privimage.schema import plain
from privimage.settings import ClassifierSettings

SETTINGS = ClassifierSettings(block="basic", blocks_per_level=(1,), base_channels=4)


def weights(network, num_classes=3):
    description = {"settings": plain(SETTINGS), "channels": 1, "num_classes": num_classes, "resolution": 8}
    tensors = flatten("raw", network.state_dict())
    return Weights("classifier", tensors, description, {}, Provenance("classifier", 1))


def test_round_trip(tmp_path):
    network = ResNet(SETTINGS, 1, 3)
    network(torch.randn(8, 1, 8, 8))  # moves the running statistics, which must come back too
    weights(network).write(tmp_path / "classifier.safetensors")
    back = load_classifier(Weights.read(tmp_path / "classifier.safetensors", "classifier"))
    x = torch.randn(2, 1, 8, 8)
    assert not back.training
    torch.testing.assert_close(back(x), network.eval()(x), rtol=0, atol=0)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ArtifactError, match="do not fit"):
        load_classifier(weights(ResNet(SETTINGS, 1, 3), num_classes=4))
