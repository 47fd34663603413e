"""Where an evolution starts: a public model that draws, a public classifier that sees, images that fit both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from privimage.classifiers.load import load_classifier
from privimage.diffusion.denoiser import denoiser_from
from privimage.errors import UserError
from privimage.evolution.loop import Evolution
from privimage.evolution.operators import Operators

if TYPE_CHECKING:
    from privimage.generators.contract import PrivateTask


def start(task: PrivateTask) -> tuple[Evolution, nn.Module]:
    """The evolution and the classifier; nothing has been drawn yet.

    Raises:
        UserError: if model, classifier, images and declaration do not fit each other, or nothing was pretrained.
    """
    _check(task)
    model, settings = denoiser_from(task.pretrained, "ema"), task.settings
    knows_classes = tuple(task.pretrained.facts["class_names"]) == task.declared.class_names
    operators = Operators(model, settings.num_sampler_steps, task.seed, task.compute)
    num_classes = len(task.declared.class_names)
    evolution = Evolution(operators, num_classes, settings, public_labels=not knows_classes)
    return evolution, load_classifier(task.classifier).to(task.compute.device)


def _check(task: PrivateTask) -> None:
    if not task.pretrained.facts["num_images"]:
        raise UserError(
            "the generator `evolution` trains nothing and got a model that no public image was shown to; give the "
            "method another policy of public data than `none`."
        )
    if task.images.class_names != task.declared.class_names:
        raise UserError("the sensitive images have other classes than declared; rerun preprocess.")
    if task.settings.population_size < len(task.declared.class_names):
        raise UserError(
            f"population_size is {task.settings.population_size}; expected at least one image for each of the "
            f"{len(task.declared.class_names)} classes."
        )
    shape = task.images.images.shape[2:]
    for what, weights in (("pretrained model", task.pretrained), ("classifier", task.classifier)):
        found = weights.network["resolution"], weights.network["channels"]
        if found != shape:
            raise UserError(
                f"the {what} is for {found[0]} pixels and {found[1]} channels, the sensitive images have {shape[0]} "
                f"and {shape[1]}; use one public row for all."
            )
