"""A private mechanism as data: what an accountant needs to know of it, and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Mechanism = Literal["gaussian", "poisson_gaussian"]


@dataclass(frozen=True)
class Event:
    """One use of a mechanism with L2 sensitivity 1 in units of its noise (add or remove one image).

    ``gaussian``: Gaussian noise once on a sum over all images (``sampling_probability`` 1, ``num_steps`` 1).
    ``poisson_gaussian``: ``num_steps`` times Gaussian noise on a sum over a Poisson sample of the images.
    """

    mechanism: Mechanism
    noise_multiplier: float
    sampling_probability: float = 1.0
    num_steps: int = 1

    def as_json(self) -> dict[str, Any]:
        """The event as JSON-like data."""
        return asdict(self)
