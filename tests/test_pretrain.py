"""What is pretrained on: which images, under which labels, with every label embedding trained."""

import numpy as np
import pytest
import torch

from privimage import pretrain
from privimage.artifacts import ImageSet, Provenance, Subset, Weights
from privimage.checkpoints import Checkpoint
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
