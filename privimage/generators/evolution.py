"""Private Evolution: the sensitive images vote on what the public diffusion model draws; no weight ever sees them.

Source: Lin et al., "Differentially Private Synthetic Data via Foundation Model APIs 1: Images", ICLR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from privimage.generators import diffusion
from privimage.generators.words import Words
from privimage.privacy.event import Event
from privimage.setting import setting
from privimage.settings import SampleSettings

if TYPE_CHECKING:
    from privimage.artifacts import Weights
    from privimage.compute import Compute
    from privimage.generators.contract import Drawer, Made, Pretraining, PrivateTask
    from privimage.measurements import Curve
    from privimage.privacy.ledger import Release
    from privimage.private_training import Mechanism

VERSION = 1
PRETRAINED, PRIVATE = diffusion.PRETRAINED, "population"
HAS_LOSS, GUIDED, READS_CLASSIFIER, IN_SEVERAL_PROCESSES = False, False, True, False
PAPER = "Lin et al. 2024, CIFAR-10"
SIGMA_MIN = SampleSettings().sigma_min


@dataclass(frozen=True)
class EvolutionSettings:
    """Generations of candidates on which sensitive images vote. The votes' noise is calibrated from the ledger."""

    population_size: int = setting(
        50_000,
        "Images of the last generation, spread evenly over the classes; no more can be drawn.",
        unit="images",
        minimum=1,
        source=PAPER,
    )
    candidates_per_class: int = setting(
        5_000,
        "Candidates that the images of a class vote on in each generation. Few, where there are few images: noise on "
        "each candidate's votes is the same however many share them.",
        unit="images",
        minimum=1,
        source=PAPER,
    )
    num_generations: int = setting(
        20, "Generations; each is one more vote of every image.", unit="generations", minimum=1, source=PAPER
    )
    threshold: float = setting(
        2.0, "Noisy votes below so many standard deviations of their noise count as none.", minimum=0
    )
    lookahead: int = setting(
        8,
        "Variations of a candidate whose mean features stand for it in a vote; 0: its own features.",
        minimum=0,
        source=PAPER,
    )
    sigma_first: float = setting(20.0, "Noise level of the first variations; more changes more.", above=SIGMA_MIN)
    sigma_last: float = setting(
        1.0, "Noise level of the last variations; between, it falls geometrically.", above=SIGMA_MIN
    )
    num_sampler_steps: int = setting(20, "Noise levels of the solver's grid in each drawing.", unit="steps", minimum=2)


@dataclass(frozen=True)
class Settings:
    """Pretraining is the diffusion model's."""

    finetune: EvolutionSettings = setting(EvolutionSettings(), "Generations and votes.")


def event(settings: EvolutionSettings) -> Event:
    """A vote of every image in each generation: one image more adds 1 to one count."""
    return Event("discrete_gaussian", 1.0, num_steps=settings.num_generations)


def words(settings: EvolutionSettings) -> Words:
    """The public diffusion model, and what the votes made of its images."""
    return Words(
        origin="a diffusion model that learnt from public images alone; the sensitive images voted on what it drew, "
        "with differential privacy",
        weights="the last generation, from which the images are taken",
    )


def pretrain(task: Pretraining) -> Made:
    """The public diffusion model."""
    return diffusion.pretrain(task)


def prepare(task: PrivateTask) -> Any:
    """The evolution and the classifier that its votes are cast by.

    Raises:
        UserError: if model, classifier, images and declaration do not fit each other, or nothing was pretrained.
    """
    from privimage.evolution.start import start

    return start(task)


def finetune(start: Any, task: PrivateTask, mechanism: Mechanism, release: Release | None) -> tuple[Made, Curve]:
    """The last generation."""
    from privimage.evolution.loop import Voting, run
    from privimage.generators.contract import Made

    evolution, classifier = start
    voting = Voting(task.images, classifier, mechanism.noise_multiplier, mechanism.key, mechanism.compute)
    made, curve = run(evolution, voting, release)
    names = task.declared.class_names
    _, resolution, _, channels = made.images.shape
    network = {"resolution": resolution, "channels": channels, "num_labels": len(names)}
    tensors = {"images": made.images, "labels": made.labels}
    return Made(PRIVATE, tensors, network, {"class_names": list(names)}), curve


def drawer(weights: Weights, settings: SampleSettings, compute: Compute, pretrained: Weights | None = None) -> Drawer:
    """The images of the last generation, in their order, which is that of ``sample``'s labels.

    Raises:
        UserError: if more images are wanted than there are.
    """
    from privimage.evolution.members import drawer_of

    return drawer_of(weights, settings)
