"""Every setting of every stage: a frozen dataclass a stage, each field with its meaning, bounds and source.

Defaults are the published ones (Li et al., USENIX Security 2024, and its repository) where the paper has one.
Nothing here imports torch: the workflow reads this module each time it is parsed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from privimage.networks import Network
from privimage.setting import REQUIRED, setting

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"  # what may become a folder of the results
DEEP = ("cnn", "wrn", "resnet", "resnext")  # classifiers that are trained in epochs
EDM = "Karras et al. 2022, table 1"


SourceName = Literal[
    "auto", "folder", "npz", "hdf5", "parquet", "digits", "glyphs", "mnist", "fashion-mnist", "kmnist", "emnist",
    "cifar10", "cifar100", "imagenet", "imagenet-downsampled", "celeba", "camelyon17", "eurosat",
]  # fmt: skip
DRAWN = ("digits", "glyphs")  # sources that an installed package holds: they have no path
OWN = ("auto", "folder", "npz", "hdf5", "parquet")  # sources that are nobody's published set
SOURCE = "Reader of the images; `auto` looks at what lies under `path`."
PATH = "Folder or file of the images; without one, a published set that may be fetched lies in `data/<source>`."
VARIANT = (
    "Which part of a source that has several: EMNIST's `letters`, `balanced`, `digits`, `mnist`, `byclass`, `bymerge`."
)
ATTRIBUTE = "CelebA's attribute that labels the images, such as `Male`; none: one class."


@dataclass(frozen=True)
class Place:
    """Where images lie and what reads them."""

    source: SourceName = setting("auto", SOURCE)
    path: str | None = setting(None, PATH)
    variant: str | None = setting(None, VARIANT)
    attribute: str | None = setting(None, ATTRIBUTE)


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
    """How many public classes each sensitive class receives."""

    classes_per_label: int = setting(
        5, "Public classes given to each sensitive class; no public class is given twice.", minimum=1
    )


@dataclass(frozen=True)
class NetworkSettings:
    """The diffusion network, DDPM++ in shape (Song et al. 2021); the paper's smallest for CIFAR-10 by default."""

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


@dataclass(frozen=True)
class PretrainSettings:
    """Training of the diffusion model on the selected public images."""

    network: NetworkSettings = setting(NetworkSettings(), "The network that every later stage uses.")
    num_steps: int = setting(125_000, "Optimiser steps.", unit="steps", minimum=1)
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
    clip_norm: float = setting(1e-3, "L2 bound on each image's gradient (C). Adam hides its scale.", above=0)
    learning_rate: float = setting(3e-4, "Learning rate of Adam.", above=0)
    ema_decay: float = setting(0.999, "Decay of the weights' moving average.", minimum=0, below=1)
    label_dropout: float = setting(0.1, "Probability of replacing a label by 'none', for guidance.", minimum=0, below=1)
    P_mean: float = setting(-1.2, "Mean of ln(sigma) in training.", source=EDM)
    P_std: float = setting(1.2, "Standard deviation of ln(sigma) in training.", above=0, source=EDM)


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
    guidance_scale: float = setting(0.0, "Classifier-free guidance; 0 is none.", minimum=0)
    sigma_min: float = setting(0.002, "Smallest noise level.", above=0, source=EDM)
    sigma_max: float = setting(80.0, "Largest noise level.", above=0, source=EDM)
    rho: float = setting(7.0, "Curvature of the grid of noise levels.", above=0, source=EDM)
    batch_size: int = setting(500, "Images drawn at once; part of the result, since it orders the noise.", minimum=1)


@dataclass(frozen=True)
class SamplingSettings(SampleSettings):
    """Synthetic images drawn from the private model, and in how many jobs."""

    num_shards: int = setting(
        1, "Jobs that share the drawing of a release; changes the time only.", unit="jobs", minimum=1, maximum=10_000
    )


@dataclass(frozen=True)
class QualitySettings:
    """How near synthetic images are to real ones, in the features of networks. Evaluation, not private."""

    networks: tuple[str, ...] = setting(("classifier",), "Rows of `networks`: each is measured with, by itself.")
    reference_split: Literal["train", "test"] = setting("train", "Real images to compare with.")
    num_synthetic: int | None = setting(
        None,
        "Synthetic images that count, the first of a fixed random order; none: all. Li et al. 2024 compare 5,000.",
        unit="images",
        minimum=2,
    )
    num_reference: int | None = setting(
        None,
        "Real images that count, at most, the first of a fixed random order; none: all.",
        unit="images",
        minimum=2,
    )
    num_shards: int = setting(
        1,
        "Jobs that share a network's look at real images; changes the time only.",
        unit="jobs",
        minimum=1,
        maximum=9999,
    )


@dataclass(frozen=True)
class DeepSettings:
    """Training of a deep classifier: SGD, its rate falling to zero along a cosine."""

    num_epochs: int = setting(200, "Passes over the images.", unit="epochs", minimum=1)
    batch_size: int = setting(128, "Images a step.", unit="images", minimum=1)
    learning_rate: float = setting(0.1, "Initial learning rate of SGD; cosine decay to zero.", above=0)


@dataclass(frozen=True)
class WideResNetSettings(DeepSettings):
    """A wide residual network (Zagoruyko & Komodakis 2016); published beside WRN-28-10 is WRN-40-4."""

    depth: Literal[10, 16, 22, 28, 34, 40] = setting(28, "Layers.")
    width: int = setting(10, "Channels over those of a network that is not wide.", minimum=1)


@dataclass(frozen=True)
class CifarResNetSettings(DeepSettings):
    """A residual network for small images (He et al. 2016, section 4.2)."""

    depth: Literal[8, 14, 20, 32, 44, 56, 110] = setting(56, "Layers.")


@dataclass(frozen=True)
class ResNeXtSettings(DeepSettings):
    """A residual network of grouped convolutions (Xie et al. 2017)."""

    depth: Literal[11, 20, 29, 38] = setting(29, "Layers.")
    cardinality: int = setting(8, "Groups.", minimum=1)
    base_width: int = setting(64, "Channels of each group at full resolution.", minimum=1)


@dataclass(frozen=True)
class AccuracySettings:
    """Classifiers trained on synthetic images, tested on real ones. Not private."""

    classifiers: tuple[Literal["logistic", "mlp", "cnn", "wrn", "resnet", "resnext"], ...] = setting(
        ("logistic", "mlp", "cnn"), "Classifiers to train.", source="Li et al. 2024; DPImageBench: the last three"
    )
    protocol: Literal["last-epoch", "synthetic-validation", "noisy-validation", "oracle"] = setting(
        "last-epoch",
        "Which epoch of a deep classifier counts: the last; the best on held-out synthetic images; the best on the "
        "sensitive training images, chosen with noise that each release pays for; or the best on the test images, "
        "which is no valid result and says so.",
    )
    validation_fraction: float = setting(
        0.1, "Part of the synthetic images that `synthetic-validation` holds out.", above=0, below=1
    )
    validation_epsilon: float = setting(
        0.02,
        "What `noisy-validation` pays for each deep classifier of each release; its noise is of 1 / epsilon images. In "
        "the default run at epsilon 1, three at 0.02 add 1 % to the noise of DP-SGD, three at 0.1 add 20 %.",
        minimum=1e-3,
        maximum=10,
    )
    repetitions: int = setting(
        1, "Times that each classifier is trained, each from another initialisation.", minimum=1, maximum=100
    )
    cnn_base_channels: int = setting(64, "Channels of the CNN (a ResNet-9).", minimum=1)
    cnn_num_epochs: int = setting(50, "Epochs of the CNN.", unit="epochs", minimum=1)
    cnn_batch_size: int = setting(512, "Images a step of the CNN.", unit="images", minimum=1)
    cnn_learning_rate: float = setting(0.1, "Initial learning rate of the CNN's SGD; cosine decay.", above=0)
    wrn: WideResNetSettings = setting(WideResNetSettings(), "The wide residual network.")
    resnet: CifarResNetSettings = setting(CifarResNetSettings(), "The residual network.")
    resnext: ResNeXtSettings = setting(ResNeXtSettings(), "The residual network of grouped convolutions.")
    horizontal_flip: bool = setting(
        True, "Mirror half of the images that a deep classifier learns from. Wrong for letters and digits."
    )

    @property
    def deep(self) -> tuple[str, ...]:
        """The classifiers that are trained in epochs, of which one is chosen."""
        return tuple(name for name in dict.fromkeys(self.classifiers) if name in DEEP)

    @property
    def validation_epsilons(self) -> tuple[float, ...]:
        """What choosing epochs on sensitive images costs each release, one entry a classifier."""
        return (self.validation_epsilon,) * len(self.deep) if self.protocol == "noisy-validation" else ()


@dataclass(frozen=True)
class SemanticsSettings:
    """Do the selected public classes mean what the sensitive ones mean? Evaluation, not private."""

    word_vectors: str | None = setting(
        None,
        "File of word vectors as text, a word and its numbers a line: GloVe's form, or word2vec's.",
        source="Li et al. 2024, with GloVe-Twitter-25d (Pennington et al. 2014)",
    )


@dataclass(frozen=True)
class MemorisationSettings:
    """Are synthetic images nearer to training images than to unseen ones? Evaluation, not private."""

    feature_network: Literal["classifier", "pixels"] = setting(
        "classifier", "Whose features are compared: the run's own public classifier's, or pixels as they are."
    )
    num_images: int = setting(
        5000, "Synthetic images at most, the first ones; all real ones are used.", unit="images", minimum=1
    )


@dataclass(frozen=True)
class MembershipSettings:
    """A membership-inference attack on the released model, by its loss. Evaluation, not private."""

    num_images: int = setting(
        10_000,
        "Training images at most, and as many test images; with fewer than 10,000 of them, the true-positive rate at "
        "0.1 % false positives is left out, with fewer than 1,000 that at 1 %.",
        unit="images",
        minimum=2,
    )
    sigmas: tuple[float, ...] = setting(
        (0.05, 0.1, 0.2, 0.5, 1.0, 2.0), "Noise levels whose losses are looked at.", above=0
    )
    num_draws: int = setting(4, "Draws of noise at each level, the same for all images.", unit="draws", minimum=1)


@dataclass(frozen=True)
class AuditSettings:
    """An audit of DP-SGD: a training with canaries, once a data set, never released. Evaluation, not private."""

    num_canaries: int = setting(
        0,
        "Canaries, each with a coordinate of the gradient for itself; half of them are in. 0: no audit, which takes "
        "as long as fine-tuning.",
        unit="canaries",
        minimum=0,
        source="Steinke et al. 2023",
    )
    num_guesses: int = setting(
        500,
        "Canaries that are guessed about, the surest: half of them called in, half out.",
        unit="canaries",
        minimum=2,
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
        "`auto`: bfloat16 on GPUs that have it, and on CPUs with AMX.",
    )
    compile: bool = setting(
        False, "Compile the diffusion network (torch.compile); where that fails, a message says so."
    )
    microbatch_size: int | None = setting(
        None, "Images that `finetune` computes at once; none: as many as memory allows, by a trial.", minimum=1
    )


@dataclass(frozen=True)
class Public(Place):
    """A row of the table of public sets: fixes resolution, channels and the semantic query function."""

    resolution: int = setting(REQUIRED, "Side of the square images.", unit="pixels", minimum=4)
    channels: Literal[1, 3] = setting(REQUIRED, "1 for grey, 3 for RGB.")
    num_classes: int = setting(REQUIRED, "Public classes.", minimum=2)
    images_per_class: int | None = setting(
        None, "Images to draw of each class, for sources that are drawn.", minimum=10
    )
    margin: int = setting(
        0, "Black pixels left free around each drawn sign; MNIST's digits stand in 20 of 28.", unit="pixels", minimum=0
    )
    preprocess: PreprocessSettings = setting(PreprocessSettings(), "Overrides of `preprocess`.")
    classifier: ClassifierSettings = setting(ClassifierSettings(), "Overrides of `classifier`.")
    compute: ComputeSettings = setting(ComputeSettings(), "Overrides of `compute`.")


@dataclass(frozen=True)
class Dataset(Place):
    """A row of the table of sensitive sets: declared public constants, and what differs from the defaults."""

    public: str = setting(REQUIRED, "Row of `publics`: the public set, which fixes resolution and channels.")
    num_images: int = setting(REQUIRED, "Training images, declared: a public constant.", unit="images", minimum=1)
    class_names: tuple[str, ...] | None = setting(
        None,
        "Classes, declared: public constants. One name: unconditional. Left out: the names of the class folders under "
        "`path`, which are then taken to be public.",
    )
    delta: float = setting(REQUIRED, "Delta of the guarantee; well below 1 / num_images.", above=0, below=1)
    images_per_unit: int = setting(1, "Images that one person may have in the set, for a second epsilon.", minimum=1)
    budget: float | None = setting(
        None,
        "Epsilon that everything drawn from this set may cost together; required for images of one's own.",
        above=0,
    )
    reproducible_noise: bool = setting(False, "For tests only: noise from the seed. Voids the guarantee, and says so.")
    preprocess: PreprocessSettings = setting(PreprocessSettings(), "Overrides of `preprocess`.")
    select: SelectSettings = setting(SelectSettings(), "Overrides of `select`.")
    pretrain: PretrainSettings = setting(PretrainSettings(), "Overrides of `pretrain`.")
    finetune: FinetuneSettings = setting(FinetuneSettings(), "Overrides of `finetune`.")
    sample: SamplingSettings = setting(SamplingSettings(), "Overrides of `sample`.")
    quality: QualitySettings = setting(QualitySettings(), "Overrides of `quality`.")
    accuracy: AccuracySettings = setting(AccuracySettings(), "Overrides of `accuracy`.")
    semantics: SemanticsSettings = setting(SemanticsSettings(), "Overrides of `semantics`.")
    memorisation: MemorisationSettings = setting(MemorisationSettings(), "Overrides of `memorisation`.")
    membership: MembershipSettings = setting(MembershipSettings(), "Overrides of `membership`.")
    audit: AuditSettings = setting(AuditSettings(), "Overrides of `audit`.")
    release: ReleaseSettings = setting(ReleaseSettings(), "Overrides of `release`.")
    compute: ComputeSettings = setting(ComputeSettings(), "Overrides of `compute`.")


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
    images_per_class: int | None = setting(None, "Images to draw of each class.")
    margin: int = setting(0, "Black pixels left free around each drawn sign.", unit="pixels", minimum=0)


@dataclass(frozen=True)
class FeaturesSettings:
    """One network, and how many images of each split it looks at: the input of `features`."""

    network: Network = setting(Network(), "Row of `networks`.")
    num_reference: int | None = setting(None, "Images of each split, at most.", minimum=2)


@dataclass(frozen=True)
class ComparisonSettings:
    """One network, and what is compared in its features: the input of `quality`."""

    network: Network = setting(Network(), "Row of `networks`.")
    reference_split: Literal["train", "test"] = setting("train", "Real images to compare with.")
    num_synthetic: int | None = setting(None, "Synthetic images that count.", minimum=2)


@dataclass(frozen=True)
class JoinSettings:
    """What `preprocess` does with the shards of a source."""

    on_bad_image: Literal["error", "skip"] = setting("error", "Stop at images that cannot be used, or leave them out.")


@dataclass(frozen=True)
class Run:
    """What to run: names of rows, and numbers. Every combination is run."""

    datasets: tuple[str, ...] = setting(REQUIRED, "Rows of `datasets`.")
    methods: tuple[str, ...] = setting(REQUIRED, "Rows of `methods`.")
    epsilons: tuple[float, ...] = setting(REQUIRED, "Privacy budgets; each is a release of its own.", above=0)
    seeds: tuple[int, ...] = setting((0,), "Seeds of initialisation and sampling; never of privacy noise.", minimum=0)
