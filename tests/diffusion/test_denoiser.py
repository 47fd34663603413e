"""The preconditioner against its definition; artifacts rebuild the network; labels are adopted."""

import pytest
import torch

from privimage.artifacts import ArtifactError, Provenance, Weights
from privimage.checkpoints import flatten
from privimage.diffusion.denoiser import adopt_labels, denoiser_from, forget_labels, new_denoiser
from privimage.settings import NetworkSettings

SMALL = NetworkSettings(base_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,))


def artifact(model):
    return Weights("diffusion", flatten("ema", model.state_dict()), model.describe(), {}, Provenance("pretrain", 1))


def test_at_little_noise_the_image_is_kept_and_at_much_noise_it_is_forgotten():
    model, x = new_denoiser(SMALL, 8, 1, 2, seed=0), torch.randn(4, 1, 8, 8)
    labels = torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(model(x, torch.full((4,), 1e-4), labels), x, atol=1e-3, rtol=0)
    assert model(1e4 * x, torch.full((4,), 1e4), labels).abs().max() < 1e-2  # the network starts at nothing


def test_input_to_the_network_has_unit_variance_at_every_noise_level():
    seen = {}
    model = new_denoiser(SMALL, 8, 1, 2, seed=0)
    model.network.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    for sigma in (0.01, 0.5, 10.0):
        clean = SMALL.sigma_data * torch.randn(512, 1, 8, 8, generator=torch.Generator().manual_seed(3))
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(4))
        model(clean + sigma * noise, torch.full((512,), sigma), torch.zeros(512, dtype=torch.int64))
        assert seen["x"].std().item() == pytest.approx(1, abs=0.02)


def test_seed_alone_decides_the_weights_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    a, b, c = (new_denoiser(SMALL, 8, 1, 2, seed=s).state_dict() for s in (7, 7, 8))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_artifact_rebuilds_the_network():
    model = new_denoiser(SMALL, 8, 1, 2, seed=1)
    again = denoiser_from(artifact(model), "ema")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_weights_that_do_not_fit_are_refused():
    model = new_denoiser(SMALL, 8, 1, 2, seed=1)
    with pytest.raises(ArtifactError, match="do not fit"):
        denoiser_from(artifact(model), "raw")


def test_adopted_labels_start_at_the_mean_and_the_rest_is_kept():
    old = new_denoiser(SMALL, 8, 1, 5, seed=1)
    new = adopt_labels(old, 3)
    before = old.network.label_embedding.weight
    after = new.network.label_embedding.weight
    assert after.shape == (4, 8)
    for row in after[:3]:
        torch.testing.assert_close(row, before[:5].mean(0))
    torch.testing.assert_close(after[3], before[5])
    assert torch.equal(old.network.conv_in.weight, new.network.conv_in.weight)


def test_adopted_labels_may_start_at_the_mean_of_those_they_come_from():
    old = new_denoiser(SMALL, 8, 1, 5, seed=1)
    before = old.network.label_embedding.weight
    after = adopt_labels(old, 2, [[0, 3], [4]]).network.label_embedding.weight
    torch.testing.assert_close(after, torch.stack([(before[0] + before[3]) / 2, before[4], before[5]]))


def test_forgotten_labels_are_no_label():
    model = new_denoiser(SMALL, 8, 1, 3, seed=1)
    last = model.network.label_embedding.weight[-1].clone()
    forget_labels(model)
    assert torch.equal(model.network.label_embedding.weight, last.expand(4, -1))
