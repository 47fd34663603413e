"""The settings of the autoencoder; without torch, since the workflow reads them each time it is parsed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from privimage.setting import setting


@dataclass(frozen=True)
class AutoencoderSettings:
    """The autoencoder between images and the latents of latent diffusion, trained on the whole public set."""

    factor: Literal[2, 4, 8] = setting(2, "Pixels of an image along a side for each of its latents'.")
    latent_channels: int = setting(4, "Channels of the latents.", minimum=1, source="Rombach et al. 2022")
    base_channels: int = setting(
        32, "Channels at full resolution; each level, of half the side, doubles them.", minimum=4
    )
    num_steps: int = setting(20_000, "Optimiser steps.", unit="steps", minimum=1)
    batch_size: int = setting(256, "Images a step.", unit="images", minimum=1)
    learning_rate: float = setting(1e-3, "Learning rate of Adam.", above=0)
    ema_decay: float = setting(0.999, "Decay of the weights' moving average.", minimum=0, below=1)
    kl_weight: float = setting(
        1e-3,
        "Weight of the latents' Kullback-Leibler divergence from a standard normal beside the squared error, both a "
        "mean over their numbers: the more, the smoother the latents.",
        minimum=0,
        source="Rombach et al. 2022, who weigh sums",
    )
