"""The two ways in which a public diffusion model makes images: from nothing, and from images that are there.

RANDOM draws an image of a label. VARIATION adds noise of some level to an image and takes it off again (SDEdit): the
higher the level, the less is left of the image. Neither knows of sensitive images, and both draw from the experiment's
seed alone.

Source: Lin et al., ICLR 2024 (RANDOM_API and VARIATION_API); Meng et al., ICLR 2022 (SDEdit).
"""

from __future__ import annotations

import torch
from torch import Tensor

from privimage import stopping
from privimage.compute import Compute
from privimage.diffusion.denoiser import Denoiser
from privimage.diffusion.drawing import sampled, to_bytes
from privimage.diffusion.loss import to_float
from privimage.diffusion.training import generator_for
from privimage.settings import SampleSettings

SIGMA_MAX = SampleSettings().sigma_max
BATCH_SIZE = 500  # part of the result, since it orders the noise


class Operators:
    """A public model's RANDOM and VARIATION. Each draw is named by numbers, so that it can be drawn again."""

    def __init__(self, model: Denoiser, num_steps: int, seed: int, compute: Compute) -> None:
        self.model = compute.place(model).eval().requires_grad_(False)
        self.num_steps, self.seed, self.compute = num_steps, seed, compute

    def random(self, labels: Tensor, *draw: int) -> Tensor:
        """An image of each label of the model's: int64 [N] -> uint8 [N, H, W, C], on the CPU."""
        return self._drawn(None, labels, SIGMA_MAX, draw)

    def variation(self, images: Tensor, labels: Tensor, sigma: float, *draw: int) -> Tensor:
        """An image like each of ``images`` uint8 [N, H, W, C], of its label [N], after noise of level ``sigma``."""
        return self._drawn(images, labels, sigma, draw)

    def generator(self, *draw: int) -> torch.Generator:
        """The generator of a draw that is no image."""
        return generator_for(self.seed, *draw)

    @torch.inference_mode()
    def _drawn(self, images: Tensor | None, labels: Tensor, sigma: float, draw: tuple[int, ...]) -> Tensor:
        shape = (self.model.channels, self.model.resolution, self.model.resolution)
        how, made = SampleSettings(num_steps=self.num_steps, sigma_max=sigma), []
        for number, start in enumerate(range(0, len(labels), BATCH_SIZE)):
            stopping.check()
            rows = slice(start, start + BATCH_SIZE)
            x = torch.randn((len(labels[rows]), *shape), generator=self.generator(*draw, number))  # [B, C, H, W]
            if images is not None:
                x += to_float(images[rows]) / sigma  # the sampler scales by sigma what it starts from
            made.append(to_bytes(sampled(self.model, how, self.compute, labels[rows], x)))
        return torch.cat(made)
