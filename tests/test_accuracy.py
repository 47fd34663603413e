"""The stage `accuracy`: real digits are learnt, the record adds up, and nothing leaks from real images."""

import importlib
import json
import statistics
import sys
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from privimage import accuracy
from privimage.artifacts import ImageSet, PrivacyStatement, Provenance, sha256
from privimage.classifiers import deep
from privimage.errors import UserError
from privimage.evaluation_settings import AccuracySettings, WideResNetSettings
from privimage.measurements import Accuracy
from privimage.privacy.event import Event, noisy_choice
from privimage.privacy.ledger import Ledger
from privimage.privacy.randomness import SecretKey
from privimage.schema import plain
from privimage.settings import Declared

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


@pytest.mark.slow
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


SYNTHETIC = replace(scripted([0.0, 1.0, 0.0, 0.0, 0.0]), source="synthetic")
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


def test_images_that_were_held_out_are_not_counted_as_learnt_from(stub):
    counts = [run(SYNTHETIC, TEST, replace(STUB, protocol=p)).num_train for p in ("last-epoch", "synthetic-validation")]
    assert counts == [100, 90]


def test_of_equally_good_epochs_the_first_counts(stub):
    train = scripted([0.0, 1.0, 1.0, 0.0, 1.0])
    assert run(train, TEST, replace(STUB, protocol="synthetic-validation")).classifiers["cnn"]["epochs"] == [2, 2]


SENSITIVE = scripted([0.6, 0.7, 0.8, 0.7, 0.6], n=60)
NOISY = {"protocol": "noisy-validation", "validation_epsilon": 10.0}
DECLARED = Declared(num_images=60, class_names=("dark", "bright"), delta=1e-5)


def pay(folder, *epsilons):
    """The release's privacy statement, with these choices in it."""
    events = [Event("poisson_gaussian", 8.0, 0.1, 10), *map(noisy_choice, epsilons)]
    numbers = {"epsilon_replace_one": 2.0, "images_per_unit": 1, "epsilon_per_unit": 1.0, "num_images": 60}
    made_by = Provenance("finetune", 1)
    PrivacyStatement(
        1.0, 1e-5, 1.0, "add_or_remove_one", events, **numbers, accountants=[], private=True, not_covered=["x"],
        provenance=made_by,
    ).write(folder / "privacy.json")  # fmt: skip


@pytest.fixture
def noisy(stub, tmp_path, monkeypatch):
    """The stage on files, by noisy validation; settings, flags and flags to leave out may be given."""
    for name, images in {"images": SYNTHETIC, "internal/test": TEST, "internal/train": SENSITIVE}.items():
        images.write(tmp_path / f"{name}.h5")
    pay(tmp_path, 10.0)

    def call(without=(), train="images.h5", budget="none", **settings) -> Accuracy:
        flags = {
            "train": tmp_path / train, "test": tmp_path / "internal/test.h5", "seed": 0,
            "sensitive": tmp_path / "internal/train.h5", "privacy": tmp_path / "privacy.json", "dataset": "set",
            "method": "privimage", "epsilon": 1, "declared": json.dumps(plain(DECLARED)),
            "state-dir": tmp_path / "state", "budget": budget, "result": tmp_path / "internal" / "accuracy.json",
            "settings": json.dumps(plain(replace(STUB, **NOISY | settings))),
        }  # fmt: skip
        given = [(f"--{flag}", str(value)) for flag, value in flags.items() if flag not in without]
        monkeypatch.setattr(sys, "argv", ["accuracy", *(part for pair in given for part in pair)])
        accuracy.main()
        return Accuracy.read(flags["result"])

    call.odometer = lambda: Ledger(tmp_path / "state", "set", DECLARED).odometer()
    call.folder = tmp_path
    return call


def test_noisy_validation_takes_the_epoch_that_suits_the_sensitive_images_and_pays_once(noisy):
    first = noisy()
    assert first.classifiers["cnn"]["epochs"] == [3, 3] and first.classifiers["cnn"]["mean"] == pytest.approx(0.3)
    assert first.protocol == "noisy-validation" and not first.private
    (charge,) = noisy.odometer()
    assert charge["stage"] == "accuracy" and charge["events"] == [Event("report_noisy_max", 0.1).as_json()]
    assert noisy() == first and len(noisy.odometer()) == 1


def test_what_was_drawn_is_restored_without_a_look_at_the_images(noisy, monkeypatch):
    settings = {"validation_epsilon": 0.01}  # noise of 100 images on counts of 60
    pay(noisy.folder, 0.01)
    first = noisy(**settings)
    monkeypatch.setattr(accuracy, "report_noisy_max", None)
    monkeypatch.setattr(deep.Shown, "right_answers", None)
    assert noisy(**settings).classifiers == first.classifiers


def test_another_setting_is_another_draw_and_another_charge(noisy):
    for repetitions in (1, 2, 1):
        noisy(repetitions=repetitions)
    assert len(noisy.odometer()) == 2


@pytest.mark.slow
def test_a_setting_that_decides_nothing_draws_nothing(noisy, capsys):
    first = noisy()
    for changed in (
        {"classifiers": ("mlp", "cnn")},
        {"validation_fraction": 0.3},
        {"wrn": WideResNetSettings(width=3)},
    ):
        assert noisy(**changed).classifiers["cnn"] == first.classifiers["cnn"]
    assert len(noisy.odometer()) == 1 and "drawn before" not in capsys.readouterr().err


def test_a_second_draw_for_one_release_is_told(noisy, capsys):
    noisy()
    noisy(cnn_learning_rate=0.01)
    assert len(noisy.odometer()) == 2 and "charged beside that" in capsys.readouterr().err


def test_repetitions_are_counted_together_and_their_noise_grows_with_them(noisy, monkeypatch):
    asked = []
    monkeypatch.setattr(accuracy, "report_noisy_max", lambda *args: asked.append(args) or 0)
    noisy(repetitions=3)
    counts, sensitivity, noise_multiplier, *_ = asked[0]
    assert counts.tolist() == [3 * n for n in (36, 42, 48, 42, 36)] and (sensitivity, noise_multiplier) == (3, 0.1)


def test_each_classifier_is_an_event_with_noise_of_its_own(noisy, monkeypatch):
    asked = []
    monkeypatch.setattr(accuracy, "report_noisy_max", lambda *args: asked.append(args[3:]) or 0)
    pay(noisy.folder, 10.0, 10.0)
    few = {"wrn": WideResNetSettings(num_epochs=5)}
    noisy(classifiers=("wrn", "logistic", "cnn"), **few)
    assert [len(charge["events"]) for charge in noisy.odometer()] == [2]
    assert [where[1:] for where in asked] == [("epoch", 0), ("epoch", 1)]


def test_it_is_reserved_before_the_images_are_looked_at_and_a_crash_is_replayed(noisy, monkeypatch):
    pay(noisy.folder, 0.01)

    def dies(*_):
        assert len(noisy.odometer()) == 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(deep.Shown, "right_answers", dies)
        with pytest.raises(KeyboardInterrupt):
            noisy(validation_epsilon=0.01)
    release = next((noisy.folder / "state/set/accuracy").iterdir())
    key = SecretKey.load(release / "key")
    result = noisy(validation_epsilon=0.01)
    noise = -np.log(key.uniform("epoch", 0, shape=5)) * 100 * 2
    expected = int(np.argmax(np.array([36, 42, 48, 42, 36]) * 2 + noise))
    assert result.classifiers["cnn"]["epochs"] == [expected + 1] * 2
    assert len(noisy.odometer()) == 1 and not (release / "key").exists()


@pytest.mark.parametrize("paid", [(), (9.0,), (10.0, 10.0)])
def test_what_the_statement_does_not_pay_for_is_refused(noisy, paid):
    pay(noisy.folder, *paid)
    with pytest.raises(UserError, match="rerun finetune"):
        noisy()
    assert noisy.odometer() == []


def test_a_budget_refuses_the_choice(noisy):
    with pytest.raises(UserError, match="above its budget of 2"):
        noisy(budget=2)
    assert noisy.odometer() == []


def test_noisy_validation_without_a_ledger_is_refused(noisy):
    for flag in ("sensitive", "privacy", "state-dir"):
        with pytest.raises(UserError, match=f"--{flag} is missing"):
            noisy(without=(flag,))
    assert noisy.odometer() == []


def test_real_images_to_compare_with_are_no_release_and_hold_out_a_part_of_their_own(noisy):
    ledger_flags = ("sensitive", "privacy", "dataset", "method", "epsilon", "declared", "state-dir")
    result = noisy(without=ledger_flags, train="internal/train.h5")
    assert result.protocol == accuracy.REAL and noisy.odometer() == []
    with pytest.raises(UserError, match="--sensitive is given"):
        noisy(train="internal/train.h5")
    assert noisy.odometer() == []


def test_synthetic_images_stay_synthetic_wherever_the_project_lies(noisy, monkeypatch):
    (noisy.folder / "internal/project").mkdir()
    for name in ("images.h5", "images.h5.sha256"):
        (noisy.folder / name).rename(noisy.folder / "internal/project" / name)
    assert noisy(train="internal/project/images.h5").protocol == "noisy-validation" and len(noisy.odometer()) == 1


def test_no_trace_of_the_sensitive_images_is_in_the_file(noisy):
    noisy()
    text = (noisy.folder / "internal" / "accuracy.json").read_text()
    fingerprints = [path.name for path in (noisy.folder / "state/set/accuracy").iterdir()]
    assert not any(secret in text for secret in (*fingerprints, SENSITIVE.identity))


@pytest.mark.parametrize("source", ["synthetic", "folder"])
def test_from_files_to_file_without_a_trace_of_real_images(tmp_path, monkeypatch, source):
    train = tmp_path / "train.h5"
    replace(halves(60), source=source).write(train)
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
    assert result.provenance.parents == ({"train": sha256(train)} if source == "synthetic" else {})


def cifar10(folder, split, mosaics):
    """The first ``mosaics`` thousands of CIFAR-10's images of a split."""
    unpack = importlib.import_module("unpack_cifar10")
    with zipfile.ZipFile(folder / "cifar10_lossless_webp.zip") as archive:
        facts = json.loads(archive.read("labels.json"))
        images = np.concatenate([unpack.tiles(archive.read(f"{split}/{n:02}.webp")) for n in range(mosaics)])
    labels = np.array(facts[f"{split}_labels"][: len(images)], np.int64)
    return ImageSet(images, labels, tuple(facts["classes"]), "cifar10")


@pytest.mark.data
@pytest.mark.slow
def test_a_small_network_learns_real_photographs(real_data, monkeypatch):
    """A tenth of CIFAR-10 and a ResNet-9 a quarter as wide as published: a minute on a core."""
    monkeypatch.syspath_prepend(str(real_data))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    train, test = cifar10(real_data, "train", 5), cifar10(real_data, "test", 2)
    settings = AccuracySettings(classifiers=("cnn",), cnn_base_channels=16, cnn_num_epochs=4, cnn_batch_size=64)
    began = time.monotonic()
    result = run(train, test, settings)
    seconds, counts = time.monotonic() - began, np.array(result.confusion["cnn"])
    print(f"accuracy {result.mean_accuracy:.3f} on {len(test.labels)} images in {seconds:.0f} s")
    assert result.mean_accuracy > 0.4
    confused = counts[3, 5] + counts[5, 3]  # cats and dogs, more than any other animals with each other
    assert confused > counts[3, 6] + counts[6, 3] and confused > counts[1, 7] + counts[7, 1]
