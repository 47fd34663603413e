"""The inception score against its extremes and torch-fidelity."""

import numpy as np
import pytest
import torch

from privimage.metrics.inception_score import inception_score
from privimage.metrics.torchvision_cpu import prepare_torchvision


def test_sure_of_each_class_equally_often_is_the_number_of_classes():
    sure = np.tile(np.eye(4) * 1000, (50, 1))
    assert inception_score(sure) == pytest.approx((4, 0))


def test_one_answer_for_all_images_is_one():
    assert inception_score(np.tile([3.0, 1.0, -2.0], (40, 1))) == pytest.approx((1, 0))
    assert inception_score(np.tile([1e4, 0.0], (40, 1))) == pytest.approx((1, 0))


def test_agrees_with_torch_fidelity():
    prepare_torchvision()
    metric = pytest.importorskip("torch_fidelity.metric_isc")
    logits = np.random.default_rng(0).normal(size=(500, 7)) * 3
    theirs = metric.isc_features_to_metric(torch.tensor(logits), splits=10, shuffle=False)
    assert inception_score(logits) == pytest.approx(tuple(theirs.values()), rel=1e-9)


def test_few_images_still_have_a_score():
    assert inception_score(np.eye(3)) == pytest.approx((1, 0))  # a split of one image tells nothing
