"""Latent diffusion, stage by stage: pretrained, trained privately in part, drawn from, released."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_model import DECLARED, NAMES, SMALL, images, mechanism

from privimage.artifacts import ArtifactError, ImageSet, Provenance, Subset, Weights
from privimage.compute import Compute
from privimage.diffusion.autoencoder_settings import AutoencoderSettings
from privimage.errors import UserError
from privimage.generators import GENERATORS, diffusion, latent
from privimage.generators.contract import Pretraining, PrivateTask
from privimage.privacy.ledger import Ledger
from privimage.privacy.randomness import SecretKey
from privimage.releasing.whitelist import check_safetensors
from privimage.settings import ComputeSettings, FinetuneSettings, PretrainSettings, SampleSettings

FINETUNE = FinetuneSettings(
    sampling_probability=0.3, num_steps=3, noise_levels_per_image=2, learning_rate=1e-2, lora_rank=2
)
AUTOENCODER = AutoencoderSettings(base_channels=4, latent_channels=2, num_steps=4, batch_size=8)
HOW = {"num_steps": 4, "batch_size": 8, "learning_rate": 1e-2, "ema_decay": 0.5}
PRETRAIN = latent.LatentPretrainSettings(
    network=replace(SMALL, attention_resolutions=(2,)), autoencoder=AUTOENCODER, **HOW
)
COMPUTE = Compute(ComputeSettings(microbatch_size=8))
PUBLIC_NAMES = ("a", "b", "c")


def public(num=30):
    rng = np.random.default_rng(1)
    return ImageSet(rng.integers(0, 256, (num, 8, 8, 1), np.uint8), np.arange(num) % 3, PUBLIC_NAMES, "public")


def task(settings=PRETRAIN, num=30):
    subset = Subset("whole" if num else "none", {}, Provenance("select", 1))
    return Pretraining(public(), np.arange(num), np.arange(num) % 3, PUBLIC_NAMES, subset, NAMES, settings, seed=0)


def kept(made, stage="finetune"):
    return Weights(made.kind, made.tensors, made.network, made.facts, Provenance(stage, 1))


@pytest.fixture(scope="module")
def pretrained() -> Weights:
    return kept(latent.pretrain(task()))


def private(pretrained, trained, **changes) -> PrivateTask:
    settings = replace(FINETUNE, trained=trained)
    return replace(PrivateTask(pretrained, images(), DECLARED, settings, 0, compute=COMPUTE), **changes)


def finetuned(module, of_task, key=None) -> Weights:
    how = mechanism(key, 8, of_task.settings)
    return kept(module.finetune(module.prepare(of_task), of_task, how, None)[0])


def moved(before: Weights, after: Weights, group="raw") -> set[str]:
    old, new = before.group("ema"), after.group(group)
    assert old.keys() == new.keys()
    return {name for name in old if old[name].shape != new[name].shape or not torch.equal(old[name], new[name])}


def test_pretraining_makes_a_model_of_latents_and_an_autoencoder_of_images(pretrained):
    assert pretrained.kind == latent.PRETRAINED
    assert (pretrained.network["resolution"], pretrained.network["channels"]) == (4, 2)
    assert pretrained.network["autoencoder"]["channels"] == 1
    assert {name.split(".")[0] for name in pretrained.tensors} == {"raw", "ema", "autoencoder"}
    again = kept(latent.pretrain(task()))
    assert again.identity == pretrained.identity


def test_the_autoencoder_learns_from_the_whole_public_set_whatever_is_selected(pretrained):
    few = latent.pretrain(replace(task(), index=np.arange(3), labels=np.arange(3)))
    whole, other = pretrained.group("autoencoder"), kept(few).group("autoencoder")
    assert all(torch.equal(whole[name], other[name]) for name in whole)
    assert moved(pretrained, kept(few), "ema")


def test_no_public_images_are_refused():
    with pytest.raises(UserError, match="needs public images"):
        latent.pretrain(task(num=0))


@pytest.mark.parametrize("factor, levels", [(4, 3), (8, 2)])
def test_images_that_cannot_be_halved_so_often_are_refused(factor, levels):
    network = replace(SMALL, channel_multipliers=(1,) * levels)
    settings = replace(PRETRAIN, network=network, autoencoder=replace(AUTOENCODER, factor=factor))
    with pytest.raises(UserError, match="cannot be halved"):
        latent.pretrain(task(settings))


def test_sensitive_images_of_another_shape_are_refused(pretrained):
    other = ImageSet(np.zeros((24, 4, 4, 1), np.uint8), np.arange(24) % 2, NAMES, "test")
    with pytest.raises(UserError, match="is for 8 pixels and 1 channels, the sensitive images have 4 and 1"):
        latent.prepare(private(pretrained, "all", images=other))


@pytest.mark.parametrize("trained", ["all", "attention", "lora"])
def test_private_training_moves_what_it_says_and_nothing_else(pretrained, trained):
    made = finetuned(latent, private(pretrained, trained))
    told = (".embed.", "embed_in.", "embed_out.", "label_embedding.", ".attention.")
    layers = (".query.weight", ".key.weight", ".value.weight", "out.weight", "embed.weight", "label_embedding.weight")
    for group in ("raw", "ema"):
        names = moved(pretrained, made, group)
        if trained == "attention":
            assert names == {name for name in made.group(group) if any(part in name for part in told)}
        if trained == "lora":
            assert names == {
                name for name in made.group(group) if name.endswith(layers) and any(part in name for part in told)
            } - {"network.embed_out.weight"}
        if trained == "all":
            assert names == set(made.group(group))
    before, after = pretrained.group("autoencoder"), made.group("autoencoder")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_the_key_decides_the_weights(pretrained):
    a, b, c = (finetuned(latent, private(pretrained, "lora"), SecretKey.from_seed(s)) for s in (0, 0, 1))
    assert a.identity == b.identity != c.identity


def test_dp_sgd_sees_latents(pretrained, monkeypatch):
    from privimage import private_training

    seen, real = [], private_training.per_image_loss

    def noted(model, batch):
        seen.append(batch.images.shape[1:])
        return real(model, batch)

    monkeypatch.setattr(private_training, "per_image_loss", noted)
    finetuned(latent, private(pretrained, "attention"))
    assert set(seen) == {(2, 4, 4)}


@pytest.mark.parametrize("directions", [0, 4])
def test_a_killed_release_of_adapters_is_replayed_to_the_same_weights(pretrained, tmp_path, monkeypatch, directions):
    from privimage import private_training

    settings = replace(FINETUNE, trained="lora", damped_directions=directions)
    of_task = private(pretrained, "lora", settings=settings, public=public() if directions else None)
    real = private_training._step

    def release(stop):
        def step(*args):
            if args[6] == stop:
                raise KeyboardInterrupt
            return real(*args)

        monkeypatch.setattr(private_training, "_step", step)
        monkeypatch.setattr(private_training, "SAVE_SECONDS", 0.0)
        with Ledger(tmp_path, "set", DECLARED).open("finetune", "f" * 32, "test") as opened:
            opened.reserve([latent.event(FINETUNE)], continuing=opened.reserved_steps > 0)
            how = mechanism(opened.key, 8, of_task.settings)
            made = latent.finetune(latent.prepare(of_task), of_task, how, opened)[0]
            return kept(made), finetuned(latent, of_task, opened.key)

    with pytest.raises(KeyboardInterrupt):
        release(2)
    resumed, undisturbed = release(None)
    assert resumed.identity == undisturbed.identity


def test_images_are_drawn_by_label_and_generator_alone(pretrained):
    made = finetuned(latent, private(pretrained, "attention"))
    drawer = latent.drawer(made, SampleSettings(num_steps=3), COMPUTE)
    assert drawer.shape == (8, 8, 1)
    labels = torch.tensor([0, 1, 1])
    a, b, c = (drawer.draw(labels, 0, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert a.shape == (3, 8, 8, 1)
    assert a.dtype == torch.uint8
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_latents_too_are_pushed_away_from_what_the_public_model_guesses(pretrained):
    made = finetuned(latent, private(pretrained, "attention"))
    settings = SampleSettings(num_steps=3, guidance="domain", guidance_scale=2.0)
    labels = torch.tensor([0, 1, 1])
    away_from_itself, away = (
        latent.drawer(made, settings, COMPUTE, public).draw(labels, 0, torch.Generator().manual_seed(0))
        for public in (None, pretrained)
    )
    assert not torch.equal(away_from_itself, away)


def test_the_model_may_be_released_and_nothing_beside_it(pretrained, tmp_path):
    made = replace(finetuned(latent, private(pretrained, "lora")), provenance=Provenance("finetune", 1))
    made.write(tmp_path / "model.safetensors")
    assert Weights.read(tmp_path / "model.safetensors", "latent-diffusion").identity == made.identity
    check_safetensors(tmp_path / "model.safetensors")
    for name, where in (("seen", made), ("autoencoder.seen", replace(made, network=_without_autoencoder(made)))):
        more = replace(where, tensors={**where.tensors, name: torch.zeros(1)})
        more.write(tmp_path / "more.safetensors")
        with pytest.raises(ArtifactError, match="expected raw and averaged weights"):
            check_safetensors(tmp_path / "more.safetensors")
    strange = {**made.network, "autoencoder": {**made.network["autoencoder"], "images": 1}}
    replace(made, network=strange).write(tmp_path / "more.safetensors")
    with pytest.raises(ArtifactError, match="not on the list"):
        check_safetensors(tmp_path / "more.safetensors")


def _without_autoencoder(made):
    return {name: value for name, value in made.network.items() if name != "autoencoder"}


@pytest.mark.parametrize("trained", ["attention", "lora"])
def test_pixels_too_may_be_trained_in_part(trained):
    settings = PretrainSettings(network=SMALL, **HOW)
    start = kept(diffusion.pretrain(task(settings)))
    made = finetuned(diffusion, private(start, trained))
    assert {name: value.shape for name, value in made.group("raw").items()} == {
        name: value.shape for name, value in made.group("ema").items()
    }
    assert moved(start, made) < set(start.group("ema"))
    drawer = diffusion.drawer(made, SampleSettings(num_steps=3), COMPUTE)
    assert drawer.draw(torch.tensor([0, 1]), 0, torch.Generator().manual_seed(0)).shape == (2, 8, 8, 1)


def test_the_table_knows_it_and_its_settings():
    assert GENERATORS["latent"] is latent
    assert latent.Settings().pretrain.autoencoder.factor == 2
    assert latent.event(FINETUNE) == diffusion.event(FINETUNE)
