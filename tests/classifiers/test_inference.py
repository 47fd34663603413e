"""Conversion of pixels, and batches that change nothing."""

import numpy as np
import torch
from torch import nn

from privimage.artifacts import ImageSet
from privimage.classifiers import inference


def test_pixels_map_to_minus_one_and_one_and_keep_their_place():
    images = np.zeros((1, 2, 2, 3), np.uint8)
    images[0, 0, 1, 2] = 255
    x = inference.to_float(images)
    assert x.shape == (1, 3, 2, 2)
    assert x[0, 2, 0, 1] == 1
    assert (x == -1).sum() == 11
    assert torch.equal(x, inference.to_float(torch.from_numpy(images)))


def test_batches_change_nothing(monkeypatch):
    monkeypatch.setattr(inference, "BATCH_SIZE", 3)
    images = np.arange(7 * 4, dtype=np.uint8).reshape(7, 2, 2, 1)
    got = inference.in_batches(lambda x: x.sum(dim=(1, 2, 3)), images, torch.device("cpu"))
    torch.testing.assert_close(got, inference.to_float(images).sum(dim=(1, 2, 3)))


def test_accuracy_counts_the_largest_score():
    images = np.array([0, 0, 0, 255, 255], np.uint8).reshape(5, 1, 1, 1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))  # black is class 0, white is class 1
        network[1].bias.zero_()
    labels = np.array([0, 0, 1, 1, 1])
    assert inference.accuracy(network, ImageSet(images, labels, ("black", "white"), "made")) == 4 / 5
    assert not network.training
