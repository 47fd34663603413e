"""What was begun under other facts is not gone on with: a new draw is charged, and the message says what changed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from kills import DIED, Trial
from server import NOTHING, Faults
from stages import NAMES, STEPS, images, secret, write_lineage

from privimage.artifacts import ImageSet

MIDDLE = 100  # a point at which fine-tuning is between its first and its last step

# Flags that are others when the stage is started again, and a word of the message by which people find them.
FINETUNE = {
    "q": ({"settings": {"sampling_probability": 0.4}}, "sampling_probability"),
    "T": ({"settings": {"num_steps": 5}}, "num_steps"),
    "K": ({"settings": {"noise_levels_per_image": 3}}, "noise_levels_per_image"),
    "C": ({"settings": {"clip_norm": 2e-3}}, "clip_norm"),
    "learning rate": ({"settings": {"learning_rate": 1e-3}}, "learning_rate"),
    "noise multiplier": ({"epsilon": 5}, "noise_multiplier"),
    "delta": ({"declared": {"delta": 5e-4}}, "noise_multiplier"),
    "declared number": ({"declared": {"num_images": 25}}, "num_images"),
    "seed": ({"seed": 1}, "seed"),
    "method": ({"method": "pdp"}, "method"),
}
QUERY = {
    "k": ({"settings": {"top_k": 2}}, "top_k"),
    "noise multiplier": ({"settings": {"noise_multiplier": 2.0}}, "noise_multiplier"),
}


def begun(server, stage, folder):
    """A trial that was killed in the middle, with noise that nobody can compute."""
    trial = Trial(server, secret(stage), folder)
    at = MIDDLE if stage.name == "finetune" else 50
    assert trial.start(Faults(at=at)) in DIED, trial.context
    assert len(trial.odometer()) == 1 and trial.notes(), trial.context
    return trial


def is_a_new_draw(trial, word, faults=NOTHING, **changes):
    """Another start draws under another key, is charged for it, and says what was changed since the first."""
    before, first = trial.told.read_text(), {note["key"] for note in trial.notes() if "draw" in note}
    stage, trial.stage = trial.stage, replace(trial.stage, name=trial.stage.name)
    assert trial.start(faults, **changes) == 0, trial.context
    charges = trial.odometer()
    assert len(charges) == 2 and charges[0]["fingerprint"] != charges[1]["fingerprint"], trial.context
    second = {note["key"] for note in trial.notes() if "draw" in note} - first
    assert second == {charges[1]["key"]}, trial.context
    said = trial.told.read_text().removeprefix(before)
    assert word in said, f"`{word}` is not named; {trial.context}"
    trial.stage = stage
    assert trial.start() == 0 and len(trial.odometer()) == 2, f"the first one is still paid for; {trial.context}"


@pytest.mark.parametrize("what", FINETUNE)
def test_fine_tuning_with_another(server, all_stages, row, tmp_path, what):
    changes, word = FINETUNE[what]
    trial = begun(server, all_stages["finetune"], tmp_path / "trial")
    if "declared" in changes:
        changes = {"declared": {**trial.stage.flags["declared"], **changes["declared"]}}
    is_a_new_draw(trial, word, **changes)
    row(f"finetune goes on with another {what}", 1, 1)


@pytest.mark.parametrize("what", QUERY)
def test_a_query_with_another(server, all_stages, row, tmp_path, what):
    changes, word = QUERY[what]
    is_a_new_draw(begun(server, all_stages["query"], tmp_path / "trial"), word, **changes)
    row(f"query goes on with another {what}", 1, 1)


@pytest.mark.parametrize("name", ["finetune", "query"])
def test_another_version_of_a_stage(server, all_stages, row, tmp_path, name):
    is_a_new_draw(begun(server, all_stages[name], tmp_path / "trial"), "version", Faults(version=99))
    row(f"{name} goes on as another version", 1, 1)


@pytest.mark.parametrize("name", ["finetune", "query"])
def test_other_images(server, all_stages, row, tmp_path, name):
    """One image fewer: a neighbour, for which the same noise would tell which."""
    trial = begun(server, all_stages[name], tmp_path / "trial")
    images(23, NAMES, 2).write(tmp_path / "internal/fewer.h5")
    is_a_new_draw(trial, "images", images=tmp_path / "internal/fewer.h5")
    row(f"{name} goes on with other images", 1, 1)


def test_one_other_label(server, all_stages, row, tmp_path, given):
    trial = begun(server, all_stages["finetune"], tmp_path / "trial")
    real = ImageSet.read(given / "internal/train.h5")
    labels = np.array(real.labels)
    labels[0] = 1 - labels[0]
    replace(real, labels=labels).write(tmp_path / "internal/other.h5")
    is_a_new_draw(trial, "images", images=tmp_path / "internal/other.h5")
    row("finetune goes on with another label", 1, 1)


def test_another_query_and_the_model_pretrained_by_it(server, all_stages, row, tmp_path):
    trial = begun(server, all_stages["finetune"], tmp_path / "trial")
    write_lineage(tmp_path / "other", seed=1)
    others = {flag: tmp_path / "other" / name for flag, name in LINEAGE.items()}
    is_a_new_draw(trial, "pretrained", **others)
    row("finetune goes on from another model", 1, 1)


LINEAGE = {"query": "query.json", "subset": "subset.json", "pretrained": "pretrained"}


@pytest.mark.parametrize("what", ["microbatch", "threads", "precision", "engine"])
def test_what_computes_otherwise_skips_the_steps_that_were_reserved(server, all_stages, row, tmp_path, what):
    """Never a step more than T, never one step's noise on two sums: Trial sees to both at every end."""
    trial = begun(server, all_stages["finetune"], tmp_path / "trial")
    changes = {"microbatch": {"microbatch_size": 3}, "precision": {"precision": "bfloat16"}}
    changes |= {"threads": {}, "engine": {"engine": "opacus"}}
    faults = Faults(threads=2) if what == "threads" else NOTHING
    assert trial.start(faults, compute=json.dumps(changes[what])) == 0, trial.context
    assert len(trial.odometer()) == 1 and "reserved before a crash" in trial.told.read_text(), trial.context
    taken = {note["what"] for note in trial.notes() if "value" in note}
    assert len(taken) < STEPS["finetune"]
    row(f"finetune goes on with another {what}", 1, 1)
