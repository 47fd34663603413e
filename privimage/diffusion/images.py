"""A set of images where a model is trained on it: on a GPU that has room, or in a file that is read as needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from privimage.diffusion.loss import to_float

Encode = Callable[[Tensor], Tensor]
SHARE = 0.25  # of a GPU's free memory that images may take


class Images:
    """Labelled images by number: uint8 [N, H, W, C], memory-mapped and never copied as a whole on a CPU; int64 [N].

    ``encode`` maps images to latents, each by itself, for a model of latents; without one images are what they are.
    """

    def __init__(
        self, pixels: np.ndarray, labels: np.ndarray, device: torch.device, encode: Encode | None = None
    ) -> None:
        self.device, self.labels, self.pixels = device, torch.from_numpy(labels).to(device), pixels
        self.encode = encode
        if device.type == "cuda" and pixels.nbytes < SHARE * torch.cuda.mem_get_info(device)[0]:
            self.pixels = torch.from_numpy(np.array(pixels)).to(device)

    def at(self, index: Tensor, flip: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The images [B, C, H, W] in [-1, 1], or their latents, and labels [B] at an index [B], on the device.

        Those whose ``flip`` [B] says so are mirrored.
        """
        index = index.to(self.device)
        if isinstance(self.pixels, Tensor):
            found = self.pixels[index]  # [B, H, W, C]
        else:
            found = torch.from_numpy(self.pixels[index.cpu().numpy()]).to(self.device)
        x = to_float(found)
        if flip is not None:
            x = torch.where(flip[:, None, None, None], x.flip(3), x)
        return self.encode(x) if self.encode else x, self.labels[index]
