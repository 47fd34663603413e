"""The stage `accuracy`: real digits are learnt, the record adds up, and nothing leaks from real images."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from privimage import accuracy
from privimage.artifacts import ImageSet, Provenance, sha256
from privimage.errors import UserError
from privimage.measurements import Accuracy
from privimage.schema import plain
from privimage.settings import AccuracySettings

PROVENANCE = Provenance("accuracy", accuracy.VERSION)
SETTINGS = AccuracySettings(
    cnn_base_channels=8,
    cnn_num_epochs=8,
    cnn_batch_size=64,
    cnn_learning_rate=0.05,
    horizontal_flip=False,
)


def digits():
    """scikit-learn's 1797 handwritten digits, 1437 to train and 360 to test."""
    data = load_digits()
    images, labels = (data.images * (255 / 16)).astype(np.uint8)[..., None], data.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    names = tuple(map(str, range(10)))
    return [ImageSet(images[part], labels[part], names, "digits") for part in (order[:1437], order[1437:])]


def halves(n, seed=0, classes=2):
    """Bright above (class 0) or below (class 1), with noise."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 150, (n, 8, 8, 1)), rng.integers(0, classes, n)
    images[labels == 0, :4] += 60
    images[labels == 1, 4:] += 60
    return ImageSet(images.astype(np.uint8), labels, ("above", "below")[:classes], "made")


def run(train, test, settings=SETTINGS, seed=0):
    return accuracy.run(train, test, settings, seed, PROVENANCE)


def test_real_digits():
    result = run(*digits())
    means = {name: entry["mean"] for name, entry in result.classifiers.items()}
    assert means["logistic"] > 0.95 and means["mlp"] > 0.96 and means["cnn"] > 0.97
    assert result.mean_accuracy == pytest.approx(sum(means.values()) / 3)
    assert all(entry["values"] == [entry["mean"]] and entry["std"] == 0 for entry in result.classifiers.values())
    assert (result.num_train, result.num_test, result.private) == (1437, 360, False)


def test_random_labels_teach_nothing():
    train, test = halves(200), halves(400, seed=1)
    shuffled = replace(train, labels=np.random.default_rng(2).integers(0, 2, 200))
    settings = replace(SETTINGS, classifiers=("cnn",), cnn_batch_size=16, cnn_num_epochs=4)
    assert run(shuffled, test, settings).mean_accuracy < 0.75
    assert run(train, test, settings).mean_accuracy > 0.9


def test_same_seed_same_numbers():
    train, test = halves(60), halves(200, seed=1)
    settings = replace(SETTINGS, classifiers=("cnn",), cnn_base_channels=2, cnn_num_epochs=1)
    numbers = [run(train, test, settings, seed).mean_accuracy for seed in (0, 0, 1, 2, 3)]
    assert numbers[0] == numbers[1]
    assert len(set(numbers)) > 1


def test_sets_without_an_accuracy_are_refused():
    with pytest.raises(UserError, match="unconditional"):
        run(halves(10, classes=1), halves(10, classes=1))
    with pytest.raises(UserError, match="expected the same"):
        run(halves(10), replace(halves(10), class_names=("below", "above")))
    test = halves(10)
    with pytest.raises(UserError, match="no test images"):
        run(halves(10), ImageSet(test.images[:0], test.labels[:0], test.class_names, "made"))


@pytest.mark.parametrize("folder", [".", "internal"])
def test_from_files_to_file_without_a_trace_of_real_images(tmp_path, monkeypatch, folder):
    train = tmp_path / folder / "train.h5"
    halves(60).write(train)
    halves(40, seed=1).write(tmp_path / "internal" / "test.h5")
    flags = {
        "--settings": json.dumps({**plain(SETTINGS), "classifiers": ["logistic"]}),
        "--train": train,
        "--test": tmp_path / "internal" / "test.h5",
        "--seed": 3,
        "--result": tmp_path / "internal" / "accuracy.json",
    }
    monkeypatch.setattr(sys, "argv", ["accuracy", *(str(part) for pair in flags.items() for part in pair)])
    accuracy.main()
    result = Accuracy.read(tmp_path / "internal" / "accuracy.json")
    assert list(result.classifiers) == ["logistic"] and result.mean_accuracy > 0.9
    assert (result.protocol, result.provenance.settings["seed"]) == ("last-epoch", 3)
    assert result.provenance.parents == ({} if folder == "internal" else {"train": sha256(train)})
