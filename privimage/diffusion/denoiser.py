"""The denoiser ``D(x, sigma, labels)``: the network between EDM's preconditioning.

Source: Karras et al. 2022, equation 7 and table 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from privimage.artifacts import ArtifactError, Weights
from privimage.diffusion.network import UNet
from privimage.schema import build, plain
from privimage.settings import NetworkSettings


class Denoiser(nn.Module):
    """The best guess of a clean image from a noisy one."""

    def __init__(self, settings: NetworkSettings, resolution: int, channels: int, num_labels: int) -> None:
        super().__init__()
        self.settings, self.resolution, self.channels = settings, resolution, channels
        self.network = UNet(settings, resolution, channels, num_labels)

    @property
    def num_labels(self) -> int:
        """Classes; the index ``num_labels`` means 'no label'."""
        return self.network.num_labels

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """D [N, C, H, W] for x [N, C, H, W] in [-1, 1] plus noise of level sigma [N], labels int64 [N]."""
        data = self.settings.sigma_data
        s = sigma[:, None, None, None]  # [N, 1, 1, 1]
        total = s**2 + data**2
        c_skip, c_out, c_in = data**2 / total, s * data / total.sqrt(), 1 / total.sqrt()
        return c_skip * x + c_out * self.network(c_in * x, sigma.log() / 4, labels)

    def describe(self) -> dict[str, Any]:
        """What ``denoiser_from`` needs to build this network again."""
        shape = {"resolution": self.resolution, "channels": self.channels, "num_labels": self.num_labels}
        return {"settings": plain(self.settings), **shape}


def new_denoiser(settings: NetworkSettings, resolution: int, channels: int, num_labels: int, seed: int) -> Denoiser:
    """A denoiser whose weights depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Denoiser(settings, resolution, channels, num_labels)


def denoiser_from(weights: Weights, group: str) -> Denoiser:
    """The denoiser that an artifact holds, beside an autoencoder perhaps; ``group`` is ``raw`` or ``ema``.

    Raises:
        ArtifactError: if the weights do not fit the network that the artifact describes.
    """
    made = new_denoiser(**_network(weights.network), seed=0)
    try:
        made.load_state_dict(weights.group(group))
    except RuntimeError as error:
        raise ArtifactError(f"diffusion weights do not fit their network ({error}); rerun the stage.") from error
    return made


def adopt_labels(model: Denoiser, num_labels: int, origins: Sequence[Sequence[int]] | None = None) -> Denoiser:
    """The same network for new classes, each starting at the mean of the embeddings of the old ones it comes from.

    ``origins`` are the old classes of each new one; all of them for each, if it is left out. No embedding is left
    untrained by pretraining; the one of 'no label' is kept.
    """
    made = new_denoiser(model.settings, model.resolution, model.channels, num_labels, seed=0)
    state = dict(model.state_dict())
    old = state["network.label_embedding.weight"]  # [old classes + 1, width]
    origins = origins or [range(len(old) - 1)] * num_labels
    rows = [old[list(origin)].mean(dim=0) for origin in origins]
    state["network.label_embedding.weight"] = torch.stack([*rows, old[-1]])
    made.load_state_dict(state)
    return made


def forget_labels(model: Denoiser) -> None:
    """Every label's embedding is that of 'no label'."""
    with torch.no_grad():
        weight = model.network.label_embedding.weight  # [classes + 1, width]
        weight[:-1] = weight[-1]


def _network(described: Mapping[str, Any]) -> dict[str, Any]:
    shape = {name: described[name] for name in ("resolution", "channels", "num_labels")}
    return {"settings": build(NetworkSettings, described["settings"], "network"), **shape}
