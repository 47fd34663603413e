"""What a page costs in privacy: everything on it together, and each release taken apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from privimage.artifacts import PrivacyStatement, QueryResult
from privimage.privacy import accounting
from privimage.privacy.event import Event
from privimage.privacy.statements import check_complete
from privimage.settings import Declared


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


def verdict(statements: Sequence[PrivacyStatement], queries: Mapping[str, QueryResult], declared: Declared) -> Verdict:
    """The cost of the releases and queries together; a query that several releases paid for counts once.

    ``queries`` maps the SHA-256 of a query's file to its result.

    Raises:
        ArtifactError: if a statement lacks something, or was made for other declared constants.
    """
    for statement in statements:
        check_complete(statement, declared)
    paid = {statement.provenance.parents.get("query") for statement in statements}
    events = accounting.together(statements) + [q.event for sha, q in queries.items() if sha not in paid]
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
    )


def parts(statement: PrivacyStatement) -> dict[str, float]:
    """Epsilon of the query alone, of training alone, and of what the release contains together. They do not add up."""
    query, training = split(statement.events)
    alone = {"query": query, "training": training}
    costs = {name: accounting.epsilon(events, statement.delta) for name, events in alone.items() if events}
    return {**costs, "together": statement.epsilon}


def split(events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
    """The queries and the training among the events."""
    training = [event for event in events if event.mechanism == "poisson_gaussian"]
    return [event for event in events if event not in training], training
