"""Ordinary training of any classifier: stochastic gradient descent with momentum and a cosine to zero.

Everything drawn depends on the seed and the epoch alone, so that a run goes on exactly where it stopped. In several
processes each computes its share of a step's batch; the weights are those of a single one up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from privimage.artifacts import ImageSet
from privimage.checkpoints import flatten
from privimage.checkpoints import group as under
from privimage.classifiers.inference import to_float
from privimage.classifiers.shared_norm import share_statistics
from privimage.compute import Compute
from privimage.data_parallel import averaging, prepare, spread
from privimage.device import default_device
from privimage.distributed import ALONE, Group, unbroken
from privimage.errors import UserError
from privimage.progress import progress
from privimage.settings import ComputeSettings

FLOAT32 = Compute(ComputeSettings(precision="float32"))


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained."""

    num_epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    horizontal_flip: bool


def initialised(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The network that ``make`` returns, its weights drawn from ``seed`` alone, on the default device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().to(default_device(), memory_format=torch.channels_last)  # the layout of the images


class Trainer:
    """A network in training: its images (read as they are needed), its optimiser, the steps that it has behind it."""

    def __init__(
        self,
        network: nn.Module,
        images: ImageSet,
        recipe: Recipe,
        seed: int,
        compute: Compute = FLOAT32,
        group: Group = ALONE,
    ) -> None:
        share_statistics(network, group)
        self.network, self.recipe, self.seed, self.compute, self.step = network, recipe, seed, compute, 0
        self.group, self.scores = group, averaging(network, group)
        self.device = next(network.parameters()).device
        self.pixels = images.images  # uint8 [N, H, W, C], memory-mapped: never copied as a whole
        self.labels = torch.from_numpy(images.labels)  # [N]
        self.steps_per_epoch = math.ceil(len(self.pixels) / recipe.batch_size)
        self.optimizer = torch.optim.SGD(
            network.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay
        )

    @property
    def finished(self) -> int:
        """How many epochs are finished."""
        return self.step // self.steps_per_epoch

    def epochs(self, name: str, within: Callable[[], None] = lambda: None) -> Iterator[int]:
        """Train what is left of the recipe; after each epoch, yield how many are finished; ``within`` one, call that.

        All processes call ``within`` and get what is yielded at the same places.

        Raises:
            UserError: if the loss is no longer finite.
        """
        total, start = self.recipe.num_epochs * self.steps_per_epoch, self.step
        for step in progress(range(start, total), name, total, start, len(self.pixels) / self.steps_per_epoch):
            position = step % self.steps_per_epoch
            if position == 0:
                self._begin_epoch()
            loss = self._step(self.batches[position], step / total)
            self.step += 1
            if position == self.steps_per_epoch - 1:
                self._check(loss, name)
                yield self.finished
            else:
                within()

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training changes, as named tensors."""
        state = self.optimizer.state_dict()["state"]
        momentum = {str(i): entry["momentum_buffer"] for i, entry in state.items() if self.recipe.momentum}
        within = {"state": self.generator.get_state()} if self.step % self.steps_per_epoch else {}
        named = {"network": self.network.state_dict(), "momentum": momentum, "generator": within}
        return {name: tensor for prefix, part in named.items() for name, tensor in flatten(prefix, part).items()}

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on from ``tensors()`` as they were after so many steps."""
        self.step = step
        self.network.load_state_dict(under("network", tensors))
        state = {int(i): {"momentum_buffer": buffer} for i, buffer in under("momentum", tensors).items()}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        if step % self.steps_per_epoch:
            self._begin_epoch()
            self.generator.set_state(under("generator", tensors)["state"])

    def join(self) -> None:
        """Every process goes on from where the leader stands."""
        (step,) = self.group.numbers([self.step])
        if step and not self.group.leads:
            prepare(self.optimizer)
            self.step = step
            self._begin_epoch()
        if step and self.group.size > 1:
            tensors = self.tensors()
            spread(tensors, self.group)
            self.restore(tensors, step)

    def _begin_epoch(self) -> None:
        """The epoch's batches and flips follow from the seed and its number alone."""
        state = np.random.SeedSequence([self.seed, self.finished]).generate_state(1, np.uint64)[0]
        self.generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
        # Nearly equal batches: a last one of a single image would break batch normalisation.
        self.batches = torch.randperm(len(self.pixels), generator=self.generator).tensor_split(self.steps_per_epoch)

    def _step(self, index: Tensor, progressed: float) -> Tensor:
        self.network.train()
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self.recipe.learning_rate * (1 + math.cos(math.pi * progressed)) / 2
        part = self.group.part(len(index))
        x = to_float(self.pixels[index[part].numpy()])  # [B, C, H, W]
        if self.recipe.horizontal_flip:
            flip = (torch.rand(len(index), generator=self.generator) < 0.5)[part]
            x = torch.where(flip[:, None, None, None], x.flip(3), x)
        labels = self.labels[index[part]].to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        with unbroken():
            with self.compute.autocast():
                scores = self.scores(x.to(self.device))
            loss = F.cross_entropy(scores.float(), labels, reduction="mean" if self.group.size == 1 else "sum")
            if self.group.size > 1:  # gradients are averaged over processes, whose shares may differ by an image
                loss = loss * (self.group.size / len(index))
            loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _check(self, loss: Tensor, name: str) -> None:
        self.group.total(loss)
        loss = loss / self.group.size
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss of the {name} is {loss.item()} after epoch {self.finished}; expected a finite "
                f"number; lower its learning rate ({self.recipe.learning_rate:g})."
            )
