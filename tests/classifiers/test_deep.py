"""The deep classifiers have the published sizes, take images of every size, and say what they said after each epoch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from privimage.artifacts import ImageSet
from privimage.classifiers import deep
from privimage.classifiers.deep import Shown, new_network, recipe, trained
from privimage.classifiers.inference import predictions
from privimage.classifiers.resnext import GroupedBlock
from privimage.classifiers.wide_resnet import WideBlock
from privimage.evaluation_settings import AccuracySettings, CifarResNetSettings, ResNeXtSettings, WideResNetSettings

SMALL = AccuracySettings(
    cnn_base_channels=2,
    cnn_num_epochs=3,
    cnn_batch_size=8,
    wrn=WideResNetSettings(depth=10, width=1, num_epochs=3, batch_size=8),
    resnet=CifarResNetSettings(depth=8, num_epochs=3, batch_size=8),
    resnext=ResNeXtSettings(depth=11, cardinality=2, base_width=2, num_epochs=3, batch_size=8),
)
NAMES = ("cnn", "wrn", "resnet", "resnext")


@pytest.mark.parametrize(
    "name, change, millions",
    [
        ("wrn", {}, 36.5),  # WRN-28-10, the default
        ("wrn", {"wrn": WideResNetSettings(depth=40, width=4)}, 8.9),
        ("resnet", {}, 0.85),  # ResNet-56
        ("resnext", {}, 34.4),  # ResNeXt-29, 8x64d
    ],
)
def test_published_sizes(name, change, millions):
    with torch.device("meta"):
        network = new_network(name, replace(AccuracySettings(), **change), channels=3, num_classes=10)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(
        millions, abs=0.05 if millions > 1 else 0.006
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("resolution, channels", [(8, 1), (28, 1), (32, 3), (64, 3)])
def test_scores_and_gradients_at_every_size(name, resolution, channels):
    network = new_network(name, SMALL, channels, num_classes=7)
    scores = network(torch.randn(2, channels, resolution, resolution))
    assert scores.shape == (2, 7)
    scores.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_a_wide_block_without_residual_is_the_identity():
    block, x = WideBlock(4, 4, 1), torch.randn(2, 4, 6, 6)
    torch.nn.init.zeros_(block.residual[-1].weight)
    torch.testing.assert_close(block(x), x)


def test_a_group_sees_its_own_channels_alone():
    block = GroupedBlock(4, 6, 4, groups=2, stride=1)
    assert block.residual[3].weight.shape == (6, 3, 3, 3)


def test_recipes_are_the_settings():
    assert recipe("cnn", SMALL).num_epochs == 3
    assert recipe("wrn", AccuracySettings()).batch_size == 128
    assert {recipe(name, AccuracySettings()).learning_rate for name in NAMES} == {0.1}


def some_images(n, seed=0):
    rng = np.random.default_rng(seed)
    return ImageSet(rng.integers(0, 256, (n, 8, 8, 1), np.uint8), rng.integers(0, 3, n), ("a", "b", "c"), "made")


@pytest.mark.parametrize("name", NAMES)
def test_the_history_holds_every_epoch_or_the_last(name):
    train, seen, asked = some_images(24), Shown.of(some_images(10, 1)), Shown.of(some_images(7, 2))
    every = trained(name, train, seen, asked, SMALL, seed=0, every_epoch=True)
    last = trained(name, train, None, asked, SMALL, seed=0, every_epoch=False)
    assert every.epochs == (1, 2, 3) and last.epochs == (3,)
    assert every.predicted.shape == (3, 7) and every.correct.shape == (3,) and last.correct.tolist() == [0]
    np.testing.assert_array_equal(every.predicted[-1], last.predicted[0])  # looking changes nothing


def test_an_image_s_answer_does_not_depend_on_its_company():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 50)).train()
    images = Shown.of(some_images(9))
    together = predictions(network, images.images)
    alone = [predictions(network, images.images[i : i + 1])[0] for i in range(9)]
    assert together.tolist() == alone and len(set(alone)) > 1
    assert not network.training


def test_right_answers_are_counted(monkeypatch):
    shown = Shown.of(some_images(9))
    monkeypatch.setattr(deep, "predictions", lambda *_: np.zeros(9, np.int64))
    assert shown.right_answers(None) == (shown.labels == 0).sum()
