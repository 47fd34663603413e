"""What is pretrained on: which images, under which labels, with every label embedding trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from privimage import pretrain
from privimage.artifacts import ImageSet, Provenance, Subset, Weights
from privimage.checkpoints import Checkpoint
from privimage.diffusion import pretraining, training
from privimage.errors import UserError
from privimage.settings import NetworkSettings, PretrainSettings

SMALL = NetworkSettings(base_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,))
SETTINGS = PretrainSettings(network=SMALL, num_steps=3, batch_size=16, learning_rate=1e-2, ema_decay=0.5)
PROVENANCE = Provenance("select", 1)


def public():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 5).astype(np.int64)
    return ImageSet(rng.integers(0, 256, (20, 8, 8, 1), np.uint8), labels, ("ant", "bee", "cow", "dog"), "test")


def subset(policy="query", **classes):
    return Subset(policy, {name: list(chosen) for name, chosen in classes.items()}, PROVENANCE)


def test_selected_images_get_the_sensitive_label_they_were_selected_for():
    index, labels, names = pretrain.selected(public(), subset(x=["dog"], y=["ant", "cow"]), ("x", "y"))
    assert index.tolist() == [*range(5), *range(10, 20)]
    assert labels.tolist() == [1] * 10 + [0] * 5
    assert names == ["x", "y"]


def test_the_whole_set_keeps_its_labels_unless_the_sensitive_set_has_one_class():
    index, labels, names = pretrain.selected(public(), subset("whole"), ("x", "y"))
    assert (len(index), labels.max(), names) == (20, 3, ["ant", "bee", "cow", "dog"])
    index, labels, names = pretrain.selected(public(), subset("whole"), ("x",))
    assert (len(index), labels.max(), names) == (20, 0, ["x"])


def test_a_subset_of_another_public_set_is_refused():
    with pytest.raises(UserError, match="`eel`.*rerun select"):
        pretrain.selected(public(), subset(x=["eel"]), ("x",))


def test_no_public_data_gives_an_initialised_network(tmp_path):
    made = pretrain.run(public(), subset("none"), SETTINGS, ("x", "y"), 0, Checkpoint(tmp_path, "x"), PROVENANCE)
    assert made.network["num_labels"] == 2
    assert all(torch.equal(made.group("raw")[k], v) for k, v in made.group("ema").items())
    assert made.facts["num_images"] == 0
    made.write(tmp_path / "weights")
    assert Weights.read(tmp_path / "weights", "diffusion").network == made.network


@pytest.mark.parametrize(("policy", "names"), [("query", ("x", "y")), ("whole", ("x", "y"))])
def test_pretraining_trains_every_label_embedding(tmp_path, policy, names):
    chosen = subset(policy, x=["dog"], y=["ant", "cow"])
    start = pretrain.run(public(), subset("none"), SETTINGS, tuple("abcd")[: 4 if policy == "whole" else 2], 0,
                         Checkpoint(tmp_path / "none", "x"), PROVENANCE).group("raw")  # fmt: skip
    settings = PretrainSettings(**{**SETTINGS.__dict__, "num_steps": 10, "label_dropout": 0.3})
    made = pretrain.run(public(), chosen, settings, names, 0, Checkpoint(tmp_path / "x", "x"), PROVENANCE)
    before, after = (w["network.label_embedding.weight"] for w in (start, made.group("raw")))
    assert ((before - after).abs().max(dim=1).values > 1e-3).all()


CHOSEN = {"x": ["dog"], "y": ["ant", "cow"]}


def embeddings(tmp_path, policy="query", names=("x", "y"), **changes):
    settings = replace(SETTINGS, num_steps=4, **changes)
    checkpoint = Checkpoint(tmp_path / f"{policy}{changes}", "x")
    made = pretrain.run(public(), subset(policy, **CHOSEN), settings, names, 0, checkpoint, PROVENANCE)
    return made.group("raw"), made


def test_two_stretches_are_as_many_steps_and_end_on_the_selection(tmp_path, monkeypatch):
    seen = []
    real = pretraining.train
    monkeypatch.setattr(
        pretraining, "train", lambda *a: seen.append((len(a[2]), a[3].max().item(), a[4].num_steps)) or real(*a)
    )
    _, made = embeddings(tmp_path, whole_fraction=0.25)
    assert seen == [(20, 3, 1), (15, 1, 3)]  # the whole set under four labels, then three classes under two
    assert made.network["num_labels"] == 2


def test_labels_of_the_second_stretch_start_where_their_classes_ended(tmp_path, monkeypatch):
    ends = []
    real = pretraining.train

    def watched(model, *rest):
        ends.append(model.network.label_embedding.weight.detach().clone())
        made = real(model, *rest)
        ends.append(model.network.label_embedding.weight.detach().clone())
        return made

    monkeypatch.setattr(pretraining, "train", watched)
    embeddings(tmp_path, whole_fraction=0.5)
    _, whole, start, _ = ends
    torch.testing.assert_close(start, torch.stack([whole[3], (whole[0] + whole[2]) / 2, whole[4]]))


@pytest.mark.parametrize("policy", ["whole", "none"])
def test_there_is_one_stretch_where_nothing_is_selected(tmp_path, policy):
    one, two = (embeddings(tmp_path, policy, whole_fraction=fraction)[0] for fraction in (0.0, 0.5))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_single_class_has_two_stretches_too(tmp_path):
    raw, _ = embeddings(tmp_path, names=("x",), whole_fraction=0.5)
    other, _ = embeddings(tmp_path, names=("x",))
    assert raw.keys() == other.keys() and not torch.equal(
        raw["network.conv_in.weight"], other["network.conv_in.weight"]
    )


@pytest.mark.slow
def test_a_stopped_run_of_two_stretches_resumes_to_the_same_weights(tmp_path, monkeypatch):
    calm, _ = embeddings(tmp_path / "calm", whole_fraction=0.5)
    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
    real, calls = training._save, []

    def stopping_save(*args):
        real(*args)
        calls.append(args[1])
        if len(calls) in (1, 4):
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_save", stopping_save)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            embeddings(tmp_path / "stopped", whole_fraction=0.5)
    again, _ = embeddings(tmp_path / "stopped", whole_fraction=0.5)
    assert all(torch.equal(calm[name], again[name]) for name in calm)


def test_unconditional_pretraining_sees_no_label_and_leaves_all_alike(tmp_path):
    raw, made = embeddings(tmp_path, conditional=False)
    for group in ("raw", "ema"):
        rows = made.group(group)["network.label_embedding.weight"]
        assert torch.equal(rows, rows[-1:].expand_as(rows))
    assert not torch.equal(raw["network.conv_in.weight"], embeddings(tmp_path)[0]["network.conv_in.weight"])
