"""A small pair of generator and discriminator, and settings to train it by."""

from __future__ import annotations

import torch

from privimage.compute import Compute
from privimage.gan.pair import new_pair
from privimage.gan.settings import GanFinetuneSettings, GanNetworkSettings
from privimage.privacy.randomness import SecretKey
from privimage.private_training import Mechanism
from privimage.settings import ComputeSettings

NETWORK = GanNetworkSettings(
    z_dim=8,
    shared_dim=4,
    conv_dim=4,
    generator_multipliers=(2, 2),
    attention_after=1,
    discriminator_multipliers=(2, 2),
    discriminator_halvings=1,
)
SETTINGS = GanFinetuneSettings(
    sampling_probability=0.3, num_steps=6, discriminator_steps=2, generator_batch_size=12, ema_decay=0.9
)


def pair(num_labels=2, network=NETWORK):
    return new_pair(network, 8, 1, num_labels, seed=0)


def mechanism(key=None, microbatch_size=64, settings=SETTINGS, num_images=24):
    compute = Compute(ComputeSettings(microbatch_size=microbatch_size))
    return Mechanism(settings, 1.0, num_images, key or SecretKey.from_seed(0), compute)


def values(module):
    return torch.cat([value.flatten().double() for value in module.state_dict().values()])
