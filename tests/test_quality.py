"""The stage `quality`: what copies, noise and a missing class cost, under the right names; weights may be missing."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import noise_set, write_classifier

from privimage import quality
from privimage.artifacts import ImageSet, Provenance, sha256
from privimage.errors import UserError
from privimage.evaluation_settings import ComparisonSettings
from privimage.feature_sets import WEIGHTS_MISSING, FeatureSet
from privimage.measurements import Quality
from privimage.metrics import kernel
from privimage.metrics.extraction import extract
from privimage.metrics.feature_networks import FeatureNetwork
from privimage.networks import Network

PROVENANCE = Provenance("quality", quality.VERSION)
CORNER = FeatureNetwork(
    "corner", "ab", "none", 64, torch.from_numpy, lambda x: (x[:, 0, :3, 0].float(), -x[:, 0, :3, 0].float() / 9)
)
NAMES = ("a", "b", "c", "d")


def digits_like(n, seed):
    """Images whose corner is a class's colour with a little spread."""
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, len(NAMES), n))
    centres = np.array([[40, 40, 40], [40, 200, 40], [200, 40, 200], [200, 200, 120]])
    images = np.zeros((n, 8, 8, 1), np.uint8)
    images[:, 0, :3, 0] = (centres[labels] + rng.normal(size=(n, 3)) * 8).clip(0, 255)
    return ImageSet(images, labels, NAMES, "made")


TRAIN, TEST = digits_like(800, 0), digits_like(400, 1)
REAL = {"train": extract(CORNER, TRAIN, None, "train"), "test": extract(CORNER, TEST, None, "test")}


@pytest.fixture(autouse=True)
def few_subsets(monkeypatch):
    """What the kernel distance takes most of its time for does not matter here."""
    monkeypatch.setattr(kernel, "NUM_SUBSETS", 3)


def measured(images, split="train", **settings):
    return quality.run(images, REAL, CORNER, ComparisonSettings(reference_split=split, **settings), PROVENANCE)


def test_a_shift_of_every_feature_costs_its_square():
    shifted = ImageSet(TRAIN.images + np.uint8(5), TRAIN.labels, NAMES, "made")
    result = measured(shifted)
    assert result.metrics["fd_corner"] == pytest.approx(3 * 5**2)
    assert (result.num_synthetic, result.num_reference, result.num_gap) == (800, 800, 400)
    assert (result.reference_split, result.resizing, result.private, result.note) == ("train", "none", False, "")


def test_a_copy_is_perfect_and_its_gap_says_that_it_is_one():
    copy, fresh = measured(TRAIN).metrics, measured(digits_like(800, 2)).metrics
    assert copy["fd_corner"] == pytest.approx(0, abs=1e-6)
    assert copy["precision_corner"] == copy["recall_corner"] == copy["coverage_corner"] == 1
    few = ImageSet(TRAIN.images[REAL["train"].index[:100]], TRAIN.labels[REAL["train"].index[:100]], NAMES, "made")
    small = {split: extract(CORNER, images, 100, split) for split, images in (("train", TRAIN), ("test", TEST))}
    stolen = quality.run(few, small, CORNER, ComparisonSettings(), PROVENANCE).metrics
    honest = quality.run(digits_like(100, 3), small, CORNER, ComparisonSettings(), PROVENANCE).metrics
    assert stolen["fd_corner_gap"] > 50 > abs(fresh["fd_corner_gap"])
    assert stolen["fd_corner_gap"] > honest["fd_corner_gap"]


def test_noise_is_far_and_has_no_precision():
    rng = np.random.default_rng(4)
    wild = ImageSet(rng.integers(0, 256, TRAIN.images.shape, dtype=np.uint8), TRAIN.labels, NAMES, "made")
    wild.images[:, 0, :3, 0] = 255 - 4 * (np.arange(800)[:, None] % 3)  # a corner where no real image is
    found, good = measured(wild).metrics, measured(digits_like(800, 2)).metrics
    assert found["fd_corner"] > 100 * good["fd_corner"] and found["kd_corner"] > 100 * abs(good["kd_corner"])
    assert found["precision_corner"] == found["coverage_corner"] == 0 < good["precision_corner"]


def test_a_missing_class_costs_recall_and_coverage_but_no_precision():
    fresh = digits_like(1000, 5)
    kept = fresh.labels != 3
    partial = ImageSet(fresh.images[kept], fresh.labels[kept], NAMES, "made")
    whole, less = measured(fresh).metrics, measured(partial).metrics
    assert whole["recall_corner"] > 0.9 and less["recall_corner"] < 0.8 and less["coverage_corner"] < 0.8
    assert less["precision_corner"] > 0.9 and less["fd_corner"] > 10 * whole["fd_corner"]
    assert less["is_corner"] < whole["is_corner"]


def test_the_protocol_decides_what_counts():
    result = measured(digits_like(500, 6), split="test", num_synthetic=300)
    assert (result.num_synthetic, result.num_reference, result.reference_split) == (300, 400, "test")
    assert set(result.deviations) == {"kd_corner", "is_corner"} and min(result.deviations.values()) > 0


def test_too_few_images_are_refused_and_few_have_no_neighbours():
    with pytest.raises(UserError, match="at least 2"):
        measured(digits_like(1, 7))
    assert "precision_corner" not in measured(digits_like(4, 7)).metrics


def test_features_of_another_network_are_refused():
    with pytest.raises(UserError, match="rerun `features`"):
        quality.run(TRAIN, REAL, replace(CORNER, sha256="cd"), ComparisonSettings(), PROVENANCE)


@pytest.mark.parametrize("kind", ["inception", "inception-legacy"])
def test_only_inceptions_distance_is_called_fid(kind):
    settings = ComparisonSettings(network=Network(kind=kind))
    real = {split: replace(found, network=kind) for split, found in REAL.items()}
    metrics = quality.run(TRAIN, real, replace(CORNER, name=kind), settings, PROVENANCE).metrics
    assert {f"fid_{kind}", f"fid_{kind}_gap", f"kd_{kind}", f"is_{kind}"} < set(metrics)
    assert not any(name.startswith("fd_") for name in metrics)


@pytest.fixture
def files(tmp_path):
    """Synthetic images, features of real ones and a classifier, as files."""
    write_classifier(tmp_path / "classifier")
    noise_set(30, 0).write(tmp_path / "images.h5")
    return tmp_path


def main(monkeypatch, folder, kind, weights):
    flags = {
        "--network": kind,
        "--weights": weights,
        "--settings": json.dumps({"network": {"kind": kind}}),
        "--synthetic": folder / "images.h5",
        "--train": folder / "internal" / "train.h5",
        "--test": folder / "internal" / "test.h5",
        "--result": folder / "internal" / "quality.json",
    }
    monkeypatch.setattr(sys, "argv", ["quality", *(str(part) for pair in flags.items() for part in pair)])
    quality.main()
    return Quality.read(folder / "internal" / "quality.json")


def test_classifier_from_files_to_file(files, monkeypatch):
    from privimage.metrics.feature_networks import load_network

    network = load_network("classifier", Network(kind="classifier"), files / "classifier")
    for split, images in (("train", noise_set(20, 1)), ("test", noise_set(25, 2))):
        extract(network, images, None, split).write(files / "internal" / f"{split}.h5")
    result = main(monkeypatch, files, "classifier", files / "classifier")
    kinds = ("fd", "kd", "is", "precision", "recall", "density", "coverage")
    assert set(result.metrics) == {*(f"{kind}_classifier" for kind in kinds), "fd_classifier_gap"}
    assert result.provenance.parents == {
        "synthetic": sha256(files / "images.h5"),
        "network": sha256(files / "classifier"),
    }


def test_without_inceptions_weights_there_is_a_note_and_no_value(files, monkeypatch):
    (files / "complete.json").write_text(json.dumps({"missing": "offline"}))
    for split in ("train", "test"):
        FeatureSet.empty("inception", WEIGHTS_MISSING, NAMES, PROVENANCE).write(files / "internal" / f"{split}.h5")
    result = main(monkeypatch, files, "inception", files / "complete.json")
    assert result.metrics == {"fid_inception": None} and "weights missing" in result.note
