"""Every setting of the stages that measure: as in ``settings``, a frozen dataclass a stage. Imports without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from privimage.networks import Network
from privimage.setting import setting

DEEP = ("cnn", "wrn", "resnet", "resnext")  # classifiers that are trained in epochs


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
        1, "Jobs that share the real images for each network; changes the time alone.", unit="jobs", minimum=1,
        maximum=10_000,
    )  # fmt: skip


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
        "as long as fine-tuning with one noise level an image.",
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
