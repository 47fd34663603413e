"""The diffusion model of latents: EDM between the two halves of an autoencoder of public images.

Private training is DP-SGD on the latents of the sensitive images. The autoencoder has seen public images alone and
encodes each image by itself, without a draw: one sensitive image more is one latent more, so that sensitivity, sampling
and accounting are those of images.

Source: Liu et al. 2023 (DP-LDM); Tsai et al. 2025 (DP-LoRA); Rombach et al. 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from privimage.diffusion.autoencoder_settings import AutoencoderSettings
from privimage.errors import UserError
from privimage.generators import diffusion
from privimage.generators.diffusion import event
from privimage.generators.words import Words
from privimage.setting import setting
from privimage.settings import FinetuneSettings, PretrainSettings, SampleSettings

if TYPE_CHECKING:
    from privimage.artifacts import Weights
    from privimage.compute import Compute
    from privimage.diffusion.autoencoder import Autoencoder
    from privimage.diffusion.denoiser import Denoiser
    from privimage.generators.contract import Drawer, Made, Pretraining, PrivateTask
    from privimage.measurements import Curve
    from privimage.privacy.damping import Damping
    from privimage.privacy.ledger import Release
    from privimage.private_training import Mechanism

    Start = tuple[Denoiser, Damping | None, Autoencoder]

__all__ = ["event"]
VERSION = 1
PRETRAINED = PRIVATE = "latent-diffusion"
HAS_LOSS, GUIDED, READS_CLASSIFIER, IN_SEVERAL_PROCESSES = False, True, False, True


@dataclass(frozen=True)
class LatentPretrainSettings(PretrainSettings):
    """Training of the autoencoder on the whole public set, and of the diffusion model on selected images' latents."""

    autoencoder: AutoencoderSettings = setting(
        AutoencoderSettings(), "Between images and latents; the network's resolutions are those of latents."
    )


@dataclass(frozen=True)
class Settings:
    """Latent diffusion. Its private training is as `finetune` says."""

    pretrain: LatentPretrainSettings = setting(LatentPretrainSettings(), "In place of the section `pretrain`.")


def words(settings: FinetuneSettings) -> Words:
    """A diffusion model of latents, and the autoencoder beside it."""
    same = diffusion.words(settings)
    encoded = "What it sees of an image is the code that an autoencoder, trained on public images alone, makes of it."
    return replace(
        same,
        origin="a latent diffusion model that was trained on the sensitive images with differential privacy",
        weights=f"{same.weights}; and the autoencoder, which has seen public images alone",
        beside=" ".join([encoded, same.beside]).strip(),
    )


def pretrain(task: Pretraining) -> Made:
    """The autoencoder, trained on the whole public set, and the model, trained on the latents of selected images.

    Raises:
        UserError: if there are no images to train on, or they are too small for the network.
    """
    from privimage.diffusion.autoencoder import train_autoencoder
    from privimage.diffusion.denoiser import new_denoiser
    from privimage.diffusion.pretraining import pretrained

    settings, public, compute = task.settings, task.public.images, task.compute
    if not len(task.index):
        raise UserError("latent diffusion needs public images to pretrain on; give its method another policy.")
    side, channels = _side(public.shape[2], settings), settings.autoencoder.latent_channels
    autoencoder = train_autoencoder(
        public,
        settings.autoencoder,
        task.seed,
        sigma_data=settings.network.sigma_data,
        horizontal_flip=settings.horizontal_flip,
        checkpoint=task.checkpoint,
        compute=compute,
        group=task.group,
    )
    model = compute.place(new_denoiser(settings.network, side, channels, len(task.class_names), task.seed))
    model, ema = pretrained(model, task, autoencoder.encode)
    facts = {"class_names": list(task.class_names), "policy": task.subset.policy, "num_images": len(task.index)}
    return _made(model, ema, autoencoder, facts)


def prepare(task: PrivateTask) -> Start:
    """The pretrained model with an embedding for each sensitive class, how gradients are damped, the autoencoder."""
    from privimage.private_training import starting_model
    from privimage.public_directions import check_enough, damping_of

    check_enough(task)
    autoencoder = _autoencoder(task.pretrained)
    side = task.pretrained.network["resolution"] * autoencoder.settings.factor
    pixels = (side, autoencoder.channels)
    model = starting_model(task.pretrained, task.declared, task.images, task.settings, task.seed, pixels)
    autoencoder = task.compute.place(autoencoder)
    return model, damping_of(model, task, autoencoder.encode), autoencoder


def finetune(start: Start, task: PrivateTask, mechanism: Mechanism, release: Release) -> tuple[Made, Curve]:
    """The model after DP-SGD on latents; the autoencoder is as it was."""
    from privimage.diffusion.adapters import merged
    from privimage.private_training import run

    model, damping, autoencoder = start
    mechanism = replace(mechanism, damping=damping)
    model, ema, curve = run(model, task.images, mechanism, release, task.group, autoencoder.encode)
    facts = {"class_names": list(task.declared.class_names)}
    return _made(merged(model), merged(ema), autoencoder, facts), curve


def assist(start: Start, task: PrivateTask) -> None:
    """This process computes its share of every step."""
    from privimage.private_training import assist

    model, damping, autoencoder = start
    assist(model, task.images, task.settings, task.compute, task.group, autoencoder.encode, damping)


def drawer(weights: Weights, settings: SampleSettings, compute: Compute, pretrained: Weights | None = None) -> Drawer:
    """The sampler over the averaged weights, whose latents are decoded."""
    from privimage.diffusion.denoiser import denoiser_from
    from privimage.diffusion.drawing import latent_drawer, public_guide

    model, autoencoder = denoiser_from(weights, "ema"), compute.place(_autoencoder(weights))
    side = model.resolution * autoencoder.settings.factor
    shape = (side, side, autoencoder.channels)
    return latent_drawer(model, autoencoder.decode, shape, settings, compute, public_guide(pretrained))


def _side(resolution: int, settings: LatentPretrainSettings) -> int:
    """Of the latents.

    Raises:
        UserError: if images cannot be halved so often.
    """
    factor = settings.autoencoder.factor
    levels = len(settings.network.widths(resolution // factor)[1])
    if resolution % (factor * 2 ** (levels - 1)):
        raise UserError(
            f"images of {resolution} pixels cannot be halved by an autoencoder of factor {factor} and then "
            f"{levels - 1} times by a network of {levels} levels; lower `autoencoder.factor` or leave out levels."
        )
    return resolution // factor


def _autoencoder(weights: Weights) -> Autoencoder:
    from privimage.diffusion.autoencoder import autoencoder_from

    return autoencoder_from(weights.network["autoencoder"], weights.group("autoencoder"))


def _made(model: Denoiser, ema: Denoiser, autoencoder: Autoencoder, facts: dict) -> Made:
    from privimage.checkpoints import flatten
    from privimage.generators.contract import Made

    tensors = {**flatten("raw", model.state_dict()), **flatten("ema", ema.state_dict())}
    tensors |= flatten("autoencoder", autoencoder.state_dict())
    return Made(PRIVATE, tensors, {**model.describe(), "autoencoder": autoencoder.describe()}, facts)
