"""The images of a population, handed out as if they were drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from privimage.artifacts import Weights
from privimage.errors import UserError
from privimage.generators.contract import Drawer
from privimage.settings import SampleSettings


def drawer_of(population: Weights, settings: SampleSettings) -> Drawer:
    """Image i is member i: the labels of both go through the classes in turn.

    Raises:
        UserError: if more images are wanted than there are.
    """
    images, known = population.tensors["images"], population.tensors["labels"]
    if settings.num_images > len(images):
        raise UserError(
            f"sample.num_images is {settings.num_images}, and the population has {len(images)} images; lower it, or "
            "raise population_size of the generator `evolution`, which makes another release."
        )

    def draw(labels: Tensor, first: int, generator: torch.Generator) -> Tensor:
        rows = slice(first, first + len(labels))
        if not torch.equal(known[rows], labels):
            raise UserError(f"a population has other labels from image {first} on than were asked for; rerun finetune.")
        return images[rows]

    return Drawer(tuple(images.shape[1:]), draw)
