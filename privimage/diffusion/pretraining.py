"""Pretraining in one or two stretches: on the whole public set, perhaps, and then on what was selected of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from privimage.diffusion.denoiser import Denoiser, adopt_labels, forget_labels, new_denoiser
from privimage.diffusion.images import Encode
from privimage.diffusion.training import train
from privimage.generators.contract import Pretraining

WHOLE = 3  # part of the checkpoint; 0 is that of the second stretch


def pretrained(model: Denoiser, task: Pretraining, encode: Encode | None = None) -> tuple[Denoiser, Denoiser]:
    """The model and the average of its weights after all steps; the model itself is trained, or another beside it.

    Shapes: as ``Pretraining``; the labels' number is the model's, or the model has none. ``encode`` turns images into
    what the model is of.
    """
    settings = task.settings
    num_whole = round(settings.whole_fraction * settings.num_steps) if task.subset.policy in ("query", "random") else 0
    if num_whole:
        model = _after_whole(model, task, num_whole, encode)
    labels = _seen(torch.from_numpy(task.labels), model, task)
    rest = replace(settings, num_steps=settings.num_steps - num_whole)
    how = (rest, task.seed, task.checkpoint, task.compute, task.group, encode)
    ema = train(model, task.public.images, task.index, labels, *how)
    if not settings.conditional and model.num_labels > 1:
        for each in (model, ema):
            forget_labels(each)
    return model, ema


def _after_whole(model: Denoiser, task: Pretraining, num_steps: int, encode: Encode | None) -> Denoiser:
    """The model after so many steps on the whole public set, with an embedding for each label of the selection."""
    public, several = task.public, model.num_labels > 1
    names = public.class_names if several else task.class_names
    shape = (model.settings, model.resolution, model.channels)
    whole = task.compute.place(new_denoiser(*shape, len(names), task.seed))
    labels = torch.from_numpy(public.labels if several else np.zeros_like(public.labels))
    first = replace(task.settings, num_steps=num_steps)
    how = (first, task.seed, task.checkpoint, task.compute, task.group, encode, WHOLE)
    train(whole, public.images, np.arange(len(labels)), _seen(labels, whole, task), *how)
    if not several:
        return whole
    origins = [[names.index(name) for name in task.subset.classes[label]] for label in task.class_names]
    return task.compute.place(adopt_labels(whole, len(task.class_names), origins))


def _seen(labels: Tensor, model: Denoiser, task: Pretraining) -> Tensor:
    return labels if task.settings.conditional else torch.full_like(labels, model.num_labels)
