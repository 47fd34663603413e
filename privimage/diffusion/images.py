"""A set of images where a model is trained on it: on a GPU that has room, or in a file that is read as needed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from privimage.diffusion.loss import to_float

SHARE = 0.25  # of a GPU's free memory that images may take


class Images:
    """Labelled images by number: uint8 [N, H, W, C], memory-mapped and never copied as a whole on a CPU; int64 [N]."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, device: torch.device) -> None:
        self.device, self.labels, self.pixels = device, torch.from_numpy(labels).to(device), pixels
        if device.type == "cuda" and pixels.nbytes < SHARE * torch.cuda.mem_get_info(device)[0]:
            self.pixels = torch.from_numpy(np.array(pixels)).to(device)

    def at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The images [B, C, H, W] in [-1, 1] and labels [B] at an index [B], on the device."""
        index = index.to(self.device)
        if isinstance(self.pixels, Tensor):
            found = self.pixels[index]  # [B, H, W, C]
        else:
            found = torch.from_numpy(self.pixels[index.cpu().numpy()]).to(self.device)
        return to_float(found), self.labels[index]
