"""What was begun under other facts is not gone on with: a new draw is charged, and the message says what changed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from kills import DIED, Trial
from server import NOTHING, Faults
from stages import NAMES, STEPS, images, quick, secret, write_lineage

from privimage.artifacts import ImageSet
from privimage.compute import Compute

# Flags that are others when the stage is started again, and a word of the message by which people find them; none where
# the release then has another name as well: several methods, seeds and epsilons are what people run.
FINETUNE = {
    "q": ({"settings": {"sampling_probability": 0.4}}, "sampling_probability"),
    "T": ({"settings": {"num_steps": 5}}, "num_steps"),
    "K": ({"settings": {"noise_levels_per_image": 3}}, "noise_levels_per_image"),
    "C": ({"settings": {"clip_norm": 2e-3}}, "clip_norm"),
    "learning rate": ({"settings": {"learning_rate": 1e-3}}, "learning_rate"),
    "noise multiplier": ({"epsilon": 5}, ""),
    "delta": ({"declared": {"delta": 5e-4}}, "noise_multiplier"),
    "declared number": ({"declared": {"num_images": 25}}, "num_images"),
    "seed": ({"seed": 1}, ""),
    "method": ({"method": "pdp"}, ""),
}
QUERY = {
    "k": ({"settings": {"top_k": 2}}, ""),
    "noise multiplier": ({"settings": {"noise_multiplier": 2.0}}, ""),
}


def begun(server, calm, name, folder):
    """A trial of noise that nobody can compute, killed after its second step, or its draw."""
    trial = Trial(server, secret(calm(name)[0].stage), folder)
    assert trial.start(Faults(dies=2 if name == "finetune" else 1)) in DIED, trial.context
    assert len(trial.odometer()) == 1, trial.context
    return trial


def is_a_new_draw(trial, word, faults=NOTHING, **changes):
    """Another start draws under another key, is charged for it, and says what was changed since the first."""
    before, first = trial.told.read_text(), {note["key"] for note in trial.notes() if "draw" in note}
    assert trial.start(faults, **changes) == 0, trial.context
    charges = trial.odometer()
    assert len(charges) == 2 and charges[0]["fingerprint"] != charges[1]["fingerprint"], trial.context
    second = {note["key"] for note in trial.notes() if "draw" in note} - first
    assert second == {charges[1]["key"]}, trial.context
    said = trial.told.read_text().removeprefix(before)
    assert word in said, f"`{word}` is not named; {trial.context}"
    assert trial.start() == 0 and len(trial.odometer()) == 2, f"the first one is still paid for; {trial.context}"


@pytest.mark.parametrize("what", quick(FINETUNE, "C"))
def test_fine_tuning_with_another(server, calm, row, tmp_path, what):
    changes, word = FINETUNE[what]
    trial = begun(server, calm, "finetune", tmp_path / "trial")
    is_a_new_draw(trial, word, **changes)
    row(f"finetune goes on with another {what}", 1, 1)


@pytest.mark.parametrize("what", quick(QUERY))
def test_a_query_with_another(server, calm, row, tmp_path, what):
    changes, word = QUERY[what]
    is_a_new_draw(begun(server, calm, "query", tmp_path / "trial"), word, **changes)
    row(f"query goes on with another {what}", 1, 1)


@pytest.mark.parametrize("name", quick(["finetune", "query"], "query"))
def test_another_version_of_a_stage(server, calm, row, tmp_path, name):
    is_a_new_draw(begun(server, calm, name, tmp_path / "trial"), "version", Faults(version=99))
    row(f"{name} goes on as another version", 1, 1)


@pytest.mark.parametrize("name", quick(["finetune", "query"]))
def test_other_images(server, calm, row, tmp_path, name):
    """One image fewer: a neighbour, for which the same noise would tell which."""
    trial = begun(server, calm, name, tmp_path / "trial")
    images(23, NAMES, 2).write(tmp_path / "internal/fewer.h5")
    is_a_new_draw(trial, "images", images=tmp_path / "internal/fewer.h5")
    row(f"{name} goes on with other images", 1, 1)


@pytest.mark.slow
def test_one_other_label(server, calm, row, tmp_path, given):
    trial = begun(server, calm, "finetune", tmp_path / "trial")
    real = ImageSet.read(given / "internal/train.h5")
    labels = np.array(real.labels)
    labels[0] = 1 - labels[0]
    replace(real, labels=labels).write(tmp_path / "internal/other.h5")
    is_a_new_draw(trial, "images", images=tmp_path / "internal/other.h5")
    row("finetune goes on with another label", 1, 1)


@pytest.mark.slow
def test_another_query_and_the_model_pretrained_by_it(server, calm, row, tmp_path):
    trial = begun(server, calm, "finetune", tmp_path / "trial")
    write_lineage(tmp_path / "other", seed=1)
    others = {flag: tmp_path / "other" / name for flag, name in LINEAGE.items()}
    is_a_new_draw(trial, "pretrained", **others)
    row("finetune goes on from another model", 1, 1)


LINEAGE = {"query": "query.json", "subset": "subset.json", "pretrained": "pretrained"}


@pytest.mark.parametrize("what", quick(["microbatch", "threads", "precision", "engine"], "threads"))
def test_what_computes_otherwise_skips_the_steps_that_were_reserved(server, calm, row, tmp_path, what):
    """Never a step more than T, never one step's noise on two sums: Trial sees to both at every end."""
    trial = begun(server, calm, "finetune", tmp_path / "trial")
    other = "float32" if Compute().precision == "bfloat16" else "bfloat16"
    changes = {"microbatch": {"microbatch_size": 3}, "precision": {"precision": other}, "engine": {"engine": "opacus"}}
    faults = Faults(threads=2) if what == "threads" else NOTHING
    assert trial.start(faults, compute=json.dumps(changes.get(what, {}))) == 0, trial.context
    assert len(trial.odometer()) == 1 and "reserved before a crash" in trial.told.read_text(), trial.context
    assert sum("step" in note for note in trial.notes()) == STEPS["finetune"]
    row(f"finetune goes on with another {what}", 1, 1)
