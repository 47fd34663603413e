"""The stage `accuracy`: real digits are learnt, the record adds up, and nothing leaks from real images."""

import json
import statistics
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from privimage import accuracy
from privimage.artifacts import ImageSet, Provenance, sha256
from privimage.classifiers import deep
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
    for name, counts in result.confusion.items():
        assert np.sum(counts) == 360 and np.trace(counts) / 360 == pytest.approx(means[name])
        assert np.sum(counts, axis=1).tolist() == digits()[1].counts
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


def test_repetitions_give_a_mean_and_a_spread_and_count_together():
    train, test = halves(60), halves(50, seed=1)
    settings = replace(SETTINGS, classifiers=("logistic", "cnn"), cnn_base_channels=2, cnn_num_epochs=1, repetitions=3)
    result = run(train, test, settings)
    cnn, logistic = result.classifiers["cnn"], result.classifiers["logistic"]
    assert len(cnn["values"]) == 3 and len(set(cnn["values"])) > 1
    assert cnn["mean"] == pytest.approx(statistics.mean(cnn["values"]))
    assert cnn["std"] == pytest.approx(statistics.stdev(cnn["values"]))
    assert np.sum(result.confusion["cnn"]) == 150 and np.trace(result.confusion["cnn"]) == round(
        sum(cnn["values"]) * 50
    )
    assert len(logistic["values"]) == 1 and np.sum(result.confusion["logistic"]) == 50  # it has one optimum
    fewer = run(train, test, replace(settings, repetitions=2))
    assert fewer.classifiers["cnn"]["values"] == cnn["values"][:2]


@pytest.mark.parametrize("protocol", ["last-epoch", "synthetic-validation", "oracle"])
def test_a_class_without_synthetic_images_is_never_predicted(protocol):
    train, test = halves(80), halves(60, seed=1)
    names = ("above", "below", "missing")
    labels = np.where(np.arange(60) < 10, 2, test.labels)
    train, test = replace(train, class_names=names), replace(test, class_names=names, labels=labels)
    result = run(train, test, replace(SETTINGS, cnn_base_channels=2, cnn_num_epochs=2, protocol=protocol))
    for counts in result.confusion.values():
        assert np.array(counts)[:, 2].sum() == 0 and np.array(counts)[2].sum() == 10
    assert 0.6 < result.classifiers["logistic"]["mean"] <= 50 / 60


def test_held_out_images_are_a_part_of_their_own():
    images = halves(50)
    images.images[:, 0, 0, 0] = np.arange(50)
    rest, held = accuracy.held_out(images, 0.1, seed=0)
    both = [set(part.images[:, 0, 0, 0].tolist()) for part in (rest, held)]
    assert (len(both[0]), len(both[1])) == (45, 5) and both[0] | both[1] == set(range(50))
    for part in (rest, held):
        np.testing.assert_array_equal(part.labels, images.labels[part.images[:, 0, 0, 0]])
    assert [len(p.labels) for p in accuracy.held_out(halves(3), 0.01, 0)] == [2, 1]
    assert [len(p.labels) for p in accuracy.held_out(halves(3), 0.99, 0)] == [1, 2]


class Scripted(torch.nn.Module):
    """After epoch e it says what the e-th pixel of the first row says: bright is class 1."""

    def __init__(self):
        super().__init__()
        self.weight, self.epoch = torch.nn.Parameter(torch.zeros(1)), None

    def forward(self, x):
        return torch.stack([-x[:, 0, 0, self.epoch - 1], x[:, 0, 0, self.epoch - 1]], dim=1)


class ScriptedTrainer:
    def __init__(self, network, images, recipe, seed):
        self.network, self.num_epochs = network, recipe.num_epochs

    def epochs(self, name):
        for epoch in range(1, self.num_epochs + 1):
            self.network.epoch = epoch
            yield epoch


def scripted(curve, n=100):
    """Images of which the scripted classifier gets the given shares right after each epoch."""
    labels = np.arange(n) % 2
    images = np.zeros((n, 8, 8, 1), np.uint8)
    for epoch, share in enumerate(curve):
        right = np.random.default_rng(epoch).permutation(n) < round(share * n)
        images[:, 0, epoch, 0] = np.where(right, labels, 1 - labels) * 255
    return ImageSet(images, labels, ("dark", "bright"), "made")


SYNTHETIC = scripted([0.0, 1.0, 0.0, 0.0, 0.0])
TEST = scripted([0.1, 0.2, 0.3, 0.9, 0.5])
STUB = AccuracySettings(classifiers=("cnn",), cnn_num_epochs=5, repetitions=2)


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setattr(deep, "new_network", lambda *_: Scripted())
    monkeypatch.setattr(deep, "Trainer", ScriptedTrainer)


@pytest.mark.parametrize(
    "protocol, epoch, value, stamp",
    [
        ("last-epoch", 5, 0.5, "last-epoch"),
        ("synthetic-validation", 2, 0.2, "synthetic-validation"),
        ("oracle", 4, 0.9, "oracle (selected on test images: not a valid result)"),
    ],
)
def test_each_protocol_takes_its_epoch(stub, protocol, epoch, value, stamp):
    result = run(SYNTHETIC, TEST, replace(STUB, protocol=protocol))
    assert result.protocol == stamp
    assert result.classifiers["cnn"] == {
        "values": [value] * 2, "mean": pytest.approx(value), "std": 0.0, "epochs": [epoch] * 2
    }  # fmt: skip
    assert np.trace(result.confusion["cnn"]) == round(2 * 100 * value)


def test_of_equally_good_epochs_the_first_counts(stub):
    train = scripted([0.0, 1.0, 1.0, 0.0, 1.0])
    assert run(train, TEST, replace(STUB, protocol="synthetic-validation")).classifiers["cnn"]["epochs"] == [2, 2]


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
