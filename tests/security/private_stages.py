"""The two stages that lead out of internal/, run on a small set by their command lines."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from small import write_classifier
from small_model import NAMES, images, model

from privimage import cli, finetune, query
from privimage.artifacts import Provenance, Subset, Weights, sha256
from privimage.checkpoints import Checkpoint, flatten

PUBLIC = ("a", "b", "c")


def run_both(monkeypatch, folder: Path) -> None:
    """``folder`` holds a state directory and results, as after the rules `query` and `finetune`."""
    cli.run(lambda: _public_stage(folder / "state" / "checkpoints" / "classifier" / "x"))
    internal = folder / "results" / "set" / "internal"
    images().write(internal / "train.h5")
    write_classifier(folder / "classifier")
    replace(Weights.read(folder / "classifier", "classifier"), facts={"class_names": list(PUBLIC)}).write(
        folder / "classifier"
    )
    common = {
        "dataset": "set",
        "images": internal / "train.h5",
        "declared": json.dumps({"num_images": 24, "class_names": list(NAMES), "delta": 1e-3}),
        "state-dir": folder / "state",
    }
    settings = {"top_k": 1, "noise_multiplier": 9.0}
    _call(monkeypatch, query, common, classifier=folder / "classifier", settings=settings, histogram=folder / "q.json")
    parents = {"query": sha256(folder / "q.json")}
    Subset("query", {"x": ["a"], "y": ["b"]}, Provenance("select", 1, parents=parents)).write(folder / "subset.json")
    start = model()
    tensors = {**flatten("raw", start.state_dict()), **flatten("ema", start.state_dict())}
    made = Provenance("pretrain", 1, parents={"subset": sha256(folder / "subset.json")})
    facts = {"class_names": list(NAMES)}
    Weights("diffusion", tensors, start.describe(), facts, made).write(folder / "pretrained")
    monkeypatch.setenv("PRIVIMAGE_STATUS", str(folder / "state" / "status"))
    _call(
        monkeypatch, finetune, common, method="privimage", epsilon=4, seed=0, releases=["query", "finetune"],
        pretrained=folder / "pretrained", subset=folder / "subset.json", query=folder / "q.json",
        settings={"sampling_probability": 0.3, "num_steps": 3, "noise_levels_per_image": 2},
        weights=folder / "results/set/w", privacy=folder / "results/set/privacy.json", curve=internal / "training.csv",
    )  # fmt: skip


def _public_stage(folder: Path) -> None:
    """What makes the state directory, where it is the first to have a checkpoint."""
    checkpoint = Checkpoint(folder, "x")
    checkpoint.save({"a": torch.zeros(1)}, {})
    checkpoint.remove()


def _call(monkeypatch, stage, common, **flags) -> None:
    words = []
    for name, value in {**common, **flags}.items():
        text = json.dumps(value) if isinstance(value, dict) else value
        words += [f"--{name}", *map(str, text if isinstance(text, list) else [text])]
    monkeypatch.setattr(sys, "argv", [stage.__name__.rpartition(".")[2], *words])
    cli.run(stage.main)
