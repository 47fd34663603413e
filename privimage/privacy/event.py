"""A private mechanism as data: what an accountant needs to know of it, and nothing else."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Mechanism = Literal["gaussian", "discrete_gaussian", "poisson_gaussian", "report_noisy_max"]
QUERY_MECHANISMS = ("discrete_gaussian", "gaussian")  # of a query; the second in files that version 1 of it wrote


@dataclass(frozen=True)
class Event:
    """One use of a mechanism; ``noise_multiplier`` is the noise over what one image more changes in one step.

    ``gaussian``: Gaussian noise once on a sum over all images (``sampling_probability`` 1, ``num_steps`` 1).
    ``discrete_gaussian``: ``num_steps`` times discrete Gaussian noise on a count of which one image more changes by 1,
    so that ``noise_multiplier`` is the noise's parameter in counts (``sampling_probability`` 1). A query in which each
    image has k votes is this with ``num_steps`` k, one step for each count that an image changes, however many counts
    there are. Its setting ``query.noise_multiplier`` is another ratio, over root(k): ``query_multiplier``.
    ``poisson_gaussian``: ``num_steps`` times Gaussian noise on a sum over a Poisson sample of the images.
    ``report_noisy_max``: exponential noise once on each of several counts over all images, of which only the place of
    the largest is told; epsilon is 1 / ``noise_multiplier``.
    """

    mechanism: Mechanism
    noise_multiplier: float
    sampling_probability: float = 1.0
    num_steps: int = 1

    @property
    def query_multiplier(self) -> float:
        """The noise over the L2 norm of what one image more changes in all steps: ``query.noise_multiplier``."""
        return self.noise_multiplier / math.sqrt(self.num_steps)

    def as_json(self) -> dict[str, Any]:
        """The event as JSON-like data."""
        return asdict(self)


def noisy_votes(votes: int, query_multiplier: float) -> Event:
    """Discrete noise, root(``votes``) times ``query_multiplier``, on counts to which each image adds ``votes`` ones."""
    return Event("discrete_gaussian", math.sqrt(votes) * query_multiplier, num_steps=votes)


def noisy_choice(epsilon: float) -> Event:
    """Telling, at a cost of ``epsilon``, which of several counts is the largest."""
    return Event("report_noisy_max", 1 / epsilon)
