"""The settings of the generative adversarial network, its training and its private training; without torch."""

from __future__ import annotations

from dataclasses import dataclass

from privimage.setting import setting


@dataclass(frozen=True)
class GanNetworkSettings:
    """Generator and discriminator of BigGAN's shape (Brock et al. 2019); the paper's for 32 pixels by default."""

    z_dim: int = setting(80, "Numbers that an image is made from; shared out evenly among stem and blocks.", minimum=1)
    shared_dim: int = setting(128, "Width of the label's embedding, which the generator's blocks share.", minimum=1)
    conv_dim: int = setting(96, "Channels that the multipliers multiply.", minimum=1)
    generator_multipliers: tuple[int, ...] = setting(
        (4, 4, 4, 4),
        "Channels over `conv_dim` of the generator's stem and of each block; each block doubles the resolution. "
        "For 64 pixels: 16, 8, 4, 2, 1 and `conv_dim` 64.",
        minimum=1,
    )
    attention_after: int = setting(
        2, "Block of the generator that self-attention follows, where there is such a block; 0: none.", minimum=0
    )
    discriminator_multipliers: tuple[int, ...] = setting(
        (2, 2, 2, 2),
        "Channels over `conv_dim` of each block of the discriminator. For 64 pixels: 1, 2, 4, 8, 16.",
        minimum=1,
    )
    discriminator_halvings: int = setting(
        2, "First so many blocks of the discriminator halve the resolution. For 64 pixels: 4.", minimum=0
    )


@dataclass(frozen=True)
class GanPretrainSettings:
    """Training of generator and discriminator on public images."""

    network: GanNetworkSettings = setting(GanNetworkSettings(), "The networks that every later stage uses.")
    num_steps: int = setting(500_000, "Steps of the discriminator.", unit="steps", minimum=1)
    batch_size: int = setting(64, "Real images a step, and as many made ones.", unit="images", minimum=2)
    discriminator_steps: int = setting(5, "Steps of the discriminator for each of the generator.", minimum=1)
    discriminator_learning_rate: float = setting(2e-4, "Learning rate of the discriminator's Adam.", above=0)
    generator_learning_rate: float = setting(2e-4, "Learning rate of the generator's Adam.", above=0)
    ema_decay: float = setting(0.999, "Decay of the moving average of the generator's weights.", minimum=0, below=1)
    horizontal_flip: bool = setting(True, "Mirror half of the images. Wrong for letters and digits.")


@dataclass(frozen=True)
class GanFinetuneSettings:
    """DP-SGD on the discriminator, which alone sees sensitive images. Noise is calibrated from the ledger."""

    sampling_probability: float = setting(
        0.25,
        "Probability with which each image enters a step (Poisson sampling). A public constant.",
        above=0,
        maximum=1,
    )
    num_steps: int = setting(200, "DP-SGD steps of the discriminator.", unit="steps", minimum=1)
    clip_norm: float = setting(
        1.0, "L2 bound on the gradient of each pair of a sensitive and a made image (C). Adam hides its scale.", above=0
    )
    discriminator_steps: int = setting(5, "Steps of the discriminator for each of the generator.", minimum=1)
    discriminator_learning_rate: float = setting(5e-4, "Learning rate of the discriminator's Adam.", above=0)
    generator_learning_rate: float = setting(2e-4, "Learning rate of the generator's Adam.", above=0)
    generator_batch_size: int = setting(
        16384, "Made images in a step of the generator; they cost no privacy.", unit="images", minimum=2
    )
    ema_decay: float = setting(0.999, "Decay of the moving average of the generator's weights.", minimum=0, below=1)
