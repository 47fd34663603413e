"""The deep classifiers that measure how useful images are: by name, each with its recipe, measured after each epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from privimage.artifacts import ImageSet
from privimage.classifiers.cifar_resnet import CifarResNet
from privimage.classifiers.inference import predictions
from privimage.classifiers.resnet9 import ResNet9
from privimage.classifiers.resnext import ResNeXt
from privimage.classifiers.training import Recipe, Trainer, initialised
from privimage.classifiers.wide_resnet import WideResNet
from privimage.device import default_device
from privimage.evaluation_settings import AccuracySettings, DeepSettings

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4  # of the paper's evaluation, and of the wide networks' publication


@dataclass(frozen=True)
class Shown:
    """Images that a classifier is asked about, on the device: read and moved once for all that are asked.

    Shapes: ``images`` uint8 [N, H, W, C]; ``labels`` int64 [N], not on the device.
    """

    images: Tensor
    labels: np.ndarray

    @classmethod
    def of(cls, images: ImageSet) -> Shown:
        """All of the images."""
        return cls(torch.from_numpy(np.array(images.images)).to(default_device()), images.labels)

    def right_answers(self, network: nn.Module) -> int:
        """How many images get their label; one image more or less changes that by one at most."""
        return int(np.count_nonzero(predictions(network, self.images) == self.labels))


@dataclass(frozen=True)
class History:
    """What one training gave after each of the ``epochs`` that were looked at, counted from 1.

    Shapes: ``correct`` int64 [E], validation images that got their label; ``predicted`` int16 [E, test images].
    """

    epochs: tuple[int, ...]
    correct: np.ndarray
    predicted: np.ndarray


def trained(
    name: str,
    train: ImageSet,
    validation: Shown | None,
    test: Shown,
    settings: AccuracySettings,
    seed: int,
    every_epoch: bool,
) -> History:
    """The history of one training, of every epoch or the last alone; without validation images none gets any right."""
    channels, num_classes = train.images.shape[3], len(train.class_names)
    network = initialised(lambda: new_network(name, settings, channels, num_classes), seed)
    how = recipe(name, settings)
    epochs, correct, predicted = [], [], []
    for epoch in Trainer(network, train, how, seed).epochs(name):
        if every_epoch or epoch == how.num_epochs:
            epochs.append(epoch)
            correct.append(0 if validation is None else validation.right_answers(network))
            predicted.append(predictions(network, test.images).astype(np.int16))
    return History(tuple(epochs), np.array(correct), np.stack(predicted))


def new_network(name: str, settings: AccuracySettings, channels: int, num_classes: int) -> nn.Module:
    """The network of that name, untrained."""
    s = settings
    if name == "cnn":
        return ResNet9(s.cnn_base_channels, channels, num_classes)
    if name == "wrn":
        return WideResNet(s.wrn.depth, s.wrn.width, channels, num_classes)
    if name == "resnet":
        return CifarResNet(s.resnet.depth, channels, num_classes)
    if name == "resnext":
        return ResNeXt(s.resnext.depth, s.resnext.cardinality, s.resnext.base_width, channels, num_classes)
    raise ValueError(f"there is no classifier {name!r}")


def recipe(name: str, settings: AccuracySettings) -> Recipe:
    """How the network of that name is trained."""
    if name == "cnn":
        how = DeepSettings(
            num_epochs=settings.cnn_num_epochs,
            batch_size=settings.cnn_batch_size,
            learning_rate=settings.cnn_learning_rate,
        )
    else:
        how = getattr(settings, name)
    return Recipe(
        num_epochs=how.num_epochs,
        batch_size=how.batch_size,
        learning_rate=how.learning_rate,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        horizontal_flip=settings.horizontal_flip,
    )
