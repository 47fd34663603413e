"""DP-SGD on the discriminator: a pair moves the sum by at most C, noise is drawn once a step, a crash is replayed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_gan import SETTINGS, mechanism, pair, values
from small_model import DECLARED, images

from privimage import private_gan_training as training
from privimage.compute import Compute
from privimage.diffusion.images import Images
from privimage.diffusion.keyed_noise import normals
from privimage.privacy.event import Event
from privimage.privacy.ledger import Ledger
from privimage.privacy.randomness import SecretKey
from privimage.settings import ComputeSettings


def ended(key=None, num_labels=2, **how):
    """The averaged generator after all steps."""
    data = images()
    data = replace(data, labels=data.labels % num_labels)
    return training.run(pair(num_labels), data, mechanism(key, **how))[1]


def as_in_training(made):
    made.train().generator.eval()
    return made


def clipped_sum(made, data, index, how, step=0):
    total, losses = training.gradient_sum(made, data, np.array(index), how, 3, step)
    return torch.cat([value.flatten() for value in total.values()]), losses


@pytest.mark.parametrize("clip_norm", [1e-3, 1.0])
def test_adding_one_image_moves_the_sum_by_at_most_the_clipping_norm(clip_norm):
    made, data = as_in_training(pair()), Images(images().images, images().labels, torch.device("cpu"))
    how = mechanism(settings=replace(SETTINGS, clip_norm=clip_norm))
    whole, _ = clipped_sum(made, data, range(12), how)
    for left_out in (0, 5, 11):
        without, _ = clipped_sum(made, data, [i for i in range(12) if i != left_out], how)
        moved = float((whole - without).norm())
        assert 0 < moved <= clip_norm
    assert float(whole.norm()) > clip_norm  # or the bound would say nothing


@pytest.mark.parametrize("engine", ["fast", "opacus"])
def test_the_sum_is_that_of_pairs_differentiated_one_by_one(engine):
    made, data, how = as_in_training(pair()), Images(images().images, images().labels, torch.device("cpu")), mechanism()
    how = replace(how, compute=Compute(ComputeSettings(engine=engine, precision="float32")))
    found, _ = clipped_sum(made, data, range(5), how)
    wanted = torch.zeros_like(found)
    for index in range(5):
        real, label = data.at(torch.tensor([index]))
        real = real.clone(memory_format=torch.contiguous_format)  # the library's own group norm needs it
        z = normals(how.key.seed("made images", 0), torch.tensor([index]), 0, 8)
        scores = [made.discriminator(x, label) for x in (real, made.generator(z, label).detach())]
        loss = torch.relu(1 - scores[0]) + torch.relu(1 + scores[1])
        gradient = torch.autograd.grad(loss.sum(), list(made.discriminator.parameters()))
        flat = torch.cat([g.flatten() for g in gradient]).double()
        wanted += flat * min(1.0, float(how.settings.clip_norm / flat.norm()))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_pair_does_not_depend_on_the_other_images_of_the_sample_nor_do_the_weights_of_the_generator_change():
    made, data, how = as_in_training(pair()), Images(images().images, images().labels, torch.device("cpu")), mechanism()
    before = values(made)
    _, together = clipped_sum(made, data, range(12), how)
    alone = torch.cat([clipped_sum(made, data, [i], how)[1] for i in range(12)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(values(made), before)
    _, later = clipped_sum(made, data, range(12), how, step=1)
    assert not torch.allclose(together, later)  # other made images


def test_an_empty_sample_is_noise_alone_once_with_the_standard_deviation_that_is_accounted():
    made, how = as_in_training(pair()), mechanism(settings=replace(SETTINGS, sampling_probability=1e-9, clip_norm=0.5))
    data = Images(images().images, images().labels, torch.device("cpu"))
    expected = how.settings.sampling_probability * how.num_images
    drawn, row = training.private_gradient(made, data, replace(how, noise_multiplier=3.0), 4, 0)
    noise = torch.cat([value.flatten() for value in drawn.values()]) * expected
    assert row == (0, 0.0, 0)
    assert float(noise.std()) == pytest.approx(3.0 * 0.5, rel=0.05)
    again, _ = training.private_gradient(made, data, replace(how, noise_multiplier=3.0), 4, 1)
    assert not any(torch.equal(drawn[name], again[name]) for name in drawn)


@pytest.mark.slow
def test_the_key_decides_the_weights():
    a, b, c = (ended(SecretKey.from_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(values(a), values(b))
    assert not torch.equal(values(a), values(c))


def test_microbatches_do_not_change_the_result():
    torch.testing.assert_close(values(ended()), values(ended(microbatch_size=3)), rtol=1e-2, atol=1e-3)


def test_a_single_class_is_trained_without_labels():
    made = ended(num_labels=1)
    assert made.label_embedding is None
    assert bool(torch.isfinite(values(made)).all())


def test_the_generator_moves_only_when_it_is_due():
    before = pair().generator.conv_out.parametrizations.weight.original.clone()
    for steps, moves in ((7, False), (6, True)):
        settings = replace(SETTINGS, discriminator_steps=steps)
        found = training.run(pair(), images(), mechanism(settings=settings))[0]
        assert torch.equal(found.conv_out.parametrizations.weight.original, before) != moves


class Killed(BaseException):
    pass


def start(folder, monkeypatch, executed, stop=None, save_seconds=0.0, microbatch_size=64):
    """One start of a release in the folder, killed before step ``stop``; returned is what it ended with, and should."""
    real = training.private_gradient

    def step(*args):
        if args[4] == stop:
            raise Killed
        executed.append(args[4])
        return real(*args)

    monkeypatch.setattr(training, "private_gradient", step)
    monkeypatch.setattr("privimage.private_training.SAVE_SECONDS", save_seconds)
    try:
        with Ledger(folder, "set", DECLARED).open("finetune", "f" * 32, "test") as release:
            event = Event("poisson_gaussian", 1.0, SETTINGS.sampling_probability, SETTINGS.num_steps)
            release.reserve([event], continuing=release.reserved_steps > 0)
            made = training.run(pair(), images(), mechanism(release.key, microbatch_size), release)[:2]
            done = len(executed)
            undisturbed = training.run(pair(), images(), mechanism(release.key, microbatch_size))[:2]
            del executed[done:]
            return made, undisturbed
    except Killed:
        return None
    finally:
        monkeypatch.setattr(training, "private_gradient", real)


@pytest.mark.parametrize("stop, save_seconds", [(0, 0.0), (3, 0.0), (5, 0.0), (5, 1e9)])
def test_a_killed_run_is_replayed_to_the_same_weights(tmp_path, monkeypatch, stop, save_seconds):
    executed = []
    assert start(tmp_path, monkeypatch, executed, stop, save_seconds) is None
    resumed, undisturbed = start(tmp_path, monkeypatch, executed)
    for a, b in zip(resumed, undisturbed):
        assert torch.equal(values(a), values(b))
    assert len(Ledger(tmp_path, "set", DECLARED).odometer()) == 1


def test_where_steps_cannot_be_replayed_they_are_skipped(tmp_path, monkeypatch):
    executed = []
    start(tmp_path, monkeypatch, executed, stop=4, save_seconds=1e9)
    start(tmp_path, monkeypatch, executed, microbatch_size=7)
    assert executed == [0, 1, 2, 3, 5]  # step 4 was reserved before the kill
