"""The long stages on small inputs: the files they read, the command lines that name them, what they must leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from privimage.artifacts import (
    Accountant,
    ImageSet,
    PrivacyStatement,
    Provenance,
    QueryResult,
    Subset,
    Weights,
    sha256,
)
from privimage.checkpoints import flatten
from privimage.classifiers.resnet import ResNet
from privimage.diffusion.denoiser import new_denoiser
from privimage.evaluation_settings import AccuracySettings
from privimage.measurements import Accuracy, Curve
from privimage.privacy import accounting
from privimage.privacy.event import Event, noisy_choice, noisy_votes
from privimage.schema import build, plain
from privimage.settings import ClassifierSettings, Declared, NetworkSettings

NAMES, PUBLIC = ("x", "y"), ("ant", "bee", "cow")
STEPS = {"finetune": 4, "pretrain": 5, "classifier": 6, "sample": 3}  # of an optimiser, or batches of images
NETWORK = {"base_channels": 8, "channel_multipliers": [1], "num_res_blocks": 1, "attention_resolutions": [4]}
CLASSIFIER = {"block": "basic", "blocks_per_level": [1], "base_channels": 4}
DECLARED = {"num_images": 24, "class_names": list(NAMES), "delta": 1e-3, "reproducible_noise": True}
QUERY, CHOICE = noisy_votes(1, 9.0), 0.5
PRIVATE = ("query", "finetune", "accuracy")  # stages that the ledger charges
LONG = ("classifier", "query", "pretrain", "finetune", "sample", "accuracy")

Flags = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """How one stage is called in a folder of its own, and the readers of what it leaves there."""

    name: str
    flags: Flags
    outputs: Mapping[str, Callable[[Path], Any]]  # file name -> what reads it

    def words(self, folder: Path, **changes: Any) -> list[str]:
        """The command line, for outputs and state in the folder; ``changes`` are other values of flags, None for none.

        A dictionary for a flag that is JSON is merged into it.
        """
        words = []
        for flag, value in {**self.flags, **{n.replace("_", "-"): v for n, v in changes.items()}}.items():
            before = self.flags.get(flag)
            if value is None:
                continue
            if isinstance(before, dict) and isinstance(value, dict):
                value = {**before, **value}
            if isinstance(value, dict):
                value = json.dumps(value)
            value = str(folder / value.removeprefix("./")) if str(value).startswith("./") else value
            words += [f"--{flag}", *map(str, value if isinstance(value, list | tuple) else [value])]
        return words

    def left(self, folder: Path) -> dict[str, bytes]:
        """The bytes of the outputs that are there."""
        return {name: (folder / name).read_bytes() for name in self.outputs if (folder / name).exists()}


def images(num: int, names: tuple[str, ...], seed: int, source: str = "made") -> ImageSet:
    """Random grey images of 8 pixels."""
    rng = np.random.default_rng(seed)
    return ImageSet(rng.integers(0, 256, (num, 8, 8, 1), np.uint8), np.arange(num) % len(names), names, source)


def write_inputs(folder: Path) -> None:
    """All that the stages read is in the folder."""
    images(30, PUBLIC, 0).write(folder / "public-train.h5")
    images(12, PUBLIC, 1).write(folder / "public-val.h5")
    images(24, NAMES, 2).write(folder / "internal/train.h5")
    images(10, NAMES, 3).write(folder / "internal/test.h5")
    images(16, NAMES, 4, "synthetic").write(folder / "images.h5")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ResNet(ClassifierSettings(**tuples(CLASSIFIER)), 1, len(PUBLIC))
    shape = {"channels": 1, "num_classes": len(PUBLIC), "resolution": 8}
    described = {"settings": {**plain(ClassifierSettings()), **CLASSIFIER}, **shape}
    facts = {"class_names": list(PUBLIC)}
    weights = flatten("raw", network.state_dict())
    Weights("classifier", weights, described, facts, Provenance("classifier", 1)).write(folder / "classifier")
    write_lineage(folder)
    start = new_denoiser(NetworkSettings(**tuples(NETWORK)), 8, 1, len(NAMES), seed=0)
    _weights(start, Provenance("finetune", 1)).write(folder / "finetuned")
    events = [QUERY, Event("poisson_gaussian", 9.0, 0.3, 4), noisy_choice(CHOICE)]
    statement = accounting.statement(events, Declared(**tuples(DECLARED)), 9.0, Provenance("finetune", 1))
    statement.write(folder / "privacy.json")


def write_lineage(folder: Path, seed: int = 0) -> None:
    """The query, the subset it chose and the model pretrained on that are in the folder; ``seed`` is of them all."""
    query = QueryResult(
        [[1.0 + seed, 2.0, 3.0]] * 2, list(NAMES), list(PUBLIC), 1, 1.0, QUERY, True, Provenance("query", 1)
    )
    query.write(folder / "query.json")
    made_from = Provenance("select", 1, parents={"query": sha256(folder / "query.json")})
    Subset("query", {"x": ["ant"], "y": ["cow"]}, made_from).write(folder / "subset.json")
    start = new_denoiser(NetworkSettings(**tuples(NETWORK)), 8, 1, len(NAMES), seed=seed)
    made_from = Provenance("pretrain", 1, parents={"subset": sha256(folder / "subset.json")})
    _weights(start, made_from).write(folder / "pretrained")


def stages(given: Path) -> dict[str, Stage]:
    """Each long stage on the inputs in the folder."""
    private = {"dataset": "set", "declared": DECLARED, "state-dir": "./state"}
    diffusion, checkpoints = _reader(Weights, "diffusion"), {"checkpoints": "./state/checkpoints"}
    pretrain = {"network": NETWORK, "num_steps": STEPS["pretrain"], "batch_size": 4}
    finetune = {"sampling_probability": 0.3, "num_steps": STEPS["finetune"], "noise_levels_per_image": 2}
    recipe = {**CLASSIFIER, "num_epochs": 2, "batch_size": 10, "horizontal_flip": False}
    choice = {**plain(AccuracySettings()), "classifiers": ["cnn"], "cnn_num_epochs": 3, "cnn_batch_size": 8,
              "cnn_base_channels": 2, "protocol": "noisy-validation", "validation_epsilon": CHOICE}  # fmt: skip
    listed = [
        Stage("classifier", {"settings": recipe, "train": given / "public-train.h5",
                             "holdout": given / "public-val.h5", **checkpoints, "weights": "./classifier"},
              {"classifier": _reader(Weights, "classifier")}),
        Stage("query", {"settings": {"top_k": 1, "noise_multiplier": 1.0}, "images": given / "internal/train.h5",
                        "classifier": given / "classifier", **private, "histogram": "./query.json"},
              {"query.json": QueryResult.read}),
        Stage("pretrain", {"settings": pretrain, "seed": 0, "public": given / "public-train.h5",
                           "subset": given / "subset.json", "class-names": json.dumps(NAMES), **checkpoints,
                           "weights": "./pretrained"},
              {"pretrained": diffusion}),
        Stage("finetune", {"settings": finetune, "method": "privimage", "epsilon": 4, "seed": 0,
                           "releases": ["query", "finetune"], "images": given / "internal/train.h5",
                           "pretrained": given / "pretrained", "subset": given / "subset.json",
                           "query": given / "query.json", **private, "budget": "none", "weights": "./finetuned",
                           "privacy": "./privacy.json", "curve": "./internal/training.csv"},
              {"finetuned": diffusion, "privacy.json": PrivacyStatement.read, "internal/training.csv": Curve.read}),
        Stage("sample", {"settings": {"num_images": 12, "num_steps": 3, "batch_size": 4}, "seed": 0,
                         "weights": given / "finetuned", **checkpoints, "images": "./images.h5",
                         "grid": "./samples.png"},
              {"images.h5": ImageSet.read, "samples.png": _picture}),
        Stage("accuracy", {"settings": choice, "train": given / "images.h5", "test": given / "internal/test.h5",
                           "seed": 0, "sensitive": given / "internal/train.h5", "privacy": given / "privacy.json",
                           "method": "privimage", "epsilon": 4, **private, "result": "./internal/accuracy.json"},
              {"internal/accuracy.json": Accuracy.read}),
    ]  # fmt: skip
    return {stage.name: stage for stage in listed}


def secret(stage: Stage) -> Stage:
    """The stage with noise that nobody can compute, as it is for people."""
    declared = {**DECLARED, "reproducible_noise": False}
    return replace(stage, flags={**stage.flags, "declared": declared})


def quick_accounting() -> None:
    """Only the package's own accountant is asked, and on a coarse grid: seconds less, and tested elsewhere."""
    accounting.INTERVAL = accounting.COARSE_INTERVAL
    accounting.accountants = lambda events, delta: [Accountant(accounting.PLD, "", accounting.epsilon(events, delta))]


def warm() -> None:
    """What every start asks the accountant is known already, and what libraries import at first use is there."""
    quick_accounting()
    q, steps = 0.3, STEPS["finetune"]
    noise = accounting.calibrate([QUERY], sampling_probability=q, num_steps=steps, epsilon=4, delta=1e-3)
    events = [QUERY, Event("poisson_gaussian", noise, q, steps)]
    accounting.statement(events, Declared(**tuples(DECLARED)), 4, Provenance("finetune", 1))
    build(Declared, {**DECLARED})
    model = new_denoiser(NetworkSettings(**tuples(NETWORK)), 8, 1, len(NAMES), seed=0)
    torch.optim.Adam(model.parameters(), lr=1.0)


def _weights(model: Any, provenance: Provenance) -> Weights:
    tensors = {**flatten("raw", model.state_dict()), **flatten("ema", model.state_dict())}
    return Weights("diffusion", tensors, model.describe(), {"class_names": list(NAMES)}, provenance)


def tuples(settings: Flags) -> Flags:
    """The settings with tuples for lists, as dataclasses hold them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def _reader(kind: type, name: str) -> Callable[[Path], Any]:
    return lambda path: kind.read(path, name)


def _picture(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()
        return picture


def quick(names: Iterable[str], *few: str) -> list[Any]:
    """All names, for tests; those that are not among the few are slow."""
    return [name if name in few else pytest.param(name, marks=pytest.mark.slow) for name in names]
