"""A small denoiser, a few images for it and settings to fine-tune it by, for tests of private training; a damping."""

from __future__ import annotations

import numpy as np
import torch

from privimage.artifacts import ImageSet
from privimage.compute import Compute
from privimage.diffusion.denoiser import new_denoiser
from privimage.privacy.damping import Damping, damping_by
from privimage.privacy.randomness import SecretKey
from privimage.private_training import Mechanism
from privimage.settings import ComputeSettings, Declared, FinetuneSettings, NetworkSettings

SMALL = NetworkSettings(base_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,))
SETTINGS = FinetuneSettings(
    sampling_probability=0.3, num_steps=6, noise_levels_per_image=2, learning_rate=1e-2, warmup_steps=2
)
NAMES = ("x", "y")
DECLARED = Declared(num_images=24, class_names=NAMES, delta=1e-3)


def images(num=24):
    rng = np.random.default_rng(0)
    return ImageSet(rng.integers(0, 256, (num, 8, 8, 1), np.uint8), np.arange(num) % 2, NAMES, "test")


def model():
    return new_denoiser(SMALL, 8, 1, 2, seed=0)


def mechanism(key=None, microbatch_size=64, settings=SETTINGS, num_images=24):
    compute = Compute(ComputeSettings(microbatch_size=microbatch_size))
    return Mechanism(settings, 1.0, num_images, key or SecretKey.from_seed(0), compute)


def weights(made):
    return torch.cat([p.flatten() for p in made.state_dict().values()])


def damping_for(model: torch.nn.Module, seed: int) -> Damping:
    """A damping in three directions of chance, far from doing nothing."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    rows = {name: torch.randn(6, count, generator=generator) for name, count in sizes.items()}
    common = {name: 2 * torch.randn(count, generator=generator) for name, count in sizes.items()}
    return damping_by({name: part + common[name] for name, part in rows.items()}, 3)
