"""The generative adversarial network, whose discriminator is trained by DP-SGD (Li et al. 2024; Xie et al. 2018).

What leaves is the generator, which has seen sensitive images through the private discriminator alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from privimage.gan.settings import GanFinetuneSettings, GanPretrainSettings
from privimage.generators.words import Words
from privimage.privacy.event import Event
from privimage.setting import setting
from privimage.settings import SampleSettings

if TYPE_CHECKING:
    from torch import Tensor

    from privimage.artifacts import Weights
    from privimage.compute import Compute
    from privimage.gan.pair import Pair
    from privimage.generators.contract import Drawer, Made, Pretraining, PrivateTask
    from privimage.measurements import Curve
    from privimage.privacy.ledger import Release
    from privimage.private_training import Mechanism

VERSION = 1
PRETRAINED, PRIVATE = "gan-pair", "gan"
HAS_LOSS, GUIDED, READS_CLASSIFIER, IN_SEVERAL_PROCESSES = False, False, False, False


@dataclass(frozen=True)
class Settings:
    """The generative adversarial network."""

    pretrain: GanPretrainSettings = setting(GanPretrainSettings(), "Training on public images, for this generator.")
    finetune: GanFinetuneSettings = setting(GanFinetuneSettings(), "DP-SGD on sensitive images, for this generator.")


def event(settings: GanFinetuneSettings) -> Event:
    """DP-SGD on the discriminator, with noise multiplier 1."""
    return Event("poisson_gaussian", 1.0, settings.sampling_probability, settings.num_steps)


def words(settings: GanFinetuneSettings) -> Words:
    """The generator, and the discriminator that stays behind."""
    return Words(
        origin="the generator of a generative adversarial network, whose discriminator was trained on the sensitive "
        "images with differential privacy",
        weights="the private generator: its weights and their moving average",
        step="pairs it with an image that the generator makes, takes the pair's gradient of the discriminator's loss",
        beside="The generator learns from the discriminator alone, under labels that are spread evenly, and never sees "
        "a sensitive image.",
    )


def pretrain(task: Pretraining) -> Made:
    """Generator and discriminator trained on the public images, or only initialised."""
    import torch

    from privimage.checkpoints import flatten
    from privimage.gan.pair import new_pair
    from privimage.gan.training import train
    from privimage.generators.contract import Made

    resolution, channels = task.public.images.shape[2:]
    made = new_pair(task.settings.network, resolution, channels, len(task.class_names), task.seed)
    pair = task.compute.place(made)
    ema, labels = pair.generator, torch.from_numpy(task.labels)
    if len(task.index):
        how = (task.settings, task.seed, task.checkpoint, task.compute)
        ema = train(pair, task.public.images, task.index, labels, *how)
    tensors = {**flatten("raw", pair.state_dict()), **flatten("ema.generator", ema.state_dict())}
    facts = {"class_names": list(task.class_names), "policy": task.subset.policy, "num_images": len(task.index)}
    return Made(PRETRAINED, tensors, pair.describe(), facts)


def prepare(task: PrivateTask) -> Pair:
    """The pretrained pair, its generator averaged, with embeddings for each sensitive class."""
    from privimage.checkpoints import group
    from privimage.diffusion.training import generator_for
    from privimage.gan.pair import adopt_labels, pair_from, settle
    from privimage.private_training import check_start

    raw, ema = (task.pretrained.group(name) for name in ("raw", "ema"))
    pair = pair_from(task.pretrained.network, group("generator", ema), group("discriminator", raw))
    check_start(pair, task.declared, task.images)
    if tuple(task.pretrained.facts["class_names"]) != task.declared.class_names:
        pair = adopt_labels(pair, len(task.declared.class_names))
    pair = task.compute.place(pair)
    settle(pair.generator, pair.num_labels, generator_for(task.seed, device=task.compute.device))
    return pair


def finetune(start: Pair, task: PrivateTask, mechanism: Mechanism, release: Release) -> tuple[Made, Curve]:
    """The generator after DP-SGD on the discriminator."""
    from privimage.checkpoints import flatten
    from privimage.generators.contract import Made
    from privimage.private_gan_training import run

    generator, ema, curve = run(start, task.images, mechanism, release)
    tensors = {**flatten("raw", generator.state_dict()), **flatten("ema", ema.state_dict())}
    return Made(PRIVATE, tensors, start.describe(), {"class_names": list(task.declared.class_names)}), curve


def drawer(weights: Weights, settings: SampleSettings, compute: Compute, pretrained: Weights | None = None) -> Drawer:
    """The generator with averaged weights. Of the settings, none acts on it: an image is one forward pass."""
    import torch

    from privimage.diffusion.drawing import to_bytes
    from privimage.gan.pair import pair_from
    from privimage.gan.training import latent
    from privimage.generators.contract import Drawer

    pair = pair_from(weights.network, weights.group("ema"), None)
    generator = compute.place(pair.generator).eval().requires_grad_(False)

    def draw(labels: Tensor, first: int, random: torch.Generator) -> Tensor:
        z = latent(generator, len(labels), random).to(compute.device)
        with compute.autocast():
            return to_bytes(generator(z, labels.to(compute.device)).float())  # of [n, C, H, W]

    return Drawer((pair.resolution, pair.resolution, pair.channels), draw)
