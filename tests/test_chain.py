"""The whole chain on the toy configuration: every artifact is there, says what it must, and no more than it may."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from canaries import forms, layers, search
from checkout import TOY, copy_run, dry_run, snakemake
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from PIL import Image

from privimage.artifacts import (
    ImageSet,
    PrivacyStatement,
    QueryResult,
    Subset,
    Weights,
    sha256,
)
from privimage.feature_sets import FeatureSet
from privimage.measurements import Accuracy, Audit, Curve, Membership, Memorisation, Quality, Semantics

METHODS = ("privimage", "pdp")
NUM_CLASSES, NUM_PUBLIC_CLASSES, NUM_SAMPLES = 10, 20, 60

CELL = ("finetuned.safetensors", "privacy.json", "images.h5", "images.h5.sha256", "samples.png")
RELEASE = ("README.md", "SHA256SUMS", "classes.json", "data/train-00000-of-00001.parquet", "images.h5",
           "images.h5.sha256", "images.zip", "model.safetensors", "privacy.json", "samples.png")  # fmt: skip
RELEASED = {
    *(f"public/glyphs8/{name}" for name in ("train.h5", "val.h5", "train.h5.sha256", "val.h5.sha256")),
    *(f"public/glyphs8/{name}" for name in ("classifier.safetensors", "contents.json", "contact-sheet.png")),
    "digits/query/default.json",
    "digits/report.html",
    "digits/statements.json",
    *(f"digits/{method}/seed0/{name}" for method in METHODS for name in ("subset.json", "pretrained.safetensors")),
    *(f"digits/{method}/seed0/eps1/{name}" for method in METHODS for name in CELL),
    *(f"digits/{method}/seed0/eps1/release/{name}" for method in METHODS for name in RELEASE),
}
MEASURED = ("quality/classifier.json", "accuracy.json", "memorisation.json", "membership.json", "training.csv")
INTERNAL = {
    *(f"digits/internal/{name}" for name in ("train.h5", "test.h5", "train.h5.sha256", "test.h5.sha256")),
    *(f"digits/internal/{name}" for name in ("contents.json", "contact-sheet.png")),
    *(f"digits/internal/{method}/seed0/eps1/{name}" for method in METHODS for name in MEASURED),
    *(f"digits/internal/features/classifier/{name}" for name in ("train.h5", "test.h5")),
    *(f"digits/internal/features/classifier/{name}" for name in ("train.h5.sha256", "test.h5.sha256")),
    "digits/internal/privimage/seed0/semantics.json",
    "digits/internal/privimage/seed0/eps1/audit.json",
    "digits/internal/real/seed0/accuracy.json",
    "digits/internal/report.html",
    "digits/internal/summary.csv",
}
KEYS = {  # docs: the table of artifacts
    "query/default.json": {"histogram", "class_names", "top_k", "sensitivity", "event"},
    "privimage/seed0/subset.json": {"policy", "classes"},
    "pdp/seed0/eps1/privacy.json": {
        "epsilon", "delta", "target_epsilon", "neighboring_relation", "events", "epsilon_replace_one", "accountants",
        "private", "not_covered",
    },
    "internal/pdp/seed0/eps1/quality/classifier.json": {
        "feature_network", "metrics", "num_synthetic", "num_reference", "reference_split", "private",
    },
    "internal/pdp/seed0/eps1/accuracy.json": {"classifiers", "mean_accuracy", "protocol", "num_test", "private"},
    "internal/pdp/seed0/eps1/memorisation.json": {
        "feature_network", "closer_to_train", "interval", "closest", "control", "nearest", "num_duplicates", "private",
    },
    "internal/pdp/seed0/eps1/membership.json": {"auc", "auc_interval", "tpr", "roc", "auc_by_sigma", "private"},
    "internal/privimage/seed0/eps1/audit.json": {
        "claimed_epsilon", "delta", "lower_bound", "confidence", "num_canaries", "num_guesses", "num_correct", "event",
        "private", "note",
    },
    "internal/privimage/seed0/semantics.json": {"histogram", "agreement", "chance", "cosine", "note", "private"},
}  # fmt: skip


@pytest.fixture(scope="module")
def digits(chain) -> Path:
    return chain / "results" / "digits"


def released_files(chain: Path) -> list[Path]:
    files = [path for path in (chain / "results").rglob("*") if path.is_file() and path.parent != chain / "results"]
    return [path for path in files if "internal" not in path.relative_to(chain).parts]


def test_every_artifact_is_at_its_path_and_nothing_else_is(chain):
    results = chain / "results"
    found = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    found = {path for path in found if "/" in path and "/logs/" not in path and "/benchmarks/" not in path}
    assert found == RELEASED | INTERNAL


def test_every_image_set_reads_and_can_be_memory_mapped(chain):
    for path in sorted(RELEASED | INTERNAL):
        if path.endswith(".h5") and "/features/" not in path:
            images = ImageSet.read(chain / "results" / path)
            assert images.images.shape[1:] == (8, 8, 1) and len(images.labels)
            with h5py.File(chain / "results" / path) as file:
                assert file["images"].chunks is None and file["labels"].chunks is None
                assert {"class_names", "source", "counts"} <= set(json.loads(file.attrs["metadata"]))


def test_every_network_reads_with_the_weights_that_matter(chain, digits):
    classifier = Weights.read(chain / "results/public/glyphs8/classifier.safetensors", "classifier")
    assert classifier.group("raw") and len(classifier.facts["class_names"]) == NUM_PUBLIC_CLASSES
    for method in METHODS:
        for name in ("pretrained", "eps1/finetuned"):
            weights = Weights.read(digits / method / "seed0" / f"{name}.safetensors", "diffusion")
            assert weights.group("raw").keys() == weights.group("ema").keys() != set()
            assert weights.network and weights.provenance.privimage


@pytest.mark.parametrize("path", KEYS)
def test_json_artifacts_have_the_keys_of_the_table(digits, path):
    assert KEYS[path] <= set(json.loads((digits / path).read_text()))


def test_query_and_subsets_say_what_the_methods_use(digits):
    query = QueryResult.read(digits / "query" / "default.json")
    assert np.array(query.histogram).shape == (NUM_CLASSES, NUM_PUBLIC_CLASSES)
    assert query.sensitivity == pytest.approx(query.top_k**0.5)
    chosen = Subset.read(digits / "privimage/seed0/subset.json")
    names = [name for row in chosen.classes.values() for name in row]
    assert chosen.policy == "query" and len(names) == len(set(names)) == NUM_CLASSES
    assert Subset.read(digits / "pdp/seed0/subset.json").policy == "whole"


@pytest.mark.parametrize("method", METHODS)
def test_measurements_read_and_are_stamped_not_private(digits, method):
    cell = digits / "internal" / method / "seed0/eps1"
    quality, accuracy = Quality.read(cell / "quality/classifier.json"), Accuracy.read(cell / "accuracy.json")
    assert not quality.private and not accuracy.private
    assert (quality.num_synthetic, accuracy.num_train) == (NUM_SAMPLES, NUM_SAMPLES)
    assert set(accuracy.classifiers) == {"logistic", "mlp", "cnn"} and 0 <= accuracy.mean_accuracy <= 1
    assert [row[0] for row in Curve.read(cell / "training.csv").rows] == [0, 1, 2]


def test_quality_is_measured_against_all_real_images_in_the_classifiers_features(digits):
    real = {split: FeatureSet.read(digits / f"internal/features/classifier/{split}.h5") for split in ("train", "test")}
    quality = Quality.read(digits / "internal/pdp/seed0/eps1/quality/classifier.json")
    images = ImageSet.read(digits / "internal/train.h5")
    assert real["train"].counts == images.counts and real["train"].network == quality.feature_network == "classifier"
    assert (quality.num_reference, quality.num_gap) == (len(real["train"]), len(real["test"]))
    kinds = ("fd", "kd", "is", "precision", "recall", "density", "coverage")
    assert set(quality.metrics) == {*(f"{kind}_classifier" for kind in kinds), "fd_classifier_gap"}


def test_the_reference_trained_on_real_images_is_far_better(digits):
    real = Accuracy.read(digits / "internal/real/seed0/accuracy.json")
    assert real.classifiers["logistic"]["mean"] > 0.9  # the digits are the real ones, with the right labels


def test_summary_has_a_row_for_each_release_and_the_reference(digits):
    rows = list(csv.DictReader((digits / "internal/summary.csv").open()))
    assert list(rows[0])[:5] == ["dataset", "method", "seed", "epsilon", "epsilon_spent"] and "seconds" in rows[0]
    assert [row["method"] for row in rows] == [*METHODS, "real"]
    for row in rows[:2]:
        statement = PrivacyStatement.read(digits / row["method"] / "seed0/eps1/privacy.json")
        assert float(row["epsilon_spent"]) == pytest.approx(statement.epsilon, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_attacks_read_and_are_stamped_not_private(digits, method):
    cell = digits / "internal" / method / "seed0/eps1"
    copies, attack = Memorisation.read(cell / "memorisation.json"), Membership.read(cell / "membership.json")
    assert not copies.private and not attack.private
    assert (copies.num_synthetic, copies.num_reference, copies.num_duplicates["train"]) == (NUM_SAMPLES, 360, 0)
    assert (attack.num_members, attack.num_non_members) == (40, 40)
    statement = PrivacyStatement.read(digits / method / "seed0/eps1/privacy.json")
    assert attack.tpr["0.05"]["permitted"] == pytest.approx(0.05 * np.e**statement.epsilon + statement.delta)


def test_the_audit_is_of_the_released_training_alone_and_is_charged_to_nobody(chain, digits):
    audit = Audit.read(digits / "internal/privimage/seed0/eps1/audit.json")
    statement = PrivacyStatement.read(digits / "privimage/seed0/eps1/privacy.json")
    assert audit.event in [event.as_json() for event in statement.events] and not audit.private
    assert audit.lower_bound <= audit.claimed_epsilon < statement.epsilon  # the query costs something too
    assert (audit.num_canaries, audit.num_guesses) == (60, 20) and audit.num_correct <= 20
    odometer = (chain / "state/digits/odometer.jsonl").read_text()
    assert len(odometer.splitlines()) == 3 and "audit" not in odometer


def test_the_true_histogram_lies_under_the_noisy_one(digits):
    true = np.array(Semantics.read(digits / "internal/privimage/seed0/semantics.json").histogram)
    query = QueryResult.read(digits / "query/default.json")
    assert true.sum() == 1437 * query.top_k
    noise = np.array(query.histogram) - true
    expected = query.event.noise_multiplier * query.sensitivity
    assert 0.8 * expected < noise.std() < 1.2 * expected  # of 200 cells: four standard errors


@pytest.mark.parametrize("method", METHODS)
def test_stated_epsilon_follows_from_the_stated_events_alone(digits, method):
    statement = PrivacyStatement.read(digits / method / "seed0/eps1/privacy.json")
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-4)
    for event in statement.events:
        gaussian = GaussianDpEvent(event.noise_multiplier)
        accountant.compose(PoissonSampledDpEvent(event.sampling_probability, gaussian), event.num_steps)
    assert statement.epsilon == pytest.approx(accountant.get_epsilon(statement.delta), abs=1e-3)
    assert statement.target_epsilon - 1e-3 <= statement.epsilon <= statement.target_epsilon == 1
    assert statement.private and statement.neighboring_relation == "add_or_remove_one" and statement.not_covered


def test_each_method_pays_for_exactly_what_it_releases(digits):
    events = {m: PrivacyStatement.read(digits / m / "seed0/eps1/privacy.json").events for m in METHODS}
    training = {m: [event for event in events[m] if event.mechanism == "poisson_gaussian"] for m in METHODS}
    queries = {m: [event for event in events[m] if event not in training[m]] for m in METHODS}
    assert queries == {"privimage": [QueryResult.read(digits / "query/default.json").event], "pdp": []}
    assert [len(training[m]) for m in METHODS] == [1, 1]
    assert training["privimage"][0].noise_multiplier > training["pdp"][0].noise_multiplier  # the query took its share


@pytest.mark.parametrize("method", METHODS)
def test_samples_have_the_declared_number_and_uniform_labels(digits, method):
    images = ImageSet.read(digits / method / "seed0/eps1/images.h5")
    assert images.provenance.stage == "sample" and set(images.provenance.parents) == {"weights", "pretrained"}
    assert images.counts == [NUM_SAMPLES // NUM_CLASSES] * NUM_CLASSES
    assert Image.open(digits / method / "seed0/eps1/samples.png").size[0] > 8


def test_what_is_internal_is_for_its_owner_alone(chain, digits):
    private = [digits / "internal", chain / "state", chain / ".snakemake"]
    private += [*(digits / "internal").rglob("*"), *(chain / "state").rglob("*")]
    modes = {str(path.relative_to(chain)): (path.is_dir(), path.stat().st_mode & 0o777) for path in private}
    assert any("/logs/" in path for path in modes) and any("/benchmarks/" in path for path in modes)
    assert {path: oct(mode) for path, (folder, mode) in modes.items() if mode != (0o700 if folder else 0o600)} == {}
    assert not any((chain / "results/public").rglob("internal"))
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in released_files(chain) if "logs" not in path.parts)


def test_no_key_and_no_checkpoint_is_left(chain):
    left = {path.name for path in (chain / "state").rglob("*") if path.is_file()}
    assert "odometer.jsonl" in left and not {name for name in left if "key" in name or "checkpoint" in name}


def test_no_released_file_holds_a_hash_of_sensitive_data(chain, digits):
    """Such a hash would confirm exactly which images were used."""
    secrets = {
        hashlib.sha256((digits / "internal" / name).read_bytes()).hexdigest() for name in ("train.h5", "test.h5")
    }
    odometer = [json.loads(line) for line in (chain / "state/digits/odometer.jsonl").read_text().splitlines()]
    secrets |= {record[name] for record in odometer for name in ("fingerprint", "key")}
    secrets |= {path.name for path in (chain / "state/digits").glob("*/*")}
    assert len(odometer) == 3 and len(secrets) == 2 + 3 + 3
    for path in released_files(chain):
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content.lower()], path
        assert not [secret for secret in secrets if bytes.fromhex(secret) in content], path


def test_nothing_sensitive_is_packed_into_a_release_or_the_released_report(chain, digits):
    """Also not inside archives, columns, attributes and pictures; and the search finds it where it may be."""
    train = ImageSet.read(digits / "internal/train.h5")
    (record, *_) = [json.loads(line) for line in (chain / "state/digits/odometer.jsonl").read_text().splitlines()]
    canaries = {
        **{f"image {index}": image.tobytes() for index, image in enumerate(train.images[:100])},
        "the file's hash": bytes.fromhex(sha256(digits / "internal/train.h5")),
        "the set's hash": bytes.fromhex(train.identity),
        "the key's name": bytes.fromhex(record["key"]),
        "the counts": json.dumps(train.counts),
        "the counts, packed": json.dumps(train.counts, separators=(",", ":")),
        "this place": str(chain),
    }
    for method in METHODS:
        assert search(digits / method / "seed0/eps1/release", canaries) == set()
    assert not any(form in layer for layer in layers((digits / "report.html").read_bytes())
                   for canary in canaries.values() for form in forms(canary))  # fmt: skip
    found = {name for path, name in search(digits / "internal", canaries) if path.endswith("train.h5")}
    assert {"image 0", "image 99", "the counts"} <= found


def test_released_files_name_no_internal_file_and_no_place_on_this_machine(chain):
    for path in released_files(chain):
        content = path.read_bytes()
        assert b"internal/" not in content and str(chain).encode() not in content, path


def test_released_report_has_no_script_and_no_absolute_path(digits):
    page = (digits / "report.html").read_text()
    text = re.sub(r"data:[\w/+]+;base64,[A-Za-z0-9+/=]+", "", page)  # pictures
    assert "PrivImage" in page and len(text) < len(page)
    assert "<script" not in page.lower()
    assert re.findall(r"(?<![\w<:/.])/[\w.-]+/[\w./-]*|file://\S*", text) == []


def test_a_second_run_has_nothing_to_do(chain):
    assert dry_run(chain, *TOY) == []


def test_deleted_releases_are_restored_bit_for_bit_and_cost_nothing(chain, tmp_path):
    run = copy_run(chain, tmp_path)
    drawn = ["query/default.json", *(f"{m}/seed0/eps1/{name}" for m in METHODS for name in CELL[:2])]
    targets = [f"results/digits/{name}" for name in drawn]
    before = {path: (run / path).read_bytes() for path in (*targets, "state/digits/odometer.jsonl")}
    for path in targets:
        (run / path).unlink()
    done = snakemake(run, "--cores", "2", *TOY, "--", *targets)
    assert done.returncode == 0, done.stdout
    assert {path for path, content in before.items() if (run / path).read_bytes() != content} == set()
    test_no_key_and_no_checkpoint_is_left(run)
