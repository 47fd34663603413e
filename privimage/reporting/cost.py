"""What a page costs in privacy: everything on it together, and each release taken apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from privimage.artifacts import ArtifactError, PrivacyStatement, QueryResult
from privimage.privacy import accounting
from privimage.privacy.event import Event
from privimage.settings import Declared

RELATION = "add_or_remove_one"


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
        _check(statement, declared)
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
    kinds = ("gaussian", "poisson_gaussian")
    query, training = ([event for event in events if event.mechanism == kind] for kind in kinds)
    return query, training


def _check(statement: PrivacyStatement, declared: Declared) -> None:
    for f in fields(statement):
        value = getattr(statement, f.name)
        empty = value is None or value in ([], "") or (isinstance(value, float) and not math.isfinite(value))
        if empty:
            raise ArtifactError(f"a privacy statement has no `{f.name}`; without it no report is made; rerun finetune.")
    if statement.neighboring_relation != RELATION:
        raise ArtifactError(
            f"a privacy statement is for the relation {statement.neighboring_relation!r}; expected {RELATION!r}."
        )
    for name in ("delta", "num_images", "images_per_unit"):
        got, expected = getattr(statement, name), getattr(declared, name)
        if got != expected:
            raise ArtifactError(f"a privacy statement has {name} {got}; {expected} is declared now; rerun finetune.")
