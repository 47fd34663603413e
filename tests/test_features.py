"""The stage `features`: both splits of the real images through one network, or a note that there is no network."""

import json
import sys

import numpy as np
import pytest
from small import noise_set, write_classifier

from privimage import features
from privimage.artifacts import sha256
from privimage.feature_sets import WEIGHTS_MISSING, FeatureSet


@pytest.fixture
def folder(tmp_path):
    """A public classifier and real images."""
    write_classifier(tmp_path / "classifier")
    noise_set(30, 0).write(tmp_path / "internal" / "train.h5")
    noise_set(20, 1).write(tmp_path / "internal" / "test.h5")
    return tmp_path


def main(monkeypatch, folder, kind, weights, **settings):
    at = folder / "internal"
    flags = ["--network", kind, "--weights", str(weights), "--checkpoints", str(folder / "state"), "--settings"]
    flags += [json.dumps({"network": {"kind": kind}, **settings})]
    for split in ("train", "test"):
        flags += [f"--{split}", str(at / f"{split}.h5"), f"--{split}-features", str(at / f"{split}-features.h5")]
    monkeypatch.setattr(sys, "argv", ["features", *flags])
    features.main()
    return [FeatureSet.read(at / f"{split}-features.h5") for split in ("train", "test")]


def test_from_files_to_files(folder, monkeypatch):
    train, test = main(monkeypatch, folder, "classifier", folder / "classifier")
    assert (len(train), len(test)) == (30, 20) and train.features.shape[1] == test.features.shape[1] == 4
    np.testing.assert_array_equal(train.labels, noise_set(30, 0).labels[train.index])
    assert train.logits.shape == (30, 3) and train.note == "" and train.counts == noise_set(30, 0).counts
    assert train.network_sha256 == sha256(folder / "classifier") == train.provenance.parents["network"]
    assert (folder / "internal/train-features.h5").stat().st_mode & 0o777 == 0o600
    assert sha256(folder / "internal/train.h5").encode() not in (folder / "internal/train-features.h5").read_bytes()


def test_at_most_so_many_of_each_split(folder, monkeypatch):
    train, test = main(monkeypatch, folder, "classifier", folder / "classifier", num_reference=25)
    assert (len(train), len(test)) == (25, 20)


def test_without_inceptions_weights_there_is_a_note(folder, monkeypatch):
    (folder / "complete.json").write_text(json.dumps({"missing": "offline"}))
    for found in main(monkeypatch, folder, "inception", folder / "complete.json"):
        assert len(found) == 0 and found.note == f"{WEIGHTS_MISSING} (offline)"
