"""The diffusion model of pixels: EDM, trained by DP-SGD (Dockhorn et al. 2023; Li et al. 2024)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from privimage.generators.words import Words
from privimage.privacy.event import Event
from privimage.settings import FinetuneSettings, SampleSettings

if TYPE_CHECKING:
    from privimage.artifacts import Weights
    from privimage.compute import Compute
    from privimage.diffusion.denoiser import Denoiser
    from privimage.generators.contract import Drawer, Made, Pretraining, PrivateTask
    from privimage.measurements import Curve
    from privimage.privacy.damping import Damping
    from privimage.privacy.ledger import Release
    from privimage.private_training import Mechanism

    Start = tuple[Denoiser, Damping | None]

VERSION = 1
PRETRAINED = PRIVATE = "diffusion"
HAS_LOSS, GUIDED, READS_CLASSIFIER, IN_SEVERAL_PROCESSES = True, True, False, True
Settings = None  # the sections `pretrain` and `finetune` are this generator's
CONDITIONED = "layers of attention and those that tell the network the label and the noise level"
TRAINED = {  # in words
    "all": "",
    "attention": f"Only the {CONDITIONED} are trained; all other weights stay as pretraining left them.",
    "lora": f"Only low-rank adapters beside the {CONDITIONED}, and the embedding of labels, are trained; all other "
    "weights stay as pretraining left them.",
}


def event(settings: FinetuneSettings) -> Event:
    """DP-SGD, with noise multiplier 1."""
    return Event("poisson_gaussian", 1.0, settings.sampling_probability, settings.num_steps)


def words(settings: FinetuneSettings) -> Words:
    """A diffusion model, or the part of it that was trained privately."""
    copies = settings.noise_levels_per_image
    damped = settings.damped_directions
    told = f", damped along at most {damped} directions that gradients of public images tell" if damped else ""
    return Words(
        origin="a diffusion model that was trained on the sensitive images with differential privacy",
        weights="the private model: its weights and their moving average",
        step=f"averages an image's gradient over {copies} noise level{'s' if copies > 1 else ''}{told}",
        beside=TRAINED[settings.trained],
    )


def pretrain(task: Pretraining) -> Made:
    """The model trained on the public images, or only initialised; in several processes the same up to rounding."""
    from privimage.diffusion.denoiser import new_denoiser
    from privimage.diffusion.pretraining import pretrained

    resolution, channels = task.public.images.shape[2:]
    network = task.settings.network
    model = task.compute.place(new_denoiser(network, resolution, channels, len(task.class_names), task.seed))
    model, ema = pretrained(model, task) if len(task.index) else (model, model)
    facts = {"class_names": list(task.class_names), "policy": task.subset.policy, "num_images": len(task.index)}
    return _made(model, ema, facts)


def prepare(task: PrivateTask) -> Start:
    """The pretrained model with an embedding for each sensitive class, and how gradients are damped from there."""
    from privimage.private_training import starting_model
    from privimage.public_directions import check_enough, damping_of

    check_enough(task)
    model = starting_model(task.pretrained, task.declared, task.images, task.settings, task.seed)
    return model, damping_of(model, task)


def finetune(start: Start, task: PrivateTask, mechanism: Mechanism, release: Release) -> tuple[Made, Curve]:
    """The model after DP-SGD."""
    from privimage.diffusion.adapters import merged
    from privimage.private_training import run

    model, damping = start
    model, ema, curve = run(model, task.images, replace(mechanism, damping=damping), release, task.group)
    return _made(merged(model), merged(ema), {"class_names": list(task.declared.class_names)}), curve


def assist(start: Start, task: PrivateTask) -> None:
    """This process computes its share of every step."""
    from privimage.private_training import assist

    model, damping = start
    assist(model, task.images, task.settings, task.compute, task.group, damping=damping)


def drawer(weights: Weights, settings: SampleSettings, compute: Compute, pretrained: Weights | None = None) -> Drawer:
    """The sampler over the averaged weights."""
    from privimage.diffusion.denoiser import denoiser_from
    from privimage.diffusion.drawing import drawer_of, public_guide

    return drawer_of(denoiser_from(weights, "ema"), settings, compute, public_guide(pretrained))


def _made(model: Denoiser, ema: Denoiser, facts: dict) -> Made:
    from privimage.checkpoints import flatten
    from privimage.generators.contract import Made

    tensors = {**flatten("raw", model.state_dict()), **flatten("ema", ema.state_dict())}
    return Made("diffusion", tensors, model.describe(), facts)
