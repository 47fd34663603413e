"""Synthetic images: how many, which labels, reproducible, never all in memory; bytes are rounded, not cut."""

import json
import tempfile
import tracemalloc
import weakref
from dataclasses import replace
from pathlib import Path

import h5py  # noqa: F401, before memory is traced: its own code counts otherwise
import numpy as np
import pytest
import torch
from small_model import DECLARED

from privimage import kept, sample
from privimage.artifacts import ImageSet, Provenance, Weights, sha256
from privimage.checkpoints import Checkpoint, flatten
from privimage.compute import DEFAULT
from privimage.diffusion.denoiser import new_denoiser
from privimage.diffusion.drawing import drawer_of, public_guide, to_bytes
from privimage.diffusion.sampler import SAMPLERS, noise_levels
from privimage.errors import UserError
from privimage.privacy import accounting
from privimage.privacy.event import Event
from privimage.schema import plain
from privimage.settings import NetworkSettings, SampleSettings

SMALL = NetworkSettings(base_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,))


def model_of(channels=1, num_labels=3, seed=1):
    return trembling(new_denoiser(SMALL, 8, channels, num_labels, seed), seed)


def trembling(model, seed):
    """No layer of it is zero, as some are where training starts."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data += 0.05 * torch.randn(p.shape, generator=generator)
    return model


def run(seed=0, channels=1, names=("x", "y", "z"), public=None, **changes):
    model = model_of(channels, len(names))
    settings = SampleSettings(**{"num_images": 20, "num_steps": 3, **changes})
    with tempfile.TemporaryDirectory() as folder:
        drawer = drawer_of(model, settings, DEFAULT, public)
        made, stretches = sample.run(drawer, list(names), settings, seed, Checkpoint(Path(folder), "test"))
        stretches = list(stretches)
    starts, batches = zip(*stretches)
    assert list(starts) == list(range(0, settings.num_images, settings.batch_size))
    return replace(made, images=np.concatenate(batches))


class Grey(torch.nn.Module):
    """A denoiser that costs nothing and sees nothing but grey."""

    resolution, channels, num_labels = 32, 3, 10

    def forward(self, x, sigma, labels):
        return torch.zeros_like(x)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_as_many_images_as_asked_with_uniform_labels(sampler, channels):
    made = run(sampler=sampler, channels=channels, batch_size=7)
    assert made.images.shape == (20, 8, 8, channels)
    assert made.counts == [7, 7, 6]
    assert made.source == "synthetic"


def test_one_class_has_no_labels_to_speak_of():
    assert run(names=("all",), guidance_scale=0.0).counts == [20]


def test_guidance_away_from_a_public_model_that_is_the_private_one_is_classifier_free():
    pushed = run(guidance_scale=1.0)
    assert np.array_equal(run(guidance_scale=1.0, public=model_of()).images, pushed.images)
    other = run(guidance_scale=1.0, public=model_of(num_labels=5, seed=2))  # labels of its own
    assert not np.array_equal(other.images, pushed.images) and not np.array_equal(run().images, pushed.images)


def test_guidance_at_levels_that_no_step_has_changes_nothing():
    nowhere = {"guidance_sigma_min": 81.0, "guidance_sigma_max": 90.0}
    assert np.array_equal(run(guidance_scale=1.0, **nowhere).images, run().images)
    low, all_levels = run(guidance_scale=1.0, guidance_sigma_max=1.0), run(guidance_scale=1.0)
    assert not np.array_equal(low.images, run().images) and not np.array_equal(low.images, all_levels.images)


DOMAIN = SampleSettings(num_images=20, num_steps=3, batch_size=5, guidance="domain", guidance_scale=0.5)


def written(path, num_images, seed=1):
    model = model_of(seed=seed)
    facts = {"class_names": ["x", "y", "z"], "policy": "query", "num_images": num_images}
    Weights("diffusion", flatten("ema", model.state_dict()), model.describe(), facts, Provenance("x", 1)).write(path)
    return path


def release_of(folder, num_images=7):
    """The files of one release: the private model, the public one that it started from, and the statement."""
    paths = written(folder / "private", 0), written(folder / "public", num_images, seed=2), folder / "privacy.json"
    parents = {"weights": sha256(paths[0]), "pretrained": sha256(paths[1])}
    event = Event("poisson_gaussian", 1.0, 0.3, 6)
    accounting.statement([event], DECLARED, 10.0, Provenance("finetune", 1, {}, parents)).write(paths[2])
    return paths


def test_the_public_model_is_the_one_of_the_statement(tmp_path):
    private, public, privacy = release_of(tmp_path)
    model, parents = sample.guide("diffusion", private, public, privacy, DOMAIN)
    assert public_guide(model).num_labels == 3 and parents == {"pretrained": sha256(public)}
    for changes in ({"guidance": "classifier-free"}, {"guidance_scale": 0.0}):
        assert sample.guide("diffusion", private, public, privacy, replace(DOMAIN, **changes)) == (None, {})
    for missing, flag in (((None, privacy), "pretrained"), ((public, None), "privacy")):
        with pytest.raises(UserError, match=f"without --{flag}; expected"):
            sample.guide("diffusion", private, *missing, DOMAIN)
    other = written(tmp_path / "other", 8, seed=3)
    for wrong in ((private, other), (other, public)):
        with pytest.raises(UserError, match="give one release's files"):
            sample.guide("diffusion", *wrong, privacy, DOMAIN)


def test_a_model_that_learned_from_no_public_image_guides_nobody(tmp_path):
    assert sample.guide("diffusion", *release_of(tmp_path, num_images=0), DOMAIN) == (None, {})


def drawn_by_the_stage(monkeypatch, folder, paths, *flags, settings=DOMAIN):
    given = {"weights": paths[0], "pretrained": paths[1], "privacy": paths[2], "checkpoints": folder / "state"}
    words = [word for name, path in given.items() for word in (f"--{name}", str(path))]
    settings = json.dumps(plain(settings))
    monkeypatch.setattr("sys.argv", ["sample", *words, "--seed", "0", "--settings", settings, *map(str, flags)])
    sample.main()
    return ImageSet.read(Path(flags[-1]))


def test_the_stage_refuses_to_guide_between_its_steps(monkeypatch, tmp_path):
    assert SampleSettings().levels() == pytest.approx(noise_levels(20, 0.002, 80.0, 7.0)[:-1].tolist())
    nowhere = replace(DOMAIN, guidance_sigma_min=30.0, guidance_sigma_max=31.0)
    with pytest.raises(UserError, match="at no noise level: guidance_sigma_min is 30, .* steps are at 80, 2.5, 0.002;"):
        drawn_by_the_stage(monkeypatch, tmp_path, release_of(tmp_path), "--images", tmp_path / "x.h5", settings=nowhere)
    assert not (tmp_path / "x.h5").exists()


def test_the_stage_draws_away_from_the_public_model_in_one_job_or_several(monkeypatch, tmp_path):
    paths = release_of(tmp_path)
    whole = drawn_by_the_stage(monkeypatch, tmp_path, paths, "--images", tmp_path / "whole.h5")
    assert whole.provenance.parents == {"weights": sha256(paths[0]), "pretrained": sha256(paths[1])}
    own = replace(DOMAIN, guidance="classifier-free")
    other = drawn_by_the_stage(monkeypatch, tmp_path, paths, "--images", tmp_path / "own.h5", settings=own)
    assert other.provenance.parents == {"weights": sha256(paths[0])}
    assert not np.array_equal(whole.images, other.images)
    parts = [tmp_path / f"{index}.h5" for index in range(2)]
    for index, part in enumerate(parts):
        drawn_by_the_stage(monkeypatch, tmp_path, paths, "--index", index, "--of", 2, "--images", part)
    joined = drawn_by_the_stage(monkeypatch, tmp_path, paths, "--shards", *parts, "--images", tmp_path / "joined.h5")
    assert np.array_equal(joined.images, whole.images) and joined.provenance == whole.provenance


def test_the_seed_decides_the_images():
    assert np.array_equal(run().images, run().images)
    assert not np.array_equal(run().images, run(seed=1).images)


def test_every_batch_has_noise_of_its_own():
    made = run(names=("all",), batch_size=10)
    assert not np.array_equal(made.images[:10], made.images[10:])


def test_the_file_fills_as_images_are_drawn_and_no_batch_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "SAVE_BYTES", 1)
    settings = SampleSettings(num_images=8_000, num_steps=2, batch_size=500)
    made, stretches = sample.run(
        drawer_of(Grey(), settings, DEFAULT), list("0123456789"), settings, 0, Checkpoint(tmp_path / "state", "test")
    )
    batches, alive = [], []

    def watched():
        for start, pixels in stretches:
            batches.append(weakref.ref(pixels))
            alive.append(sum(batch() is not None for batch in batches))
            yield start, pixels

    tracemalloc.start()
    made.write_stretches(tmp_path / "images.h5", watched())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    written = ImageSet.read(tmp_path / "images.h5")
    assert written.images.nbytes == 8_000 * 32 * 32 * 3
    assert (written.images[::1000] == 128).all()
    assert len(batches) == 16
    assert max(alive) <= 2  # the one that is written, the one before it
    assert peak < 500 * 32 * 32 * 3 * 5  # five batches, of 16: one that is drawn, written, kept, and copies


@pytest.mark.parametrize("save_bytes", [1, 200, 2**24])
def test_a_stopped_run_draws_only_what_was_not_kept_and_the_same_images(tmp_path, monkeypatch, save_bytes):
    monkeypatch.setattr(kept, "SAVE_BYTES", save_bytes)
    settings, model = SampleSettings(num_images=20, num_steps=3, batch_size=3), model_of(num_labels=2)
    calm = run(names=("x", "y"), batch_size=3)
    drawn, real = [], sample.generator_for

    def counted(seed, batch):
        drawn.append(3 * batch)
        return real(seed, batch)

    monkeypatch.setattr(sample, "generator_for", counted)
    checkpoint = Checkpoint(tmp_path, "test")
    stretches = sample.run(drawer_of(model, settings, DEFAULT), ["x", "y"], settings, 0, checkpoint)[1]
    for _ in range(5):
        next(stretches)
    stretches.close()  # as a kill does: the fifth batch was written, not yet kept
    resumed = list(sample.run(drawer_of(model, settings, DEFAULT), ["x", "y"], settings, 0, checkpoint)[1])
    num_kept = {1: 4, 200: 4, 2**24: 0}[save_bytes]  # batches of 192 bytes: at 200, two go into a part
    assert drawn == [0, 3, 6, 9, 12, *range(3 * num_kept, 20, 3)]
    assert np.array_equal(np.concatenate([pixels for _, pixels in resumed]), calm.images)


def test_a_run_that_was_stopped_once_everything_was_kept_goes_on_to_the_same_images(tmp_path, monkeypatch):
    """The last batch is smaller than the others."""
    monkeypatch.setattr(kept, "SAVE_BYTES", 1)
    settings, model = SampleSettings(num_images=20, num_steps=3, batch_size=3), model_of(num_labels=2)
    first, again = (
        list(
            sample.run(drawer_of(model, settings, DEFAULT), ["x", "y"], settings, 0, Checkpoint(tmp_path / name, "x"))[
                1
            ]
        )
        for name in "aa"
    )
    assert [start for start, _ in again] == [start for start, _ in first] and len(first) == 7
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(first, again))


def test_bytes_are_rounded_and_clamped():
    values = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 5.0]).view(6, 1, 1, 1)
    assert to_bytes(values).flatten().tolist() == [0, 0, 128, 255, 255, 255]
