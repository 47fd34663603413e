"""A private mechanism as data: what an accountant needs to know of it, and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Mechanism = Literal["gaussian", "poisson_gaussian", "report_noisy_max"]


@dataclass(frozen=True)
class Event:
    """One use of a mechanism; its noise has the scale ``noise_multiplier`` in units of what one image more changes.

    ``gaussian``: Gaussian noise once on a sum over all images (``sampling_probability`` 1, ``num_steps`` 1).
    ``poisson_gaussian``: ``num_steps`` times Gaussian noise on a sum over a Poisson sample of the images.
    ``report_noisy_max``: exponential noise once on each of several counts over all images, of which only the place of
    the largest is told; epsilon is 1 / ``noise_multiplier``.
    """

    mechanism: Mechanism
    noise_multiplier: float
    sampling_probability: float = 1.0
    num_steps: int = 1

    def as_json(self) -> dict[str, Any]:
        """The event as JSON-like data."""
        return asdict(self)


def noisy_choice(epsilon: float) -> Event:
    """Telling, at a cost of ``epsilon``, which of several counts is the largest."""
    return Event("report_noisy_max", 1 / epsilon)
