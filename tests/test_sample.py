"""Synthetic images: how many, which labels, reproducible; bytes are rounded, not cut."""

import numpy as np
import pytest
import torch

from privimage import sample
from privimage.diffusion.denoiser import new_denoiser
from privimage.settings import NetworkSettings, SampleSettings

SMALL = NetworkSettings(base_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,))


def run(seed=0, channels=1, names=("x", "y", "z"), **changes):
    model = new_denoiser(SMALL, 8, channels, len(names), seed=1)
    return sample.run(model, list(names), SampleSettings(**{"num_images": 20, "num_steps": 3, **changes}), seed)


@pytest.mark.parametrize("sampler", ["heun", "ddim"])
@pytest.mark.parametrize("channels", [1, 3])
def test_as_many_images_as_asked_with_uniform_labels(sampler, channels):
    made = run(sampler=sampler, channels=channels, batch_size=7)
    assert made.images.shape == (20, 8, 8, channels)
    assert made.counts == [7, 7, 6]
    assert made.source == "synthetic"


def test_one_class_has_no_labels_to_speak_of():
    assert run(names=("all",), guidance_scale=0.0).counts == [20]


def test_the_seed_decides_the_images():
    assert np.array_equal(run().images, run().images)
    assert not np.array_equal(run().images, run(seed=1).images)


def test_bytes_are_rounded_and_clamped():
    values = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 5.0]).view(6, 1, 1, 1)
    assert sample.to_bytes(values).flatten().tolist() == [0, 0, 128, 255, 255, 255]
