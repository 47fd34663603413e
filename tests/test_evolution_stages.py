"""Private Evolution from the command line: what it states, what is drawn from it, and what leaves."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_model import DECLARED, NAMES, images, model

from privimage import finetune, release, sample
from privimage.artifacts import (
    ArtifactError,
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
from privimage.config import load
from privimage.errors import UserError
from privimage.generators import GENERATORS
from privimage.generators.contract import PrivateTask
from privimage.generators.evolution import EvolutionSettings
from privimage.measurements import Curve
from privimage.privacy.event import noisy_votes
from privimage.privacy.ledger import Ledger
from privimage.releasing import whitelist
from privimage.schema import ConfigError, plain
from privimage.settings import ClassifierSettings, QuerySettings, SampleSettings, SelectSettings

SETTINGS = EvolutionSettings(
    population_size=21, candidates_per_class=3, num_generations=4, lookahead=0, num_sampler_steps=2
)
QUERY = noisy_votes(1, 9.0)
CONSTANTS = json.dumps({"num_images": 24, "class_names": list(NAMES), "delta": 1e-3})


def call(stage, flags):
    words = [w for k, v in flags.items() for w in (f"--{k}", *map(str, v if isinstance(v, list) else [v]))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [stage.__name__.rpartition(".")[2], *words])
        stage.main()


def write_public(folder):
    start, classes = model(), ClassifierSettings(block="basic", blocks_per_level=(1,), base_channels=4)
    made_by = Provenance("pretrain", 1, parents={"subset": sha256(folder / "subset.json")})
    facts = {"class_names": list(NAMES), "policy": "query", "num_images": 9}
    tensors = {**flatten("raw", start.state_dict()), **flatten("ema", start.state_dict())}
    Weights("diffusion", tensors, start.describe(), facts, made_by).write(folder / "pretrained")
    description = {"settings": plain(classes), "channels": 1, "num_classes": 3, "resolution": 8}
    tensors = flatten("raw", ResNet(classes, 1, 3).state_dict())
    Weights("classifier", tensors, description, {}, Provenance("classifier", 1)).write(folder / "classifier")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a release that was made, and the flags of its private stage."""
    folder = tmp_path_factory.mktemp("evolution")
    images().write(folder / "internal" / "train.h5")
    with Ledger(folder / "state", "set", DECLARED).open("query", "c" * 16, "a query") as asked:
        asked.reserve([QUERY])
    settings = plain(QuerySettings(top_k=1, noise_multiplier=9.0))
    made_by = Provenance("query", 2, settings)
    QueryResult([[1.0, 2.0]] * 2, list(NAMES), ["a", "b"], 1, 1.0, QUERY, True, made_by).write(folder / "query.json")
    made_by = Provenance("select", 1, {**plain(SelectSettings()), "seed": 0}, {"query": sha256(folder / "query.json")})
    Subset("query", {"x": ["a"], "y": ["b"]}, made_by).write(folder / "subset.json")
    write_public(folder)
    flags = {
        "dataset": "set", "method": "evolution", "epsilon": 4, "seed": 0, "releases": ["query", "finetune"],
        "images": folder / "internal" / "train.h5", "pretrained": folder / "pretrained",
        "subset": folder / "subset.json", "query": folder / "query.json", "generator": "evolution",
        "classifier": folder / "classifier", "declared": CONSTANTS, "settings": json.dumps(plain(SETTINGS)),
        "state-dir": folder / "state", "weights": folder / "w.safetensors", "privacy": folder / "privacy.json",
        "curve": folder / "internal" / "training.csv",
    }  # fmt: skip
    call(finetune, flags)
    return folder, flags


def test_query_and_votes_share_one_budget_and_the_votes_are_charged_once(made):
    folder, flags = made
    statement = PrivacyStatement.read(folder / "privacy.json")
    query, votes = statement.events
    assert query == QUERY and (votes.mechanism, votes.num_steps) == ("discrete_gaussian", 4)
    assert 4 - 1e-3 <= statement.epsilon <= 4 and statement.private
    before = (folder / "w.safetensors").read_bytes()
    (folder / "w.safetensors").unlink()
    call(finetune, flags)
    assert (folder / "w.safetensors").read_bytes() == before
    charged = [r["events"] for r in Ledger(folder / "state", "set", DECLARED).odometer() if r["stage"] == "finetune"]
    assert charged == [[votes.as_json()]]
    assert len(Curve.read(folder / "internal" / "training.csv").rows) == 4


def draw(folder, num_images, batch_size=500):
    settings = json.dumps({"num_images": num_images, "batch_size": batch_size})
    call(sample, {"weights": folder / "w.safetensors", "seed": 0, "checkpoints": folder / "checkpoints",
                  "images": folder / "images.h5", "settings": settings})  # fmt: skip
    return ImageSet.read(folder / "images.h5")


def test_the_images_are_the_population_s_members_in_their_order(made):
    folder, _ = made
    population = load_file(folder / "w.safetensors")
    drawn = draw(folder, 17, batch_size=5)
    np.testing.assert_array_equal(drawn.images, population["images"][:17])
    np.testing.assert_array_equal(drawn.labels, np.arange(17) % 2)


def test_more_images_than_members_are_refused(made):
    with pytest.raises(UserError, match="22, and the population has 21 images; lower it, or raise population_size"):
        draw(made[0], 22)


def test_the_release_says_in_words_what_the_votes_were_and_holds_nothing_else(made):
    folder, flags = made
    draw(folder, 17)
    shared = {name: flags[name] for name in ("dataset", "method", "seed", "declared", "privacy", "subset", "query")}
    paths = {"weights": folder / "w.safetensors", "images": folder / "images.h5", "folder": folder / "release"}
    call(release, {**shared, **paths, "settings": "{}"})
    whitelist.check_folder(folder / "release")
    card = " ".join((folder / "release" / "README.md").read_text(encoding="utf-8").split())
    told = ("1. **A noisy query**", "2. **Votes**, 4 times. In each of 4 generations every image voted for the "
            "synthetic image nearest to it", "accounted for as 4 compositions with sensitivity 1", "voted on what it "
            "drew", "when the votes ended", "the last generation, from which", "Settings of training: population_size"
            " 21", "(method `evolution`")  # fmt: skip
    assert [words for words in told if words not in card] == []
    assert "DP-SGD" not in card and "moving average" not in card
    again = Weights.read(folder / "release" / "model.safetensors", "population")
    assert again.tensors["images"].shape == (21, 8, 8, 1)


def test_a_tensor_more_in_a_population_is_refused(made, tmp_path):
    weights = Weights.read(made[0] / "w.safetensors", "population")
    tensors = {**weights.tensors, "votes": torch.zeros(21)}
    replace(weights, tensors=tensors).write(tmp_path / "w")
    with pytest.raises(ArtifactError, match="`votes` is not on the list"):
        whitelist.check_safetensors(tmp_path / "w")
    shutil.copy(made[0] / "w.safetensors", tmp_path / "w")
    whitelist.check_safetensors(tmp_path / "w")


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda task: replace(task, settings=replace(SETTINGS, population_size=1)), "one image for each of the 2"),
        (lambda task: replace(task, images=replace(task.images, class_names=("x", "z"))), "other classes"),
        (lambda task: replace(task, pretrained=replace(task.pretrained, facts={"num_images": 0})), "trains nothing"),
        (
            lambda task: replace(
                task, classifier=replace(task.classifier, network={**task.classifier.network, "channels": 3})
            ),
            "the classifier is for 8 pixels and 3 channels",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_charged(made, change, sentence):
    folder, _ = made
    pretrained, seen = (
        Weights.read(folder / "pretrained", "diffusion"),
        Weights.read(folder / "classifier", "classifier"),
    )
    task = PrivateTask(pretrained, images(), DECLARED, SETTINGS, 0, seen)
    GENERATORS["evolution"].prepare(task)
    with pytest.raises(UserError, match=sentence):
        GENERATORS["evolution"].prepare(change(task))


def test_a_population_is_drawn_from_in_the_labels_order_alone(made):
    weights = Weights.read(made[0] / "w.safetensors", "population")
    drawer = GENERATORS["evolution"].drawer(weights, SampleSettings(num_images=21), None)
    assert drawer.shape == (8, 8, 1)
    with pytest.raises(UserError, match="other labels from image 4"):
        drawer.draw(torch.tensor([1, 0]), 4, torch.Generator())


def configured(**changes):
    raw = yaml.safe_load((Path(__file__).parents[1] / "config" / "config.yaml").read_text(encoding="utf-8"))
    raw["methods"] = {"votes": {"policy": "whole", "generator": "evolution", **changes}}
    return raw | {"run": {**raw["run"], "methods": ["votes"]}}


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"settings": {"finetune": {"population_size": 5999}}}, "population_size` is 5999 .*num_images`, 6000"),
        ({"policy": "none"}, "`methods.votes.policy` is `none`"),
    ],
)
def test_what_would_be_found_missing_once_it_is_paid_for_is_refused_in_the_configuration(changes, sentence):
    load(configured(settings={"finetune": {"population_size": 6000}}))
    with pytest.raises(ConfigError, match=sentence):
        load(configured(**changes))
