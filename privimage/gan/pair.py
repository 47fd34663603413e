"""The pair of generator and discriminator: made from a seed, kept in an artifact, given new classes.

Source: Brock et al. 2019 (orthogonal initialisation, standing statistics); Miyato et al. 2018 (spectral normalisation).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

from privimage.artifacts import ArtifactError
from privimage.gan.networks import Discriminator, Generator
from privimage.gan.settings import GanNetworkSettings
from privimage.schema import build, plain

LAYERS = (nn.Conv2d, nn.Linear)
FIRST_ITERATIONS = 15  # of the power method
STANDING_BATCHES, STANDING_SIZE = 8, 128  # what batch normalisation averages over before images are drawn


class SpectralNorm(nn.Module):
    """A weight over its largest singular value, whose estimate each pass in training betters; in full precision."""

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows = weight.detach().flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(rows.shape[0]), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(rows.shape[1]), dim=0))
        for _ in range(FIRST_ITERATIONS):
            self._iterate(rows)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, of spectral norm one."""
        with torch.autocast(weight.device.type, enabled=False):
            rows = weight.flatten(1)
            if self.training:
                self._iterate(rows)
            return weight / torch.dot(self.u.clone(), rows @ self.v.clone())  # copies: the next pass changes them

    @torch.no_grad()
    def _iterate(self, rows: Tensor) -> None:
        self.u.copy_(F.normalize(rows @ self.v, dim=0))
        self.v.copy_(F.normalize(rows.T @ self.u, dim=0))


class Pair(nn.Module):
    """Generator and discriminator."""

    def __init__(self, settings: GanNetworkSettings, resolution: int, channels: int, num_labels: int) -> None:
        super().__init__()
        self.settings, self.resolution, self.channels, self.num_labels = settings, resolution, channels, num_labels
        self.generator = Generator(settings, resolution, channels, num_labels)
        self.discriminator = Discriminator(settings, resolution, channels, num_labels)
        for module in self.modules():
            if isinstance(module, (*LAYERS, nn.Embedding)):
                nn.init.orthogonal_(module.weight)
            if isinstance(module, LAYERS) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for module in list(self.generator.modules()):
            if isinstance(module, LAYERS):
                register_parametrization(module, "weight", SpectralNorm(module.weight))

    def describe(self) -> dict[str, Any]:
        """What ``pair_from`` needs to build these networks again."""
        shape = {"resolution": self.resolution, "channels": self.channels, "num_labels": self.num_labels}
        return {"settings": plain(self.settings), **shape}


def new_pair(settings: GanNetworkSettings, resolution: int, channels: int, num_labels: int, seed: int) -> Pair:
    """A pair whose weights depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Pair(settings, resolution, channels, num_labels)


def pair_from(
    network: Mapping[str, Any], generator: Mapping[str, Any], discriminator: Mapping[str, Any] | None
) -> Pair:
    """The pair that an artifact describes, with these weights; without a discriminator's, an untrained one.

    Raises:
        ArtifactError: if the weights do not fit the networks.
    """
    made = new_pair(**{**network, "settings": build(GanNetworkSettings, network["settings"], "network")}, seed=0)
    try:
        made.generator.load_state_dict(generator)
        if discriminator is not None:
            made.discriminator.load_state_dict(discriminator)
    except RuntimeError as error:
        raise ArtifactError(f"the weights do not fit their networks ({error}); rerun the stage.") from error
    return made


def adopt_labels(pair: Pair, num_labels: int) -> Pair:
    """The same networks for ``num_labels`` new classes, each starting at the mean of the old classes' embeddings."""
    made = new_pair(pair.settings, pair.resolution, pair.channels, num_labels, seed=0)
    state = dict(pair.state_dict())
    for name in ("generator.label_embedding.weight", "discriminator.label_embedding.weight"):
        state[name] = state[name].mean(dim=0, keepdim=True).expand(num_labels, -1)
    made.load_state_dict(state)
    return made


def labels_in_turn(count: int, num_labels: int, device: torch.device) -> torch.Tensor:
    """Labels 0, 1, 2, … in turn: as many of each class as the number allows."""
    return torch.arange(count, device=device) % num_labels


@torch.no_grad()
def settle(generator: Generator, num_labels: int, random: torch.Generator) -> None:
    """Batch normalisation has the statistics of what the generator makes now of all labels alike."""
    norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    device = next(generator.parameters()).device
    generator.eval()  # spectral normalisation stays as it is
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    for _ in range(STANDING_BATCHES):
        z = torch.randn(STANDING_SIZE, generator.latent_size, generator=random, device=random.device).to(device)
        generator(z, labels_in_turn(STANDING_SIZE, num_labels, device))
    for norm in norms:
        norm.momentum = 0.1
    generator.eval()
