"""Pretraining learns, is decided by its seed, and resumes to the same weights."""

import numpy as np
import pytest
import torch

from privimage.checkpoints import Checkpoint
from privimage.compute import DEFAULT
from privimage.diffusion import training
from privimage.diffusion.denoiser import new_denoiser
from privimage.diffusion.loss import draw_noise, per_image_loss, to_float
from privimage.diffusion.training import optimizer_tensors, restore_optimizer
from privimage.errors import UserError
from privimage.settings import NetworkSettings, PretrainSettings

SMALL = NetworkSettings(base_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,))
SETTINGS = PretrainSettings(network=SMALL, num_steps=6, batch_size=8, learning_rate=1e-2, ema_decay=0.9)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 1), np.uint8)
    return images, np.arange(0, 40, 2), torch.from_numpy(rng.integers(0, 2, 20))


def run(data, folder, settings=SETTINGS, seed=0):
    model = new_denoiser(SMALL, 8, 1, 2, seed)
    return training.train(model, *data, settings, seed, Checkpoint(folder, "x"), DEFAULT).state_dict()


def test_same_seed_same_weights_another_seed_others(data, tmp_path):
    a, b, c = run(data, tmp_path / "a"), run(data, tmp_path / "b"), run(data, tmp_path / "c", seed=1)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_a_killed_run_resumes_to_the_same_weights(data, tmp_path, monkeypatch):
    whole = run(data, tmp_path / "whole")
    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
    steps, real = [], training._draw

    def dies(*args):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(training, "_draw", dies)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "broken")
    resumed = run(data, tmp_path / "broken")
    assert len(steps) == 4 + 3  # three steps were done, the fourth died, three were left
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_training_lowers_the_loss(tmp_path):
    images = torch.zeros(16, 8, 8, 1, dtype=torch.uint8)
    images[:, 2:6] = 255
    labels = torch.zeros(16, dtype=torch.int64)
    settings = PretrainSettings(network=SMALL, num_steps=60, batch_size=16, learning_rate=1e-2, ema_decay=0.5)
    model = new_denoiser(SMALL, 8, 1, 2, seed=0)
    batch = draw_noise(
        to_float(images), labels, levels=4, P_mean=-1.2, P_std=1.2, label_dropout=0, no_label=2,
        generator=torch.Generator().manual_seed(9),
    )  # fmt: skip
    before = per_image_loss(model, batch).mean().item()
    where = Checkpoint(tmp_path, "x")
    trained = training.train(model, images.numpy(), np.arange(16), labels, settings, 0, where, DEFAULT)
    assert per_image_loss(trained, batch).mean().item() < 0.5 * before


def test_a_run_that_diverges_is_refused(data, tmp_path):
    settings = PretrainSettings(network=SMALL, num_steps=3, batch_size=8, learning_rate=1e30, ema_decay=0.9)
    with pytest.raises(UserError, match="diverged"):
        run(data, tmp_path, settings)


@pytest.mark.gpu
def test_images_and_draws_follow_the_model_to_a_gpu(data, tmp_path):
    model = DEFAULT.place(new_denoiser(SMALL, 8, 1, 2, 0))
    trained = training.train(model, *data, SETTINGS, 0, Checkpoint(tmp_path, "x"), DEFAULT)
    assert all(p.is_cuda and bool(torch.isfinite(p).all()) for p in trained.parameters())


def test_only_the_images_of_the_index_are_used(data, tmp_path):
    images, index, labels = data
    others = images.copy()
    others[1::2] = 255  # the index has the even ones
    a, b = run(data, tmp_path / "a"), run((others, index, labels), tmp_path / "b")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_restored_moments_lie_in_memory_as_the_weights_do():
    """Fused kernels read both in the order in which they lie."""
    layer = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.randn(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    saved = {name: t.clone(memory_format=torch.contiguous_format) for name, t in optimizer_tensors(optimizer).items()}
    restore_optimizer(optimizer, saved)
    moment = optimizer.state[layer.weight]["exp_avg"]
    assert moment.stride() == layer.weight.stride()
    assert torch.equal(moment, saved["0.exp_avg"])
