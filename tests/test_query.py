"""The query: exactly k votes an image, the stated sensitivity, the stated noise, drawn once."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from privimage import query
from privimage.artifacts import ImageSet, Provenance, QueryResult, Weights, sha256
from privimage.classifiers import votes as voting
from privimage.classifiers.resnet import ResNet
from privimage.classifiers.votes import histogram, votes
from privimage.errors import UserError
from privimage.privacy.event import Event
from privimage.privacy.ledger import Ledger
from privimage.privacy.randomness import SecretKey
from privimage.schema import plain
from privimage.settings import ClassifierSettings, Declared, QuerySettings

NAMES = ("cat", "dog", "emu")
PUBLIC = tuple(f"public {i}" for i in range(7))
KEY = SecretKey.from_seed(5)


class Table(nn.Module):
    """A classifier that reads an image's first pixel as a row of a table of logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits[((x[:, 0, 0, 0] + 1) * 127.5).round().long()]


def image_set(rows: np.ndarray, labels: np.ndarray, names=NAMES) -> ImageSet:
    """Images whose first pixel is ``rows``."""
    images = np.zeros((len(rows), 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = rows
    return ImageSet(images, labels.astype(np.int64), names, "test")


def hard_logits(rng: np.random.Generator, classes: int) -> torch.Tensor:
    """256 rows of logits: ordinary ones, ties, infinities, NaN, and all of them together."""
    logits = rng.normal(size=(256, classes))
    logits[::5] = rng.integers(0, 2, size=logits[::5].shape)
    logits[1::7] = np.where(rng.random(logits[1::7].shape) < 0.4, np.nan, logits[1::7])
    logits[2::9] = rng.choice([np.inf, -np.inf, np.nan, 0.0], size=logits[2::9].shape)
    logits[3], logits[4], logits[5], logits[6] = np.nan, np.inf, -np.inf, 0.0
    return torch.from_numpy(logits.astype(np.float32))


# One row of logits of each kind: ordinary, tied, all alike, with and of nothing but NaN and infinities
KINDS = torch.tensor(
    [[3.0, 1, 2, 0], [0, 1, 2, 3], [1, 1, 0, 0], [0, 0, 0, 0], [torch.nan] * 4, [torch.inf] * 4, [-torch.inf] * 4]
    + [[torch.nan, 1, torch.nan, 2], [torch.inf, torch.inf, 0, torch.nan], [-torch.inf, 0, torch.nan, torch.inf]]
)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_no_pair_of_neighbours_differs_by_more_than_is_accounted_for(k) -> None:
    """Every set of up to two images (each of ten kinds of logits, in two classes) and every neighbour of it.

    The accountant is told: one image more adds 1 to exactly k cells of one row, and replacing one changes at most 2k
    cells by 1, of which half grow.
    """
    names, classifier = NAMES[:2], Table(KINDS)
    kinds = list(itertools.product(range(len(KINDS)), range(2)))  # (kind of logits, class)

    def counted(images) -> np.ndarray:
        rows, labels = np.array(images, int).reshape(-1, 2).T
        return histogram(image_set(rows, labels, names), classifier, 4, k)

    sets = {
        images: counted(images) for size in range(3) for images in itertools.combinations_with_replacement(kinds, size)
    }
    added = replaced = farthest = 0
    for images, counts in sets.items():
        for place, image in enumerate(images):
            fewer = images[:place] + images[place + 1 :]
            change = counts - sets[fewer]
            assert sorted(change.ravel()) == [0] * (8 - k) + [1] * k and not change[1 - image[1]].any()
            assert np.linalg.norm(change) == pytest.approx(sqrt(k))
            added += 1
            for other in kinds:
                change = counts - sets[tuple(sorted((*fewer, other)))]
                assert change.min() >= -1 and change.max() <= 1 and (change == 1).sum() == (change == -1).sum() <= k
                replaced, farthest = replaced + 1, max(farthest, np.abs(change).sum())
    assert added > 400 and replaced > 8000 and farthest == 2 * k


@pytest.mark.parametrize("k", [1, 3, 7])
def test_in_sets_of_any_size_one_image_moves_root_k_and_a_replaced_one_at_most_root_2k(k) -> None:
    rng = np.random.default_rng(0)
    classifier = Table(hard_logits(rng, len(PUBLIC)))
    for _ in range(20):
        n = int(rng.integers(1, 40))
        rows, labels = rng.integers(0, 256, n), rng.integers(0, len(NAMES), n)
        whole = histogram(image_set(rows, labels), classifier, len(PUBLIC), k)
        without = histogram(image_set(rows[1:], labels[1:]), classifier, len(PUBLIC), k)
        assert np.linalg.norm(whole - without) == pytest.approx(sqrt(k))
        rows[0], labels[0] = rng.integers(0, 256), rng.integers(0, len(NAMES))
        other = histogram(image_set(rows, labels), classifier, len(PUBLIC), k)
        assert np.linalg.norm(whole - other) <= sqrt(2 * k) + 1e-9


@pytest.mark.parametrize("k", [1, 3, 7])
def test_every_image_has_exactly_k_distinct_votes(k) -> None:
    chosen = votes(hard_logits(np.random.default_rng(1), len(PUBLIC)), k)
    assert chosen.shape == (256, k) and chosen.min() >= 0 and chosen.max() < len(PUBLIC)
    assert all(len(set(row)) == k for row in chosen.tolist())


def test_votes_prefer_large_logits_then_low_indices_and_nan_last() -> None:
    nan, inf = torch.nan, torch.inf
    logits = torch.tensor([[1, 3, 2, 0], [5, 5, 5, 5], [nan, 1, nan, 0], [nan] * 4, [0, inf, -inf, inf]])
    assert votes(logits, 2).tolist() == [[1, 2], [0, 1], [1, 3], [0, 1], [1, 3]]


def test_counts_are_those_of_a_plain_loop_over_any_number_of_batches(monkeypatch) -> None:
    rng = np.random.default_rng(2)
    logits = torch.from_numpy(rng.normal(size=(256, len(PUBLIC))).astype(np.float32))
    rows, labels = rng.integers(0, 256, 103), rng.integers(0, len(NAMES), 103)
    expected = np.zeros((len(NAMES), len(PUBLIC)), np.int64)
    for row, label in zip(rows, labels):
        for cell in np.argsort(-logits[row].numpy())[:3]:
            expected[label, cell] += 1
    for batch_size in (1, 10, 103, 250):
        monkeypatch.setattr(voting, "BATCH_SIZE", batch_size)
        np.testing.assert_array_equal(histogram(image_set(rows, labels), Table(logits), len(PUBLIC), 3), expected)


def test_an_images_votes_do_not_depend_on_its_neighbours() -> None:
    """A network with batch normalisation, handed over in training mode: rows vote the same in any company."""
    torch.manual_seed(0)
    settings = ClassifierSettings(block="basic", blocks_per_level=(1,), base_channels=8)
    network = ResNet(settings, 1, 12).train()
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (60, 8, 8, 1)).astype(np.uint8)
    labels = np.arange(60) % 2
    whole = histogram(ImageSet(images, labels, ("a", "b"), "test"), network, 12, 4)
    alone = [
        histogram(ImageSet(images[i : i + 1], labels[i : i + 1], ("a", "b"), "test"), network, 12, 4) for i in range(60)
    ]
    np.testing.assert_array_equal(whole, sum(alone))


def run(images: ImageSet, settings=None, declared=None, key=KEY, names=PUBLIC) -> QueryResult:
    settings = settings or QuerySettings(top_k=2, noise_multiplier=3.0)
    declared = declared or Declared(num_images=len(images.labels), class_names=images.class_names, delta=1e-5)
    classifier = Table(torch.from_numpy(np.random.default_rng(4).normal(size=(256, len(names)))))
    return query.run(images, classifier, names, settings, declared, key, Provenance("query", 1))


def some_images(n: int = 300, names=NAMES) -> ImageSet:
    rng = np.random.default_rng(6)
    return image_set(rng.integers(0, 256, n), rng.integers(0, len(names), n), names)


def test_the_result_states_its_sensitivity_and_cost_and_survives_its_file(tmp_path) -> None:
    result = run(some_images(), QuerySettings(top_k=5, noise_multiplier=20.0))
    assert result.sensitivity == sqrt(5) and result.top_k == 5
    assert result.event == Event("discrete_gaussian", 20.0 * sqrt(5), num_steps=5) and result.private
    assert result.event.query_multiplier == pytest.approx(20.0)
    assert np.shape(result.histogram) == (len(NAMES), len(PUBLIC))
    result.write(tmp_path / "query.json")
    assert QueryResult.read(tmp_path / "query.json") == result


def test_the_noise_on_every_cell_is_that_of_the_event() -> None:
    names = tuple(f"public {i}" for i in range(3000))
    settings = QuerySettings(top_k=4, noise_multiplier=50.0)
    nothing = image_set(np.zeros(0), np.zeros(0))
    declared = Declared(num_images=300, class_names=NAMES, delta=1e-5)
    result = run(nothing, settings, declared, names=names)
    noise, parameter = np.array(result.histogram).ravel(), result.event.noise_multiplier
    assert parameter == 100.0 and result.event.num_steps == 4
    assert stats.kstest(noise, "norm", args=(0, parameter)).pvalue > 1e-6
    assert stats.kstest(noise, "norm", args=(0, parameter * 0.9)).pvalue < 1e-6  # the test could tell


def test_the_noise_depends_on_the_key_alone() -> None:
    few, many = some_images(10), some_images(300)
    classifier = Table(torch.from_numpy(np.random.default_rng(4).normal(size=(256, len(PUBLIC)))))
    noise = [np.array(run(i).histogram) - histogram(i, classifier, len(PUBLIC), 2) for i in (few, many)]
    np.testing.assert_array_equal(*noise)
    assert run(few) == run(few) != run(few, key=SecretKey.from_seed(6))


def test_only_whole_votes_leave() -> None:
    noisy = np.array(run(some_images()).histogram)
    np.testing.assert_array_equal(noisy, np.rint(noisy))


def test_one_declared_class_is_enough() -> None:
    result = run(some_images(names=("all",)))
    assert np.shape(result.histogram) == (1, len(PUBLIC)) and result.class_names == ["all"]


def test_reproducible_noise_is_stamped() -> None:
    declared = Declared(num_images=300, class_names=NAMES, delta=1e-5, reproducible_noise=True)
    assert not run(some_images(), declared=declared).private


def test_too_much_noise_and_a_wrong_declaration_are_warned_of(capsys) -> None:
    declared = Declared(num_images=300, class_names=NAMES, delta=1e-5)
    run(some_images(), QuerySettings(top_k=4, noise_multiplier=6.0), declared)
    assert capsys.readouterr().err.count("warning") == 0  # noise 12 on 100 images a class
    run(some_images(299), QuerySettings(top_k=4, noise_multiplier=6.5), declared)
    err = capsys.readouterr().err
    assert "noise of 13 votes on 100 images a class" in err and "299 images, declared are 300" in err


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"settings": QuerySettings(top_k=8, noise_multiplier=1.0)}, "top_k is 8; expected at most the 7"),
        ({"declared": Declared(num_images=9, class_names=("x",), delta=1e-5)}, "rerun preprocess"),
    ],
)
def test_what_does_not_fit_is_refused(change, sentence) -> None:
    fitting = Declared(num_images=300, class_names=NAMES, delta=1e-5)
    query.check(some_images(), PUBLIC, QuerySettings(top_k=7, noise_multiplier=1.0), fitting)
    given = {"settings": QuerySettings(), "declared": fitting, **change}
    with pytest.raises(UserError, match=sentence):
        query.check(some_images(), PUBLIC, given["settings"], given["declared"])


@pytest.fixture
def files(tmp_path):
    """The files that the stage reads."""
    torch.manual_seed(0)
    settings = ClassifierSettings(block="basic", blocks_per_level=(1,), base_channels=4)
    network = ResNet(settings, 1, len(PUBLIC))
    some_images().write(tmp_path / "internal" / "train.h5")
    shape = {"settings": plain(settings), "channels": 1, "num_classes": len(PUBLIC), "resolution": 2}
    tensors = {f"raw.{name}": tensor for name, tensor in network.state_dict().items()}
    facts = {"class_names": list(PUBLIC)}
    Weights("classifier", tensors, shape, facts, Provenance("classifier", 1)).write(tmp_path / "classifier.safetensors")
    return tmp_path


def command(folder, monkeypatch, settings=None, budget="none", **declared) -> QueryResult:
    """The stage from its command line."""
    public = {"num_images": 300, "class_names": list(NAMES), "delta": 1e-5, **declared}
    flags = {
        "dataset": "digits",
        "images": folder / "internal" / "train.h5",
        "classifier": folder / "classifier.safetensors",
        "settings": json.dumps({"top_k": 2, "noise_multiplier": 3.0} | (settings or {})),
        "declared": json.dumps(public),
        "budget": budget,
        "state-dir": folder / "state",
        "histogram": folder / "query.json",
    }
    monkeypatch.setattr(sys, "argv", ["query", *(str(part) for k, v in flags.items() for part in (f"--{k}", v))])
    query.main()
    return QueryResult.read(folder / "query.json")


def charges(folder) -> int:
    return len(Ledger(folder / "state", "digits", Declared(num_images=300, class_names=NAMES, delta=1e-5)).odometer())


def test_the_stage_draws_once_and_then_restores(files, monkeypatch) -> None:
    first = command(files, monkeypatch)
    (files / "query.json").unlink()
    assert command(files, monkeypatch) == first
    assert command(files, monkeypatch, delta=1e-6, budget=5.0) == first  # neither changes what is drawn
    assert charges(files) == 1
    assert first.provenance.parents == {"classifier": sha256(files / "classifier.safetensors")}


def test_a_changed_setting_or_image_is_a_new_draw_and_a_new_charge(files, monkeypatch) -> None:
    first = command(files, monkeypatch)
    assert command(files, monkeypatch, {"noise_multiplier": 4.0}) != first
    images = some_images(299)
    images.write(files / "internal" / "train.h5")
    assert command(files, monkeypatch) != first
    assert charges(files) == 3


def test_nothing_outside_the_state_folder_names_the_sensitive_file(files, monkeypatch) -> None:
    command(files, monkeypatch)
    secret = sha256(files / "internal" / "train.h5")
    fingerprints = [path.name for path in (files / "state" / "digits" / "query").iterdir()]
    text = (files / "query.json").read_text()
    assert secret not in text and not any(name in text for name in fingerprints)


def test_a_budget_refuses_the_draw(files, monkeypatch) -> None:
    with pytest.raises(UserError, match="above its budget of 0.5"):
        command(files, monkeypatch, budget=0.5)
    assert charges(files) == 0 and not (files / "query.json").exists()


def test_what_does_not_fit_is_refused_before_it_is_charged(files, monkeypatch) -> None:
    with pytest.raises(UserError, match="rerun preprocess"):
        command(files, monkeypatch, class_names=["other"])
    assert charges(files) == 0


def test_a_crash_after_the_charge_is_replayed(files, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(query, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            command(files, patched)
    result = command(files, monkeypatch)
    assert charges(files) == 1
    assert command(files, monkeypatch) == result


def test_settings_of_the_statement_are_those_given(files, monkeypatch) -> None:
    result = command(files, monkeypatch, {"top_k": 3})
    assert result.provenance.settings == plain(replace(QuerySettings(), top_k=3, noise_multiplier=3.0))
