"""The generator `gan` by the contract: pretrained or not, started, trained privately, released, drawn from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_gan import NETWORK, SETTINGS
from small_model import DECLARED, NAMES, images

from privimage.artifacts import ImageSet, Provenance, Subset, Weights
from privimage.compute import Compute
from privimage.errors import UserError
from privimage.gan.settings import GanPretrainSettings
from privimage.generators import gan
from privimage.generators.contract import Pretraining, PrivateTask
from privimage.privacy.ledger import Ledger
from privimage.private_training import Mechanism
from privimage.releasing.whitelist import check_safetensors
from privimage.schema import plain
from privimage.settings import ComputeSettings, SampleSettings

LETTERS = ("a", "b", "c")
COMPUTE = Compute(ComputeSettings(microbatch_size=8))


def pretrained(names=LETTERS, num_images=30, policy="whole"):
    rng = np.random.default_rng(1)
    public = ImageSet(rng.integers(0, 256, (30, 8, 8, 1), np.uint8), np.arange(30) % len(names), names, "made")
    settings = GanPretrainSettings(network=NETWORK, num_steps=4, batch_size=8, discriminator_steps=2)
    index = np.arange(num_images)
    subset = Subset(policy=policy, classes={}, provenance=Provenance("select", 1))
    task = Pretraining(public, index, public.labels[index], names, subset, NAMES, settings, 0, None, COMPUTE)
    made = gan.pretrain(task)
    return Weights(made.kind, made.tensors, made.network, made.facts, Provenance("pretrain", 1))


def task(weights, data=None, declared=DECLARED):
    return PrivateTask(weights, data or images(), declared, SETTINGS, 0, None, COMPUTE)


def private(folder, weights):
    """The released weights, as the stage writes and reads them."""
    work = task(weights)
    start = gan.prepare(work)
    with Ledger(folder / "state", "set", DECLARED).open("finetune", "f" * 32, "test") as release:
        release.reserve([gan.event(SETTINGS)])
        mechanism = Mechanism(SETTINGS, 1.0, DECLARED.num_images, release.key, COMPUTE)
        made, curve = gan.finetune(start, work, mechanism, release)
    assert len(curve.rows) == SETTINGS.num_steps
    provenance = Provenance("finetune", 2, plain(SETTINGS))
    Weights(made.kind, made.tensors, made.network, made.facts, provenance).write(folder / "finetuned.safetensors")
    return Weights.read(folder / "finetuned.safetensors", gan.PRIVATE)


@pytest.mark.parametrize(
    "names, num_images, policy", [(LETTERS, 30, "whole"), (NAMES, 30, "query"), (NAMES, 0, "none")]
)
def test_from_public_images_to_drawn_ones(tmp_path, names, num_images, policy):
    weights = pretrained(names, num_images, policy)
    weights.write(tmp_path / "pretrained.safetensors")
    released = private(tmp_path, Weights.read(tmp_path / "pretrained.safetensors", gan.PRETRAINED))
    check_safetensors(tmp_path / "finetuned.safetensors")
    assert not any("discriminator" in name for name in released.tensors)
    drawer = gan.drawer(released, SampleSettings(), COMPUTE)
    labels = torch.arange(6) % 2
    a, b, c = (drawer.draw(labels, first, torch.Generator().manual_seed(s)) for first, s in ((0, 0), (6, 0), (0, 1)))
    assert drawer.shape == (8, 8, 1) and a.shape == (6, 8, 8, 1) and a.dtype == torch.uint8
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_without_public_images_the_networks_are_only_initialised():
    a, b = (pretrained(NAMES, num_images, "none").group("raw") for num_images in (0, 0))
    trained = pretrained(NAMES, 30, "query").group("raw")
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    assert not torch.equal(trained["discriminator.score.weight"], a["discriminator.score.weight"])


def test_what_does_not_fit_is_refused_before_anything_is_charged():
    weights = pretrained()
    grey = images()
    with pytest.raises(UserError, match="use one public row for both"):
        gan.prepare(task(weights, replace(grey, images=np.repeat(grey.images, 3, axis=3))))
    with pytest.raises(UserError, match="other classes than declared"):
        gan.prepare(task(weights, declared=replace(DECLARED, class_names=("p", "q"))))
    broken = replace(weights, tensors=dict(weights.tensors))
    broken.tensors["raw.discriminator.score.weight"] = torch.full((1, 8), float("nan"))
    with pytest.raises(UserError, match="not finite"):
        gan.prepare(task(broken))
