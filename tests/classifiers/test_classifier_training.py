"""The trainer learns, depends on its seed alone, does the published update, goes on where it stopped."""

import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from privimage.artifacts import ImageSet
from privimage.classifiers.inference import accuracy, to_float
from privimage.classifiers.resnet9 import ResNet9
from privimage.classifiers.training import Recipe, Trainer, initialised
from privimage.errors import UserError

RECIPE = Recipe(4, batch_size=16, learning_rate=0.05, momentum=0.9, weight_decay=5e-4, horizontal_flip=True)


def stripes(n, seed=0):
    """Noisy horizontal (class 0) and vertical (class 1) stripes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    bars = np.where(np.arange(8) % 4 < 2, 180, 60)
    images = np.where(labels[:, None, None] == 0, bars[None, :, None], bars[None, None, :])
    noisy = np.clip(images + rng.normal(0, 30, (n, 8, 8)), 0, 255).astype(np.uint8)
    return ImageSet(noisy[..., None], labels, ("horizontal", "vertical"), "made")


def fresh(seed=0):
    return initialised(lambda: ResNet9(2, 1, 2), seed)


def trained(recipe=RECIPE, seed=0, images=None):
    network = fresh(seed)
    for _ in Trainer(network, images or stripes(50), recipe, seed).epochs("test"):
        pass
    return network.state_dict()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns():
    network = fresh()
    epochs = list(Trainer(network, stripes(200), RECIPE, 0).epochs("test"))
    assert epochs == [1, 2, 3, 4]
    assert accuracy(network, stripes(100, seed=1)) > 0.95


def test_same_seed_same_weights_and_no_global_seed():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = trained()
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert same(first, trained())
    assert not same(first, trained(seed=1))


def test_flips_are_a_setting():
    assert not same(trained(), trained(replace(RECIPE, horizontal_flip=False)))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_stopped_and_resumed_is_the_same_as_never_stopped(momentum):
    recipe, images = replace(RECIPE, momentum=momentum), stripes(50)
    stopped = Trainer(fresh(), images, recipe, 0)
    epochs = stopped.epochs("test")
    next(epochs), next(epochs)
    tensors = {name: tensor.clone() for name, tensor in stopped.tensors().items()}
    resumed = Trainer(fresh(seed=9), images, recipe, 0)
    resumed.restore(tensors, stopped.step)
    assert list(resumed.epochs("test")) == [3, 4]
    assert same(resumed.network.state_dict(), trained(recipe, images=images))


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_stopped_within_an_epoch_it_goes_on_there(stop):
    recipe, images = replace(RECIPE, batch_size=16, horizontal_flip=True), stripes(50)  # four steps an epoch
    kept = {}

    def keep():
        if stopped.step == stop:
            kept.update({name: tensor.clone() for name, tensor in stopped.tensors().items()})

    stopped = Trainer(fresh(), images, recipe, 0)
    list(stopped.epochs("test", within=keep))
    resumed = Trainer(fresh(seed=9), images, recipe, 0)
    resumed.restore(kept, stop)
    list(resumed.epochs("test"))
    assert same(resumed.network.state_dict(), stopped.network.state_dict())


def test_update_is_momentum_with_a_cosine_to_zero():
    """Written out by hand, on whole batches of a linear model, whose result does not depend on order."""
    images, recipe = stripes(12), Recipe(5, 100, 0.1, 0.9, 0.01, horizontal_flip=False)
    network = initialised(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False)), 3)
    weight = network[1].weight.detach().clone().requires_grad_()
    x, labels = to_float(images.images).flatten(1), torch.from_numpy(images.labels)
    velocity = torch.zeros_like(weight)
    for step in range(5):
        (gradient,) = torch.autograd.grad(F.cross_entropy(x @ weight.T, labels), weight)
        velocity = 0.9 * velocity + gradient + 0.01 * weight.detach()
        rate = 0.1 * 0.5 * (1 + math.cos(math.pi * step / 5))
        weight = (weight.detach() - rate * velocity).requires_grad_()
    for _ in Trainer(network, images, recipe, 3).epochs("test"):
        pass
    torch.testing.assert_close(network[1].weight, weight)


def test_every_image_is_seen_once_an_epoch_in_nearly_equal_batches():
    seen = []

    class Spy(nn.Linear):
        def forward(self, x):
            seen.append(x[:, 0, 0, 0].clone())
            return super().forward(x.flatten(1))

    pixels = np.arange(33, dtype=np.uint8).reshape(33, 1, 1, 1)
    images = ImageSet(pixels, np.zeros(33, np.int64), ("a", "b"), "made")
    network = initialised(lambda: Spy(1, 2), 0)
    list(Trainer(network, images, replace(RECIPE, num_epochs=2), 0).epochs("test"))
    assert [len(batch) for batch in seen] == [11, 11, 11] * 2
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert torch.equal(first.sort().values, to_float(pixels).flatten())
    assert torch.equal(first.sort().values, second.sort().values)
    assert not torch.equal(first, second)


def test_a_loss_that_explodes_is_refused():
    with pytest.raises(UserError, match="lower its learning rate"):
        trained(replace(RECIPE, learning_rate=1e30))


def test_a_set_of_many_gigabytes_is_trained_on_without_being_copied(tmp_path):
    """The file is sparse: its pages cost nothing until they are read, and a copy of it would not fit here."""
    count = 5_000_000_000 // (64 * 64 * 3) * 10
    path = tmp_path / "pixels"
    path.touch()
    os.truncate(path, count * 64 * 64 * 3)  # 50 GB
    pixels = np.memmap(path, np.uint8, "r", shape=(count, 64, 64, 3))
    images = ImageSet(pixels, np.zeros(count, np.int64), ("a", "b"), "made")
    trainer = Trainer(initialised(lambda: ResNet9(2, 3, 2), 0), images, replace(RECIPE, batch_size=8), 0)
    assert trainer.pixels is pixels
    trainer.generator = torch.Generator()
    trainer._step(torch.tensor([0, count - 1]), 0.0)
