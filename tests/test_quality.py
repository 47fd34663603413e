"""The stage `quality`: the distance under the named network, its right name, no failure without weights."""

import json
import sys

import numpy as np
import pytest

from privimage import quality
from privimage.artifacts import ImageSet, Provenance, Weights, sha256
from privimage.checkpoints import flatten
from privimage.classifiers.resnet import ResNet
from privimage.errors import UserError
from privimage.measurements import Quality
from privimage.metrics.features import FeatureNetwork, classifier_features
from privimage.metrics.frechet import Moments, frechet_distance
from privimage.schema import plain
from privimage.settings import ClassifierSettings, QualitySettings

PROVENANCE = Provenance("quality", quality.VERSION)
CORNER = FeatureNetwork("corner", 2, lambda images: images[:, 0, :2, 0].astype(np.float64))


def noise(n, seed, channels=1):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 200, (n, 8, 8, channels), dtype=np.uint8)
    return ImageSet(images, rng.integers(0, 3, n), ("a", "b", "c"), "made")


@pytest.fixture
def files(tmp_path):
    """Synthetic and real images and a classifier, as files."""
    settings = ClassifierSettings(block="basic", blocks_per_level=(1,), base_channels=4)
    description = {"settings": plain(settings), "channels": 1, "num_classes": 3, "resolution": 8}
    tensors = flatten("raw", ResNet(settings, 1, 3).state_dict())
    Weights("classifier", tensors, description, {}, Provenance("classifier", 1)).write(tmp_path / "classifier")
    noise(30, 0).write(tmp_path / "images.h5")
    noise(20, 1).write(tmp_path / "internal" / "train.h5")
    return tmp_path


def main(monkeypatch, folder, settings):
    flags = {
        "--settings": json.dumps(settings),
        "--synthetic": folder / "images.h5",
        "--real": folder / "internal" / "train.h5",
        "--classifier": folder / "classifier",
        "--result": folder / "internal" / "quality.json",
    }
    monkeypatch.setattr(sys, "argv", ["quality", *(str(part) for pair in flags.items() for part in pair)])
    quality.main()
    return Quality.read(folder / "internal" / "quality.json")


def test_a_shift_of_every_feature_costs_its_square(monkeypatch):
    monkeypatch.setattr(quality, "BATCH_SIZE", 7)
    real = noise(40, 0)
    shifted = ImageSet(real.images + np.uint8(5), real.labels, real.class_names, "made")
    result = quality.run(shifted, real, CORNER, QualitySettings(reference_split="test"), PROVENANCE)
    assert result.metrics == {"fd_classifier": pytest.approx(2 * 5**2)}
    assert (result.num_synthetic, result.num_reference) == (40, 40)
    assert (result.reference_split, result.private, result.note) == ("test", False, "")


def test_images_of_another_shape_or_too_few_are_refused():
    with pytest.raises(UserError, match="expected the same"):
        quality.run(noise(4, 0, channels=3), noise(4, 0), CORNER, QualitySettings(), PROVENANCE)
    with pytest.raises(UserError, match="at least 2"):
        quality.run(noise(1, 0), noise(4, 0), CORNER, QualitySettings(), PROVENANCE)


def test_classifier_from_files_to_file(files, monkeypatch):
    result = main(monkeypatch, files, {})
    network = classifier_features(Weights.read(files / "classifier", "classifier"))
    sides = [Moments(network.width), Moments(network.width)]
    for side, images in zip(sides, (noise(30, 0), noise(20, 1))):
        side.update(network.extract(images.images))
    assert result.metrics == {"fd_classifier": pytest.approx(frechet_distance(*sides))}
    assert result.feature_network == "classifier"
    real = sha256(files / "internal" / "train.h5")
    assert set(result.provenance.parents) == {"classifier", "synthetic"}
    assert real not in (files / "internal" / "quality.json").read_text()


def test_inception_is_called_fid_and_its_file_recorded(files, monkeypatch):
    (files / "network.pt").write_bytes(b"weights")
    monkeypatch.setattr(quality, "inception_features", lambda path: CORNER)
    settings = {"feature_network": "inception", "inception_path": str(files / "network.pt")}
    result = main(monkeypatch, files, settings)
    assert result.feature_network == "inception" and result.metrics["fid_inception"] > 0
    assert result.provenance.parents["inception"] == sha256(files / "network.pt")


def test_without_inceptions_file_there_is_a_note_and_no_value(files, monkeypatch):
    settings = {"feature_network": "inception", "inception_path": str(files / "absent.pt")}
    result = main(monkeypatch, files, settings)
    assert result.metrics == {"fid_inception": None}
    assert "weights missing" in result.note
    with pytest.raises(UserError, match="inception_path is missing"):
        main(monkeypatch, files, {"feature_network": "inception"})
