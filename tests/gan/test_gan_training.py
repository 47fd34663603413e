"""Training on public images: it learns what each class looks like, and resumes to the same weights."""

import numpy as np
import pytest
import torch
from small_gan import NETWORK, pair, values

from privimage.checkpoints import Checkpoint
from privimage.compute import Compute
from privimage.errors import UserError
from privimage.gan import training
from privimage.gan.settings import GanPretrainSettings

FLAT = np.repeat(np.array([40, 215], np.uint8), 32)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8)
LABELS = torch.arange(2).repeat_interleave(32)
SETTINGS = GanPretrainSettings(network=NETWORK, num_steps=12, batch_size=16, discriminator_steps=2, ema_decay=0.9)


def trained(settings=SETTINGS, checkpoint=None, made=None):
    made = made or pair()
    ema = training.train(made, FLAT, np.arange(64), LABELS, settings, 0, checkpoint, Compute())
    return made, ema


@pytest.mark.slow
def test_two_flat_colours_are_learnt_each_under_its_label():
    rates = {"generator_learning_rate": 1e-2, "discriminator_learning_rate": 1e-2}
    settings = GanPretrainSettings(**{**SETTINGS.__dict__, "num_steps": 80, "batch_size": 32, **rates})
    ema = trained(settings)[1]
    with torch.no_grad():
        images = ema(torch.randn(64, 8, generator=torch.Generator().manual_seed(1)), LABELS)
    dark, light = images[:32].mean(), images[32:].mean()
    assert float(dark) == pytest.approx(40 / 127.5 - 1, abs=0.35)
    assert float(light) == pytest.approx(215 / 127.5 - 1, abs=0.35)


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
    undisturbed = trained()
    real, calls = training._discriminator_step, []

    def step(*args):
        calls.append(args)
        if len(calls) == 8:
            raise Killed
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_discriminator_step", step)
        checkpoint = Checkpoint(tmp_path, "name")
        with pytest.raises(Killed):
            trained(checkpoint=checkpoint)
    resumed = trained(checkpoint=checkpoint)
    for a, b in zip(undisturbed, resumed):
        assert torch.equal(values(a), values(b))


def test_a_step_of_one_network_leaves_the_other_as_it_is():
    made = pair()
    optimizer = training.adam(made, SETTINGS, fused=False)
    before = values(made.discriminator)
    gradient = training.generator_gradient(made, torch.randn(4, 8), torch.arange(4) % 2, Compute())
    training.step_generator(made, optimizer, gradient)
    assert torch.equal(values(made.discriminator), before)
    assert all(p.grad is None for p in made.parameters())


def test_the_hinge_loss_is_zero_where_scores_are_beyond_one_and_pairs_stand_side_by_side():
    def scores(x, labels):
        assert labels.tolist() == [0, 0, 1, 1]
        return x[:, 0, 0, 0]

    real, made = (torch.tensor(v)[:, None, None, None] for v in ([2.0, 0.5], [-3.0, 0.25]))
    assert training.discriminator_loss(scores, real, made, torch.tensor([0, 1])).tolist() == [0.0, 0.5 + 1.25]


def test_training_that_diverges_is_told():
    made = pair()
    with torch.no_grad():
        made.discriminator.score.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="pretraining diverged before step 12"):
        trained(made=made)
