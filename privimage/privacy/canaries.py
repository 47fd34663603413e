"""Records that are made to be found: gradients of one coordinate each, which an audit adds to some steps of DP-SGD.

Half of them, by coins, belong to the training set. One that does enters each step's Poisson sample as an image would,
and adds a gradient of norm C to the clipped sum before the noise: +C or -C on a coordinate of its own. An observer who
knows coordinates and signs, and sees each step's noisy mean as the analysis of DP-SGD grants, guesses who was in.

The sign is drawn anew at each step, so that what images add to a coordinate step after step cancels. What they add is
larger at some coordinates by far, and nothing of it is subtracted: where more is seen than noise explains, less is made
of it, and those canaries are seldom among the guesses.

Source: Steinke, Nasr & Jagielski 2023 (many canaries in one run, seen step by step, one coordinate each).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from privimage.errors import UserError
from privimage.privacy.dpsgd import poisson_sample
from privimage.privacy.event import Event
from privimage.privacy.randomness import SecretKey

MUCH = 2.0  # times the variance of the noise: rarely exceeded by noise alone


def unkept_key() -> SecretKey:
    """A fresh key for a training of which nothing is kept; it is gone with the process."""
    return SecretKey.generate()


class Canaries:
    """The canaries of one training and what the observer has seen of them.

    Coins, samples, coordinates and signs follow from a key that is not the mechanism's, lest a canary be drawn along
    with an image. Shapes, of m canaries: ``included`` bool [m]; ``sums`` and ``squares`` float64 [m], over the steps.

    Raises:
        UserError: if there are more canaries than coordinates.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        num_canaries: int,
        event: Event,
        *,
        clip_norm: float,
        expected_batch_size: float,
        key: SecretKey | None = None,
    ) -> None:
        self.event, self.clip_norm, self.expected_batch_size = event, clip_norm, expected_batch_size
        self.key = key or unkept_key()
        self.places = self._places(parameters, num_canaries)
        self.included = self.key.uniform("canary coin", shape=num_canaries) < 0.5
        self.sums, self.squares = np.zeros(num_canaries), np.zeros(num_canaries)

    def add(self, total: dict[str, Tensor], step: int) -> None:
        """The clipped sum holds the gradients of the canaries that this step's sample holds."""
        drawn = np.zeros(len(self.sums))
        drawn[poisson_sample(len(drawn), self.event.sampling_probability, self.key, step)] = self.clip_norm
        gradients = torch.from_numpy(drawn * self.included * self._signs(step))
        for name, (who, where) in self.places.items():
            total[name][where] += gradients[who].to(total[name].device)

    def see(self, noisy_mean: Mapping[str, Tensor], step: int) -> None:
        """The observer has added up this step, in units of C and by the sign that a canary would have had."""
        seen = torch.zeros(len(self.sums), dtype=torch.float64)
        for name, (who, where) in self.places.items():
            seen[who] = noisy_mean[name][where].cpu()
        seen = seen.numpy() * self._signs(step) * self.expected_batch_size / self.clip_norm
        self.sums += seen
        self.squares += seen**2

    @property
    def scores(self) -> np.ndarray:
        """How likely each canary is in, [m]: what was seen, less half of what is expected of one, over its variance.

        It orders canaries as the ratio of two likelihoods would, were both Gaussian. The variance is the same for all,
        but where so much was seen that images must have stirred.
        """
        q, num_steps, noise = self.event.sampling_probability, self.event.num_steps, self.event.noise_multiplier**2
        return (self.sums - q * num_steps / 2) / np.maximum(MUCH * noise, self.squares / num_steps - q)

    def num_correct(self, num_guesses: int) -> int:
        """Right guesses: the half with the highest scores is called in, the half with the lowest out."""
        half, order = num_guesses // 2, np.argsort(self.scores, kind="stable")
        return int(self.included[order[len(order) - half :]].sum() + (~self.included[order[:half]]).sum())

    def _signs(self, step: int) -> np.ndarray:
        return np.where(self.key.uniform("canary sign", step, shape=len(self.sums)) < 0.5, -1.0, 1.0)

    def _places(
        self, parameters: Mapping[str, Tensor], num_canaries: int
    ) -> dict[str, tuple[Tensor, tuple[Tensor, ...]]]:
        """By parameter: the canaries whose coordinates lie in it, and these as indices. All coordinates are equal."""
        sizes = np.array([parameter.numel() for parameter in parameters.values()])
        if num_canaries > sizes.sum():
            raise UserError(
                f"{num_canaries} canaries were asked for, each with a coordinate of its own, and the model has "
                f"{sizes.sum()}; lower audit.num_canaries."
            )
        rng = np.random.default_rng(self.key.seed("canary place"))
        flat = rng.choice(sizes.sum(), num_canaries, replace=False)
        starts = np.cumsum(sizes) - sizes
        owners = np.searchsorted(starts, flat, side="right") - 1
        places = {}
        for index in np.unique(owners):
            name, parameter = list(parameters.items())[index]
            who = torch.from_numpy(np.flatnonzero(owners == index))
            within = torch.from_numpy(flat[owners == index] - starts[index])
            places[name] = who, tuple(i.to(parameter.device) for i in torch.unravel_index(within, parameter.shape))
        return places
