"""What the card of a release says of the model that its images are drawn from. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """Parts of sentences, after which the card goes on; none names a data set or a method."""

    origin: str  # synthetic images, drawn from …
    weights: str  # the file of weights: …
    step: str = ""  # of DP-SGD: each step draws every image with some probability, …, clips it
    beside: str = ""  # whole sentences about that training
