"""The autoencoder: learns, codes each image by itself, gives latents their unit, resumes to the same weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gloo import in_processes

from privimage.artifacts import ArtifactError
from privimage.checkpoints import Checkpoint
from privimage.compute import DEFAULT
from privimage.diffusion import autoencoder, training
from privimage.diffusion.autoencoder import Autoencoder, autoencoder_from, new_autoencoder, train_autoencoder
from privimage.diffusion.autoencoder_settings import AutoencoderSettings
from privimage.diffusion.images import Images
from privimage.diffusion.loss import to_float
from privimage.distributed import ALONE

SETTINGS = AutoencoderSettings(
    base_channels=4, latent_channels=3, num_steps=6, batch_size=8, learning_rate=1e-2, ema_decay=0.9
)
SIGMA_DATA = 0.5


def pictures(num=40):
    """Squares of any place and grey on black: few numbers say all of them."""
    rng, made = np.random.default_rng(0), np.zeros((num, 8, 8, 1), np.uint8)
    for image in made:
        top, left = rng.integers(0, 5, 2)
        image[top : top + 4, left : left + 4] = rng.integers(100, 256)
    return made


def trained(folder=None, settings=SETTINGS, images=None, seed=0) -> Autoencoder:
    checkpoint = Checkpoint(folder, "x") if folder else None
    images = pictures() if images is None else images
    return train_autoencoder(
        images, settings, seed, sigma_data=SIGMA_DATA, horizontal_flip=False, checkpoint=checkpoint, compute=DEFAULT
    )


def floats(images):
    return to_float(torch.from_numpy(images))


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(factor, channels):
    settings = AutoencoderSettings(factor=factor, base_channels=4, latent_channels=3)
    made, x = new_autoencoder(settings, channels, 0), torch.zeros(2, channels, 16, 16)
    assert made.encode(x).shape == (2, 3, 16 // factor, 16 // factor)
    assert made.decode(made.encode(x)).shape == x.shape


@pytest.mark.slow
def test_reconstruction_improves_and_latents_have_their_unit():
    settings = AutoencoderSettings(base_channels=4, num_steps=80, batch_size=8, learning_rate=1e-2, ema_decay=0.9)
    x, made = floats(pictures()), trained(settings=settings)
    fresh = new_autoencoder(settings, 1, 0)
    before, after = ((m.decode(m.encode(x)) - x).square().mean().item() for m in (fresh, made))
    assert after < 0.2 * before
    latents = made.encode(x)
    torch.testing.assert_close(latents.std((0, 2, 3), correction=0), torch.full((4,), SIGMA_DATA), rtol=1e-4, atol=0)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-5)


def test_each_image_is_coded_by_itself():
    made, x = trained().double(), floats(pictures(6)).double()
    for code in (made.encode, lambda x: made.decode(made.encode(x))):
        whole = code(x)
        torch.testing.assert_close(torch.cat([code(x[i : i + 1]) for i in range(6)]), whole, rtol=1e-10, atol=1e-12)
        changed = x.clone()
        changed[3] = float("nan")
        after = code(changed)
        assert bool(after[3].isnan().any())
        rest = [0, 1, 2, 4, 5]
        torch.testing.assert_close(after[rest], whole[rest], rtol=1e-10, atol=1e-12)


def test_encoding_draws_nothing_and_trains_nothing():
    made, x = trained(), floats(pictures(4))
    assert torch.equal(made.encode(x), made.encode(x))
    assert not made.encode(x.requires_grad_()).requires_grad
    assert not any(p.requires_grad for p in made.parameters())


def test_images_arrive_as_latents_and_are_mirrored_before():
    made, images, flip = trained(), pictures(6), torch.tensor([True, False, True])
    data = Images(images, np.arange(6), torch.device("cpu"), made.encode)
    index = torch.tensor([4, 0, 2])
    latents, labels = data.at(index, flip)
    x = floats(images)[index]
    expected = made.encode(torch.stack([x[0].flip(2), x[1], x[2].flip(2)]))
    torch.testing.assert_close(latents, expected)
    assert labels.tolist() == index.tolist()


def test_same_seed_same_weights_another_seed_others():
    a, b, c = (trained(seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("stop", [3, "measured"])
def test_a_killed_training_resumes_to_the_same_weights(tmp_path, monkeypatch, stop):
    whole = trained(tmp_path / "whole").state_dict()
    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
    steps, real, unit = [], autoencoder.generator_for, autoencoder._to_unit

    def dies(seed, step, *rest, **how):
        steps.append(step)
        if step == stop and len(steps) == stop + 1:
            raise Killed
        return real(seed, step, *rest, **how)

    with monkeypatch.context() as patch:
        patch.setattr(autoencoder, "generator_for", dies)
        if stop == "measured":
            patch.setattr(autoencoder, "_to_unit", lambda *args: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            trained(tmp_path / "broken")
        patch.setattr(autoencoder, "_to_unit", unit)
        resumed = trained(tmp_path / "broken").state_dict()
        assert sorted(set(steps)) == list(range(6))
        assert len(steps) == (7 if stop == 3 else 6)
        again = trained(tmp_path / "broken").state_dict()  # finished: nothing is trained
        assert len(steps) == (7 if stop == 3 else 6)
    assert all(torch.equal(whole[name], resumed[name]) and torch.equal(whole[name], again[name]) for name in whole)


def test_it_is_built_again_from_its_description():
    made, x = trained(), floats(pictures(3))
    again = autoencoder_from(made.describe(), made.state_dict())
    assert torch.equal(made.encode(x), again.encode(x))
    with pytest.raises(ArtifactError, match="do not fit"):
        autoencoder_from({**made.describe(), "channels": 3}, made.state_dict())


def coded(group, folder):
    checkpoint = Checkpoint(folder, "x") if group.leads else None
    how = dict(sigma_data=SIGMA_DATA, horizontal_flip=True, checkpoint=checkpoint, compute=DEFAULT, group=group)
    return train_autoencoder(pictures(), replace(SETTINGS, learning_rate=1e-4), 0, **how).state_dict()


def test_two_processes_train_the_autoencoder_of_one(tmp_path):
    alone = coded(ALONE, tmp_path / "alone")
    for attempt in ("trained", "kept"):  # at the second time the leader has it, and tells the other
        one, other = in_processes(2, coded, tmp_path / "two")
        assert all(torch.equal(one[name], other[name]) for name in alone), attempt
        for name in alone:  # Adam makes whole steps of gradients that vanish but for their rounding
            torch.testing.assert_close(one[name], alone[name], rtol=1e-2, atol=2e-3)
