"""The loss against a plain loop over images and noise levels."""

import numpy as np
import pytest
import torch

from privimage.diffusion.denoiser import new_denoiser
from privimage.diffusion.loss import draw_noise, per_image_loss, to_float
from privimage.settings import NetworkSettings

SMALL = NetworkSettings(base_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,))


def drawn(num, levels, dropout=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(num, 1, 8, 8, generator=generator) * 2 - 1
    labels = torch.randint(3, (num,), generator=generator)
    return draw_noise(
        images, labels, levels=levels, P_mean=-1.2, P_std=1.2, label_dropout=dropout, no_label=3, generator=generator
    )


def test_bytes_become_floats_between_minus_one_and_one():
    x = to_float(torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2, 1))
    assert x.shape == (1, 1, 1, 2)
    assert x.flatten().tolist() == [-1, 1]


@pytest.mark.parametrize("levels", [1, 4])
def test_loss_equals_a_loop_over_images_and_levels(levels):
    model, batch = new_denoiser(SMALL, 8, 1, 3, seed=0), drawn(3, levels)
    expected = []
    for i in range(3):
        terms = []
        for k in range(levels):
            s = batch.sigma[i, k]
            guess = model((batch.images[i] + s * batch.noise[i, k])[None], s[None], batch.labels[i : i + 1])
            weight = (s**2 + SMALL.sigma_data**2) / (s * SMALL.sigma_data) ** 2
            terms.append(weight * (guess[0] - batch.images[i]).square().mean())
        expected.append(torch.stack(terms).mean())
    torch.testing.assert_close(per_image_loss(model, batch), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_noise_levels_are_log_normal_and_labels_drop_as_often_as_asked():
    batch = drawn(20_000, 2, dropout=0.25)
    log_sigma = batch.sigma.log().flatten().numpy()
    assert np.mean(log_sigma) == pytest.approx(-1.2, abs=0.03)
    assert np.std(log_sigma) == pytest.approx(1.2, abs=0.03)
    assert (batch.labels == 3).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_an_empty_batch_has_no_losses():
    model = new_denoiser(SMALL, 8, 1, 3, seed=0)
    assert per_image_loss(model, drawn(1, 2)).shape == (1,)
    batch = type(drawn(1, 2))(*(tensor[:0] for tensor in drawn(1, 2)))
    assert per_image_loss(model, batch).shape == (0,)
