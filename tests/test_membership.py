"""The stage `membership`: a model that knows its images by heart is caught, one that never saw them is not."""

import json
import sys
from dataclasses import replace
from functools import cache
from math import exp

import numpy as np
import pytest
import torch
from sets import image_sets

from privimage import membership
from privimage.artifacts import ImageSet, PrivacyStatement, Provenance, Weights, sha256
from privimage.checkpoints import flatten
from privimage.compute import Compute
from privimage.data import digits
from privimage.diffusion.denoiser import new_denoiser
from privimage.diffusion.loss import draw_noise, per_image_loss, to_float
from privimage.diffusion.training import generator_for
from privimage.errors import UserError
from privimage.evaluation_settings import MembershipSettings
from privimage.measurements import Membership
from privimage.settings import ComputeSettings, NetworkSettings, Source

MADE_BY = Provenance("membership", membership.VERSION)
SMALL = NetworkSettings(base_channels=16, channel_multipliers=(1,), num_res_blocks=1)
STATEMENT = PrivacyStatement(
    1.0, 1e-5, 1.0, "add_or_remove_one", [], 2.0, 1, 1.0, 1437, [], True, ["labels"], Provenance("finetune", 1)
)
NAMES = tuple(str(digit) for digit in range(10))
FEW = MembershipSettings(sigmas=(0.1, 0.3, 1.0), num_draws=4)


@cache
def halves(size):
    """Disjoint sets of real images."""
    source = Source(source="digits", resolution=8, channels=1)
    whole, _ = image_sets(digits.read(source, NAMES), source)
    rows = np.random.default_rng(0).permutation(len(whole.labels))[: 2 * size].reshape(2, size)
    return [replace(whole, images=whole.images[row], labels=whole.labels[row]) for row in rows]


@cache
def by_heart():
    """A small model trained on 32 images, without privacy, until it knows them."""
    train, _ = halves(32)
    model, images, labels = untrained(), to_float(torch.from_numpy(train.images)), torch.from_numpy(train.labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(150):
        levels = {"levels": 1, "P_mean": -1.2, "P_std": 1.2, "label_dropout": 0.0, "no_label": 10}
        batch = draw_noise(images, labels, **levels, generator=generator_for(0, step))
        optimizer.zero_grad()
        per_image_loss(model, batch).mean().backward()
        optimizer.step()
    return model


def untrained(num_labels=10):
    return new_denoiser(SMALL, 8, 1, num_labels, seed=1)


def run(model, train, test, settings=FEW, statement=STATEMENT):
    return membership.run(model, train, test, statement, settings, MADE_BY)


@pytest.mark.slow
def test_a_model_that_learnt_its_images_by_heart_is_caught():
    found = run(by_heart(), *halves(32))
    assert found.auc > 0.85 and found.auc_interval[0] > 0.75
    assert found.tpr["0.05"]["rate"] > 0.4 > found.tpr["0.05"]["permitted"]  # no model of this epsilon could do that
    assert set(found.auc_by_sigma) == {"0.1", "0.3", "1"} and max(found.auc_by_sigma.values()) > 0.85
    assert found.roc[0] == [0, 0] and found.roc[-1] == [1, 1]


def test_a_model_that_never_saw_them_is_not():
    found = run(untrained(), *halves(100))
    assert found.auc_interval[0] < 0.5 < found.auc_interval[1]
    assert found.tpr["0.05"]["interval"][0] <= 0.05 <= found.tpr["0.05"]["interval"][1]
    assert found.num_members == found.num_non_members == 100


def test_who_is_called_a_member_changes_no_score():
    """The rule that combines the levels looks at nobody's membership: exchanged sets give the mirrored area."""
    one, other = halves(40)
    assert run(by_heart(), one, other).auc == pytest.approx(1 - run(by_heart(), other, one).auc)


def test_losses_are_those_of_the_same_noise_for_every_image_and_any_batch(monkeypatch):
    images, _ = halves(20)
    copied = ImageSet(images.images[[0] * 20], images.labels[[0] * 20], NAMES, "copies")
    index = np.arange(20)
    same = membership.losses(by_heart(), copied, index, FEW, membership.DEFAULT)
    np.testing.assert_allclose(same, same[:1].repeat(20, axis=0), rtol=1e-3)
    whole = membership.losses(by_heart(), images, index, FEW, membership.DEFAULT)
    assert whole.shape == (20, 3) and np.ptp(whole[:, 0]) > 0
    monkeypatch.setattr(membership, "BATCH_SIZE", 12)
    np.testing.assert_allclose(membership.losses(by_heart(), images, index, FEW, membership.DEFAULT), whole, rtol=1e-3)


def test_precision_and_compilation_change_no_loss(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    images, _ = halves(20)
    fast = Compute(ComputeSettings(precision="bfloat16", compile=True))
    found = [membership.losses(by_heart(), images, np.arange(20), FEW, how) for how in (fast, membership.DEFAULT)]
    np.testing.assert_array_equal(*found)


def test_the_label_of_an_image_counts():
    images, _ = halves(20)
    wrong = replace(images, labels=(images.labels + 1) % 10)
    right, other = (
        membership.losses(by_heart(), these, np.arange(20), FEW, membership.DEFAULT) for these in (images, wrong)
    )
    assert other[:, 2].mean() > 1.2 * right[:, 2].mean()


def test_as_many_of_either_and_a_rare_rate_only_of_many(monkeypatch):
    train, test = halves(60)
    few = replace(test, images=test.images[:30], labels=test.labels[:30])
    found = run(untrained(), train, few, replace(FEW, num_images=50))
    assert found.num_members == found.num_non_members == 30 and set(found.tpr) == {"0.05"}
    monkeypatch.setattr(membership, "RATES", {0.05: 0, 0.001: 30})
    assert set(run(untrained(), train, few).tpr) == {"0.05", "0.001"}
    assert membership.RATES[0.001] == 30 and found.tpr["0.05"]["permitted"] == pytest.approx(0.05 * exp(1) + 1e-5)


def test_one_class_is_enough():
    single = [ImageSet(part.images, np.zeros(20, np.int64), ("all",), "one") for part in halves(20)]
    assert 0 <= run(untrained(num_labels=1), *single).auc <= 1


def test_what_does_not_fit_is_refused():
    train, test = halves(20)
    with pytest.raises(UserError, match="10 classes; expected .* in 3"):
        run(untrained(num_labels=3), train, test)
    with pytest.raises(UserError, match="at least 2"):
        run(untrained(), train, replace(test, images=test.images[:1], labels=test.labels[:1]))


def test_from_files_to_file(tmp_path, monkeypatch):
    train, test = halves(32)
    tensors = {**flatten("raw", untrained().state_dict()), **flatten("ema", by_heart().state_dict())}
    flags = {name: tmp_path / "internal" / f"{name}.h5" for name in ("train", "test")}
    flags |= {"weights": tmp_path / "weights", "privacy": tmp_path / "privacy.json", "result": tmp_path / "internal/m"}
    Weights("diffusion", tensors, by_heart().describe(), {}, Provenance("finetune", 1)).write(flags["weights"])
    named = replace(STATEMENT.provenance, parents={"weights": sha256(flags["weights"])})
    replace(STATEMENT, provenance=named).write(flags["privacy"])
    train.write(flags["train"])
    test.write(flags["test"])
    flags["settings"] = json.dumps({"sigmas": [0.1, 0.3], "num_draws": 2})
    monkeypatch.setattr(sys, "argv", ["membership", *(str(p) for k, v in flags.items() for p in (f"--{k}", v))])
    membership.main()
    found = Membership.read(flags["result"])
    assert found.auc > 0.8 and not found.private  # of the averaged weights, not the raw ones
    assert found.provenance.parents == {name: sha256(flags[name]) for name in ("weights", "privacy")}
    STATEMENT.write(flags["privacy"])
    with pytest.raises(UserError, match="statement of another model"):
        membership.main()
