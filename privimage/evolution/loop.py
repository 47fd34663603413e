"""The generations of Private Evolution: candidates, votes with noise, children of those that were voted for.

Here diffusion and privacy meet. All that sensitive images act through are the noisy counts of ``discrete_gaussian``:
each generation changes one count by 1 for one image more (votes.py), so that T generations are T compositions with
sensitivity 1. The candidates of a generation follow from public images, the seed and the noisy counts before it.

Source: Lin et al., ICLR 2024, algorithms 1 and 2; the votes for the mean features of a candidate's variations are its
``lookahead``. Exact discrete noise instead of continuous, and candidates that may be fewer than the images in the end,
are ours.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from privimage.artifacts import ImageSet
from privimage.checkpoints import Checkpoint
from privimage.compute import Compute
from privimage.errors import UserError
from privimage.evolution import votes
from privimage.evolution.operators import Operators
from privimage.measurements import Curve
from privimage.privacy.ledger import Release
from privimage.privacy.mechanism import discrete_gaussian
from privimage.privacy.randomness import SecretKey
from privimage.progress import progress

COLUMNS = ("step", "voted_for", "kept")  # shares of the candidates: internal
FIRST, CHILDREN, AHEAD, PARENTS = range(4)  # names of draws


@dataclass(frozen=True)
class Population:
    """Candidates and each one's chance of being a parent.

    Shapes: ``images`` uint8 [P, H, W, C]; ``labels`` int64 [P], sensitive classes in turn; ``conditions`` int64 [P],
    the labels by which the public model knows them; ``chance`` float64 [P].
    """

    images: Tensor
    labels: Tensor
    conditions: Tensor
    chance: Tensor


@dataclass(frozen=True)
class Voting:
    """Whose images vote, by which features, and with what noise."""

    images: ImageSet
    classifier: nn.Module
    noise_multiplier: float
    key: SecretKey
    compute: Compute


class Evolution:
    """One evolution by its settings; see ``privimage.generators.evolution.EvolutionSettings``."""

    def __init__(self, operators: Operators, num_classes: int, settings: Any, *, public_labels: bool) -> None:
        self.operators, self.num_classes, self.settings = operators, num_classes, settings
        self.public_labels = public_labels  # the model knows its own labels only, not the sensitive classes

    @property
    def num_candidates(self) -> int:
        """Of all classes together."""
        return self.settings.candidates_per_class * self.num_classes

    def sigma(self, generation: int) -> float:
        """The noise level of the variations that ``generation`` consists of, from 1 on; it falls geometrically."""
        first, last, steps = self.settings.sigma_first, self.settings.sigma_last, self.settings.num_generations - 1
        return last * (first / last) ** ((steps + 1 - generation) / steps) if steps else last

    def first(self) -> Population:
        """As many candidates of each class, of the model's own choice."""
        labels = self._in_turn(self.num_candidates)
        conditions = labels
        if self.public_labels:
            generator = self.operators.generator(PARENTS, 0)
            conditions = torch.randint(self.operators.model.num_labels, labels.shape, generator=generator)
        chance = torch.full(labels.shape, 1 / self.settings.candidates_per_class, dtype=torch.float64)
        return Population(self.operators.random(conditions, FIRST), labels, conditions, chance)

    def children(self, of: Population, generation: int, count: int) -> Population:
        """Variations of so many parents, drawn by their chances; the same number of each class, or one less."""
        labels = self._in_turn(count)
        chosen = votes.parents(of.chance, of.labels, labels, self.operators.generator(PARENTS, generation))
        conditions = of.conditions[chosen]
        images = self.operators.variation(of.images[chosen], conditions, self.sigma(generation), CHILDREN, generation)
        chance = 1 / torch.bincount(labels)[labels].double()
        return Population(images, labels, conditions, chance)

    def seen(self, candidates: Population, classifier: nn.Module, generation: int) -> Tensor:
        """Features [P, D] of each candidate: the mean over some of its variations, as its children will be."""
        if not self.settings.lookahead:
            return votes.features(classifier, candidates.images)
        return torch.stack(
            [
                votes.features(
                    classifier,
                    self.operators.variation(
                        candidates.images, candidates.conditions, self.sigma(generation + 1), AHEAD, generation, k
                    ),
                )
                for k in range(self.settings.lookahead)
            ]
        ).mean(dim=0)

    def _in_turn(self, count: int) -> Tensor:
        return torch.arange(count) % self.num_classes


def run(evolution: Evolution, voting: Voting, release: Release | None = None) -> tuple[Population, Curve]:
    """The population after all generations, and the curve.

    With a ``release``, each generation is reserved before sensitive images vote in it, and the run resumes after the
    last one that was saved: if the one under way can be replayed with the same noise and counts, there; else past every
    generation that was reserved, which then counts among the declared number without having been taken.
    """
    settings = evolution.settings
    saves = Saves(release, voting, settings.num_generations) if release else None
    start, population, rows = saves.resume() if saves else (0, None, [])
    seen = votes.features(voting.classifier, voting.images.images)
    labels = torch.from_numpy(voting.images.labels)
    generations = range(start, settings.num_generations)
    for generation in progress(generations, "finetune", settings.num_generations, start, len(labels)):
        if population is None:
            candidates = evolution.first()
        else:
            candidates = evolution.children(population, generation, evolution.num_candidates)
        ahead = evolution.seen(candidates, voting.classifier, generation)
        if release:
            release.reserve_step(generation)
        counts = votes.counted(seen, labels, ahead, candidates.labels)
        noisy = discrete_gaussian(counts, voting.noise_multiplier, voting.key, "votes", generation)
        chance = votes.chances(noisy, candidates.labels, settings.threshold * voting.noise_multiplier)
        population = replace(candidates, chance=chance)
        rows.append((generation, float((counts > 0).mean()), float((chance > 0).double().mean())))
        if saves:
            saves.save(generation + 1, population, rows)
    grown = evolution.children(population, settings.num_generations, settings.population_size)
    return grown, Curve(COLUMNS, tuple(rows))


class Saves:
    """The checkpoint of one release, and the generation to go on from."""

    def __init__(self, release: Release, voting: Voting, num_generations: int) -> None:
        self.release, self.num_generations = release, num_generations
        self.checkpoint = Checkpoint(release.folder / "checkpoint", release.fingerprint, shown=release.folder.parent)
        # What must be the same for a generation to get the same votes: another count with the same noise would tell it.
        self.environment = {"key": voting.key.identity, **voting.compute.describe()}

    def save(self, generation: int, population: Population | None, rows: list) -> None:
        """The state after so many generations is on the disk."""
        state = {"step": generation, "curve": [list(row) for row in rows], "environment": self.environment}
        self.checkpoint.save(vars(population) if population else {}, state)

    def resume(self) -> tuple[int, Population | None, list]:
        """The generation to go on from, the population and the curve up to there.

        Raises:
            UserError: if every generation was reserved and none survives.
        """
        kept, population, rows, same = 0, None, [], False
        if saved := self.checkpoint.load():
            tensors, state = saved
            kept, rows = state["step"], [tuple(row) for row in state["curve"]]
            population = Population(**tensors) if tensors else None
            same = state["environment"] == self.environment
        start = kept if same else max(kept, self.release.reserved_steps)
        if population is None and start >= self.num_generations:
            raise UserError(
                f"all {start} generations were reserved before a crash and none can be replayed; delete the release's "
                f"folder in {self.release.folder.parent} (the odometer names it) to draw anew, which is charged again."
            )
        if start > kept:
            print(
                f"warning: {start - kept} of {self.num_generations} generations were reserved before a crash and "
                "cannot be replayed (other key, precision, threads, device or library); they count and are skipped.",
                file=sys.stderr,
            )
        self.save(start, population, rows)
        return start, population, rows
