"""The semantic query function: learns, keeps its best epoch, resumes exactly, cleans up after itself."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from privimage import classifier
from privimage.artifacts import ImageSet, Provenance, Weights, sha256
from privimage.checkpoints import Checkpoint
from privimage.classifiers.inference import accuracy
from privimage.classifiers.load import load_classifier
from privimage.errors import UserError
from privimage.schema import plain
from privimage.settings import ClassifierSettings

SETTINGS = ClassifierSettings(
    block="basic",
    blocks_per_level=(1, 1),
    base_channels=8,
    num_epochs=4,
    batch_size=8,
    learning_rate=0.05,
    horizontal_flip=False,
)
PROVENANCE = Provenance("classifier", classifier.VERSION)


def textures(n, seed):
    """Rows, columns or a chessboard, under noise."""
    rng = np.random.default_rng(seed)
    labels, (y, x) = rng.integers(0, 3, n), np.indices((8, 8))
    patterns = np.stack([y % 2, x % 2, (x + y) % 2])[labels]
    images = patterns * 120 + rng.integers(0, 120, (n, 8, 8))
    return ImageSet(images.astype(np.uint8)[..., None], labels, ("rows", "columns", "chess"), "made")


TRAIN, HOLDOUT = textures(120, 0), textures(80, 1)


def run(folder, settings=SETTINGS, train=TRAIN, holdout=HOLDOUT, **kwargs):
    return classifier.run(train, holdout, settings, PROVENANCE, Checkpoint(folder, "test"), **kwargs)


def equal(a, b):
    return a.facts == b.facts and all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)


def test_it_learns_and_says_how_well(tmp_path):
    weights = run(tmp_path)
    assert weights.facts["validation_accuracy"] > 0.9
    assert accuracy(load_classifier(weights), HOLDOUT) == weights.facts["validation_accuracy"]
    assert weights.facts["class_names"] == ["rows", "columns", "chess"]
    assert weights.network == {"settings": plain(SETTINGS), "channels": 1, "num_classes": 3, "resolution": 8}
    assert equal(weights, run(tmp_path / "again"))


def test_the_best_epoch_is_kept_and_not_the_last(tmp_path, monkeypatch):
    scores, seen = iter([0.2, 0.7, 0.7, 0.5]), []

    def scripted(network, images):
        assert images is HOLDOUT
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return next(scores)

    monkeypatch.setattr(classifier, "accuracy", scripted)
    weights = run(tmp_path)
    assert (weights.facts["epoch"], weights.facts["validation_accuracy"]) == (2, 0.7)
    assert all(torch.equal(weights.group("raw")[name], seen[1][name]) for name in seen[1])


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_interrupted_and_resumed_is_the_same_as_uninterrupted(tmp_path, monkeypatch, stop):
    whole = run(tmp_path / "whole")
    calls = iter(range(1, 100))

    def dies(network, images):
        if next(calls) > stop:
            raise KeyboardInterrupt
        return accuracy(network, images)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(classifier, "accuracy", dies)
        checkpoint = Checkpoint(tmp_path / "cut", "test")
        classifier.run(TRAIN, HOLDOUT, SETTINGS, PROVENANCE, checkpoint, save_seconds=0)
    checkpoint._lock.close()  # as the end of the process would
    evaluated = []
    monkeypatch.setattr(classifier, "accuracy", lambda *both: evaluated.append(1) or accuracy(*both))
    assert equal(whole, run(tmp_path / "cut"))
    assert len(evaluated) == SETTINGS.num_epochs - stop  # it did not simply start anew


def test_sets_that_do_not_fit_are_refused(tmp_path):
    other = replace(HOLDOUT, class_names=("a", "b", "c"))
    with pytest.raises(UserError, match="same classes and shape"):
        run(tmp_path / "a", holdout=other)
    empty = ImageSet(TRAIN.images[:0], TRAIN.labels[:0], TRAIN.class_names, "made")
    with pytest.raises(UserError, match="validation set is empty"):
        run(tmp_path / "b", holdout=empty)


def test_from_files_to_file(tmp_path, monkeypatch):
    TRAIN.write(tmp_path / "train.h5")
    HOLDOUT.write(tmp_path / "val.h5")
    flags = {
        "--settings": json.dumps(plain(SETTINGS)),
        "--train": tmp_path / "train.h5",
        "--holdout": tmp_path / "val.h5",
        "--checkpoints": tmp_path / "state",
        "--weights": tmp_path / "classifier.safetensors",
    }
    monkeypatch.setattr(sys, "argv", ["classifier", *(str(part) for pair in flags.items() for part in pair)])
    classifier.main()
    weights = Weights.read(tmp_path / "classifier.safetensors", "classifier")
    assert accuracy(load_classifier(weights), HOLDOUT) == weights.facts["validation_accuracy"]
    assert weights.provenance.parents["holdout"] == sha256(tmp_path / "val.h5")
    assert list((tmp_path / "state").iterdir()) == []
