"""Every setting of every stage: a frozen dataclass a stage, each field with its meaning, bounds and source.

Defaults are the published ones (Li et al., USENIX Security 2024, and its repository) where the paper has one.
Nothing here imports torch: the workflow reads this module each time it is parsed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from privimage.setting import REQUIRED, setting

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"  # what may become a folder of the results
EDM = "Karras et al. 2022, table 1"


SourceName = Literal[
    "auto", "folder", "npz", "hdf5", "parquet", "digits", "glyphs", "mnist", "fashion-mnist", "kmnist", "emnist",
    "cifar10", "cifar100", "imagenet", "imagenet-downsampled", "celeba", "camelyon17", "eurosat",
]  # fmt: skip
IMAGES_PER_DIRECTION = 6  # public images whose gradients tell each of the directions in which gradients are damped
DRAWN = ("digits", "glyphs")  # sources that an installed package holds: they have no path
OWN = ("auto", "folder", "npz", "hdf5", "parquet")  # sources that are nobody's published set
SOURCE = "Reader of the images; `auto` looks at what lies under `path`."
PATH = "Folder or file of the images; without one, a published set that may be fetched lies in `data/<source>`."
VARIANT = (
    "Which part of a source that has several: EMNIST's `letters`, `balanced`, `digits`, `mnist`, `byclass`, `bymerge`."
)
CLASSES = "Only these classes of the source; none: all. A set of classes that another row is `without_classes`."
WITHOUT = (
    "Classes of the source that are left out, so that a row that has them can stand in for a sensitive set. "
    "`num_classes` counts those that are left."
)
ATTRIBUTE = "CelebA's attribute that labels the images, such as `Male`; none: one class."


@dataclass(frozen=True)
class Place:
    """Where images lie and what reads them."""

    source: SourceName = setting("auto", SOURCE)
    path: str | None = setting(None, PATH)
    variant: str | None = setting(None, VARIANT)
    attribute: str | None = setting(None, ATTRIBUTE)
    classes: tuple[str, ...] | None = setting(None, CLASSES)
    without_classes: tuple[str, ...] | None = setting(None, WITHOUT)
    images_per_class: int | None = setting(
        None, "Images to draw of each class, for sources that are drawn.", minimum=10
    )
    margin: int = setting(
        0, "Black pixels left free around each drawn sign; MNIST's digits stand in 20 of 28.", unit="pixels", minimum=0
    )


@dataclass(frozen=True)
class Reading:
    """What is made of each image: constants and per-image rules only."""

    filter: Literal["bilinear", "lanczos", "box"] = setting(
        "bilinear", "Resampling filter after the centre crop of the short side.", source="official repository"
    )
    small_images: Literal["scale", "pad"] = setting(
        "scale", "An image smaller than the square is enlarged, or centred on black (MNIST's 28 pixels in 32)."
    )
    test_fraction: float = setting(
        0.2,
        "Fraction of images that a source without a test split of its own gives up for testing; "
        "decided image by image from its content.",
        above=0,
        below=1,
    )
    max_pixels: int = setting(
        25_000_000, "Images of more pixels are refused before they are decoded.", unit="pixels", minimum=1
    )


@dataclass(frozen=True)
class PreprocessSettings(Reading):
    """How images are read: what is made of each, what happens to bad ones, and in how many jobs."""

    on_bad_image: Literal["error", "skip"] = setting(
        "error", "An image that cannot be used stops the run, or is left out and listed; the others do not change."
    )
    num_shards: int = setting(
        1, "Jobs that share the reading; changes the time, not the result.", unit="jobs", minimum=1, maximum=10_000
    )


@dataclass(frozen=True)
class ClassifierSettings:
    """The semantic query function: a CIFAR-style ResNet trained on the public set (Li et al. 2024)."""

    block: Literal["basic", "bottleneck"] = setting("bottleneck", "Residual block.", source="ResNet-50")
    blocks_per_level: tuple[int, ...] = setting((3, 4, 6, 3), "Residual blocks at each level.", minimum=1)
    base_channels: int = setting(64, "Channels of the stem; each level doubles them.", minimum=1)
    num_epochs: int = setting(60, "Passes over the public training images.", unit="epochs", minimum=1)
    batch_size: int = setting(8192, "Images a step.", unit="images", minimum=1)
    learning_rate: float = setting(1e-2, "Initial learning rate of SGD; cosine decay to zero.", above=0)
    momentum: float = setting(0.9, "Momentum of SGD.", minimum=0, below=1)
    weight_decay: float = setting(5e-4, "Weight decay of SGD.", minimum=0)
    horizontal_flip: bool = setting(True, "Mirror half of the training images. Wrong for letters and digits.")


@dataclass(frozen=True)
class QuerySettings:
    """One noisy look at the sensitive images: which public classes does the classifier see in them?"""

    top_k: int = setting(5, "Public classes that each image votes for; L2 sensitivity is its root.", minimum=1)
    noise_multiplier: float = setting(
        20.0,
        "Noise over the L2 sensitivity: each count gets discrete Gaussian noise of root(top_k) times it. Keep that "
        "below an eighth of the declared images per class. (`privacy.json` states the noise on one count instead.)",
        above=0,
    )


@dataclass(frozen=True)
class SelectSettings:
    """How many public classes each sensitive class receives, and who wins where two want the same."""

    classes_per_label: int = setting(
        5, "Public classes given to each sensitive class; no public class is given twice.", minimum=1
    )
    assignment: Literal["greedy", "one-to-one"] = setting(
        "greedy",
        "`greedy` serves the largest noisy count first; `one-to-one` maximises the sum of all noisy counts that are "
        "served (Kuhn 1955, the Hungarian method).",
    )


Size = Literal["s", "m", "b", "bm", "bb", "bbbb"]
SIZES: dict[Size, tuple[int, tuple[int, ...]]] = {  # base channels, multipliers up to 32 pixels: Li et al. 2024
    "s": (32, (1, 2, 2)),
    "m": (32, (1, 2, 4)),
    "b": (32, (1, 4, 4)),
    "bm": (96, (1, 2, 2)),
    "bb": (128, (1, 2, 2)),
    "bbbb": (192, (1, 2, 2, 2)),
}


@dataclass(frozen=True)
class NetworkSettings:
    """The diffusion network, DDPM++ in shape (Song et al. 2021); the paper's smallest for CIFAR-10 by default."""

    size: Size | None = setting(
        None,
        "A published size, in place of the channels and multipliers below; above 32 pixels it has one level more.",
        source="official repository",
    )
    base_channels: int = setting(32, "Channels at full resolution.", minimum=4)
    channel_multipliers: tuple[int, ...] = setting(
        (1, 2, 2), "Channels at each level over the base; each level halves the resolution.", minimum=1
    )
    num_res_blocks: int = setting(2, "Residual blocks at each level on the way down.", minimum=1)
    attention_resolutions: tuple[int, ...] = setting(
        (16,), "Resolutions that get self-attention; the middle always has it.", unit="pixels", minimum=1
    )
    sigma_data: float = setting(
        0.5773502691896258, "Standard deviation assumed of the images in [-1, 1]: root of a third.", above=0
    )

    def widths(self, resolution: int) -> tuple[int, tuple[int, ...]]:
        """Channels at full resolution, and what multiplies them at each level, for images of so many pixels a side."""
        if self.size is None:
            return self.base_channels, self.channel_multipliers
        base, multipliers = SIZES[self.size]
        return base, (1, *multipliers) if resolution > 32 else multipliers


@dataclass(frozen=True)
class PretrainSettings:
    """Training of the diffusion model on the selected public images."""

    network: NetworkSettings = setting(NetworkSettings(), "The network that every later stage uses.")
    num_steps: int = setting(125_000, "Optimiser steps.", unit="steps", minimum=1)
    whole_fraction: float = setting(
        0.0,
        "Part of the steps that go to the whole public set under its own labels, before those on selected classes; "
        "each label then starts at the mean of the classes selected for it.",
        minimum=0,
        below=1,
    )
    conditional: bool = setting(
        True, "Learn under labels. If not, every label starts private training where 'no label' ended."
    )
    batch_size: int = setting(2048, "Images a step.", unit="images", minimum=1)
    learning_rate: float = setting(1e-4, "Learning rate of Adam.", above=0)
    ema_decay: float = setting(0.999, "Decay of the weights' moving average.", minimum=0, below=1)
    label_dropout: float = setting(0.1, "Probability of replacing a label by 'none', for guidance.", minimum=0, below=1)
    P_mean: float = setting(-1.2, "Mean of ln(sigma) in training.", source=EDM)
    P_std: float = setting(1.2, "Standard deviation of ln(sigma) in training.", above=0, source=EDM)
    horizontal_flip: bool = setting(True, "Mirror half of the images. Wrong for letters and digits.")


@dataclass(frozen=True)
class FinetuneSettings:
    """DP-SGD on the sensitive images. The noise multiplier is not here: it is calibrated from the ledger."""

    sampling_probability: float = setting(
        1 / 3,
        "Probability with which each image enters a step (Poisson sampling). A public constant.",
        above=0,
        maximum=1,
    )
    num_steps: int = setting(150, "DP-SGD steps.", unit="steps", minimum=1)
    noise_levels_per_image: int = setting(
        8, "Noise levels drawn for each image and averaged before clipping (K).", unit="copies", minimum=1
    )
    noise_draws: Literal["independent", "balanced"] = setting(
        "independent",
        "How an image's K levels and noises are drawn. `balanced`: in twos of opposite noise at one level, with levels "
        "spread evenly over their distribution; each copy by itself is distributed the same.",
        source="Kingma et al. 2021, appendix I (evenly spread levels); Hammersley & Morton 1956 (antithetic pairs)",
    )
    damped_directions: int = setting(
        0,
        "Directions, told by gradients of public images, in which each image's gradient is damped before clipping, so "
        "that it is as large along all of them as along the last; others then get more of the bound. Each takes six "
        "public images. 0: none.",
        minimum=0,
    )
    clip_norm: float = setting(1e-3, "L2 bound on each image's gradient (C). Adam hides its scale.", above=0)
    learning_rate: float = setting(3e-4, "Learning rate of Adam.", above=0)
    warmup_steps: int = setting(
        0, "Steps before the learning rate has risen to its value, by as much in each.", unit="steps", minimum=0
    )
    ema_decay: float = setting(0.999, "Decay of the weights' moving average.", minimum=0, below=1)
    label_dropout: float = setting(0.1, "Probability of replacing a label by 'none', for guidance.", minimum=0, below=1)
    P_mean: float = setting(-1.2, "Mean of ln(sigma) in training.", source=EDM)
    P_std: float = setting(1.2, "Standard deviation of ln(sigma) in training.", above=0, source=EDM)
    trained: Literal["all", "attention", "lora"] = setting(
        "all",
        "What is trained, and gets noise: all weights; those of attention and of what tells blocks the label and the "
        "noise level; or low-rank adapters beside these, and the embedding of labels. The rest stays as pretrained.",
        source="Liu et al. 2023 (DP-LDM): attention; Tsai et al. 2025 (DP-LoRA): lora",
    )
    lora_rank: int = setting(4, "Rank of the adapters.", minimum=1)

    def learning_rate_at(self, step: int) -> float:
        """Adam's learning rate at a step, counted from 0: of its number alone, so a resumed run has it too."""
        return self.learning_rate * min(1, (step + 1) / (self.warmup_steps + 1))


@dataclass(frozen=True)
class SampleSettings:
    """Synthetic images drawn from the private model."""

    num_images: int = setting(50_000, "Images to draw, spread evenly over the classes.", minimum=1)
    sampler: Literal["heun", "ddim", "dpmpp2m"] = setting(
        "dpmpp2m",
        "Solver of the probability-flow equation. Heun's evaluates the network twice a step.",
        source="Lu et al. 2022 (DPM-Solver++(2M))",
    )
    num_steps: int = setting(20, "Noise levels of the solver's grid.", unit="steps", minimum=2)
    guidance: Literal["classifier-free", "domain"] = setting(
        "classifier-free",
        "What images are pushed away from: the private model's guess without a label, or that of the public model "
        "which it started from. Without public images it is the model's own in any case.",
        source="Ho & Salimans 2022; Zhong et al. 2025 (domain guidance)",
    )
    guidance_scale: float = setting(
        0.0, "How far. 0 is no guidance; more takes a second evaluation at every noise level with guidance.", minimum=0
    )
    guidance_sigma_min: float = setting(
        0.0, "Lowest noise level with guidance.", minimum=0, source="Kynkäänniemi et al. 2024"
    )
    guidance_sigma_max: float | None = setting(None, "Highest noise level with guidance. Empty: no limit.", above=0)
    sigma_min: float = setting(0.002, "Smallest noise level.", above=0, source=EDM)
    sigma_max: float = setting(80.0, "Largest noise level.", above=0, source=EDM)
    rho: float = setting(7.0, "Curvature of the grid of noise levels.", above=0, source=EDM)
    batch_size: int = setting(500, "Images drawn at once; part of the result, since it orders the noise.", minimum=1)

    def levels(self) -> list[float]:
        """The solver's noise levels, falling (Karras et al. 2022, equation 5)."""
        high, low = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return [(high + i / (self.num_steps - 1) * (low - high)) ** self.rho for i in range(self.num_steps)]

    def guided_levels(self) -> list[float]:
        """Those of them at which guidance acts, if its scale is above 0."""
        highest = math.inf if self.guidance_sigma_max is None else self.guidance_sigma_max
        return [level for level in self.levels() if self.guidance_sigma_min <= level <= highest]


@dataclass(frozen=True)
class SamplingSettings(SampleSettings):
    """Synthetic images drawn from the private model, and in how many jobs."""

    num_shards: int = setting(
        1,
        "Jobs that share the drawing of each release; changes the time alone.",
        unit="jobs",
        minimum=1,
        maximum=10_000,
    )


@dataclass(frozen=True)
class ReleaseSettings:
    """What the card of a release says besides the numbers."""

    license: str = setting(
        "unknown", "Licence of the synthetic images, as Hugging Face spells it (`cc-by-4.0`); the owner's to choose."
    )
    pretty_name: str | None = setting(None, "Title of the card; none: made from the data set's name.")


@dataclass(frozen=True)
class ComputeSettings:
    """How stages compute, not what: speed, memory and rounding. A change reruns nothing."""

    engine: Literal["fast", "opacus"] = setting(
        "fast", "What forms each image's gradient in `finetune`: our contractions, or Opacus' hooks for comparison."
    )
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto",
        "Precision of the networks' products; clipping, noise and weights stay float32 or wider. "
        "`auto`: bfloat16 on GPUs that have it, and on CPUs with AMX or AVX512_BF16.",
    )
    compile: bool = setting(
        False, "Compile the diffusion network (torch.compile); where that fails, a message says so."
    )
    microbatch_size: int | None = setting(
        None, "Images that `finetune` computes at once; none: as many as memory allows, by a trial.", minimum=1
    )


@dataclass(frozen=True)
class Declared:
    """What a private stage is told of a sensitive set: public constants, never measured on the data."""

    num_images: int = setting(REQUIRED, "Declared training images.", minimum=1)
    class_names: tuple[str, ...] = setting(REQUIRED, "Declared classes.")
    delta: float = setting(REQUIRED, "Delta of the guarantee.", above=0, below=1)
    images_per_unit: int = setting(1, "Images that one person may have.", minimum=1)
    reproducible_noise: bool = setting(False, "For tests only: voids the guarantee.")


@dataclass(frozen=True)
class Source(Place, Reading):
    """Where the images of one row come from and what they become: the input of `shard`."""

    resolution: int = setting(REQUIRED, "Side of the square images.", unit="pixels", minimum=4)
    channels: Literal[1, 3] = setting(REQUIRED, "1 for grey, 3 for RGB.")
    num_classes: int | None = setting(None, "Public classes; None for a sensitive set, which declares their names.")


@dataclass(frozen=True)
class JoinSettings:
    """What `preprocess` does with the shards of a source."""

    on_bad_image: Literal["error", "skip"] = setting("error", "Stop at images that cannot be used, or leave them out.")
