"""What a page costs in privacy: everything on it together, and each release taken apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from dp_accounting import (
    GaussianDpEvent,
    NeighboringRelation,
    PoissonSampledDpEvent,
    RandomizedResponseDpEvent,
)
from dp_accounting.rdp import RdpAccountant, compute_epsilon

from privimage.artifacts import PrivacyStatement, QueryResult
from privimage.privacy import accounting
from privimage.privacy.event import Event
from privimage.privacy.purposes import by_purpose, together_by_purpose
from privimage.privacy.statements import check_complete
from privimage.settings import Declared

FAINT = 1e-100  # a delta so small that the conversion below is never cut off at zero
ORDERS = (*range(2, 64), 80, 96, 128, 192, 256, 384, 512)  # whole ones, whose divergences have a closed form


@dataclass(frozen=True)
class Verdict:
    """The guarantee of everything on the page together."""

    epsilon: float
    epsilon_replace_one: float
    epsilon_per_unit: float
    images_per_unit: int
    delta: float
    num_images: int
    private: bool
    not_covered: tuple[str, ...]
    parts: Mapping[str, Sequence[Event]]  # what the events were for


def verdict(statements: Sequence[PrivacyStatement], queries: Mapping[str, QueryResult], declared: Declared) -> Verdict:
    """The cost of the releases and queries together; a draw that several releases share counts once.

    ``queries`` maps the SHA-256 of a query's file to its result.

    Raises:
        ArtifactError: if a statement lacks something, or was made for other declared constants.
    """
    for statement in statements:
        check_complete(statement, declared)
    paid = {statement.provenance.parents.get("query") for statement in statements}
    named = together_by_purpose(statements) + [("query", q.event) for sha, q in queries.items() if sha not in paid]
    events = [event for _, event in named]
    epsilon, unit = accounting.epsilon(events, declared.delta), declared.images_per_unit
    return Verdict(
        epsilon=epsilon,
        epsilon_replace_one=accounting.epsilon(events, declared.delta, relation="replace_one"),
        epsilon_per_unit=accounting.epsilon(events, declared.delta, images_per_unit=unit) if unit > 1 else epsilon,
        images_per_unit=unit,
        delta=declared.delta,
        num_images=declared.num_images,
        private=all(artifact.private for artifact in (*statements, *queries.values())),
        not_covered=tuple(dict.fromkeys(line for statement in statements for line in statement.not_covered)),
        parts=by_purpose(named),
    )


def shares(parts: Mapping[str, Sequence[Event]], delta: float) -> dict[str, float]:
    """Each part's share of the Rényi divergence at the order from which a Rényi accountant's epsilon follows.

    Divergences of one order add up under composition, so the shares add up to one; epsilons do not.
    Source: Mironov 2017.
    """
    divergences = [sum(sum(_divergence(e, order) for e in events) for events in parts.values()) for order in ORDERS]
    _, order = compute_epsilon(ORDERS, divergences, delta)
    spent = {name: sum(_divergence(event, order) for event in events) for name, events in parts.items()}
    return {name: divergence / sum(spent.values()) for name, divergence in spent.items()}


def parts_of(statement: PrivacyStatement) -> dict[str, list[Event]]:
    """The events of a release by what they were for: the query, training, votes, choosing classifiers' epochs."""
    return by_purpose(together_by_purpose([statement]))


@cache
def _divergence(event: Event, order: float) -> float:
    """The Rényi divergence of one event: the accountant's epsilon without what its conversion adds.

    All that is epsilon-DP is dominated by randomised response between two answers (Kairouz et al. 2015); discrete
    Gaussian noise is taken for continuous noise, whose divergence is at least as large (Canonne et al. 2020).
    """
    if event.mechanism == "report_noisy_max":
        lie = 2 / (math.exp(1 / event.noise_multiplier) + 1)
        accountant = RdpAccountant([order], NeighboringRelation.REPLACE_ONE)
        accountant.compose(RandomizedResponseDpEvent(lie, 2))
    else:
        accountant, step = RdpAccountant([order]), GaussianDpEvent(event.noise_multiplier)
        if event.sampling_probability < 1:
            step = PoissonSampledDpEvent(event.sampling_probability, step)
        accountant.compose(step, event.num_steps)
    bound = accountant.get_epsilon(FAINT)
    return max(0.0, bound - math.log1p(-1 / order) + math.log(FAINT * order) / (order - 1))
