"""What each event of a privacy statement was for. Two mechanisms may be of one kind: a query, and votes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from privimage.artifacts import PrivacyStatement
from privimage.privacy.event import QUERY_MECHANISMS, Event

Purpose = Literal["query", "training", "votes", "choice of epochs"]
PURPOSES: dict[str, Purpose] = {
    "poisson_gaussian": "training",
    "discrete_gaussian": "votes",
    "report_noisy_max": "choice of epochs",
}


def purposes(statement: PrivacyStatement) -> list[Purpose]:
    """Each event's purpose, in their order: the query's, if the release read one, comes first.

    An event of a mechanism that serves none goes by the mechanism's name.
    """
    found = [PURPOSES.get(event.mechanism, event.mechanism) for event in statement.events]
    if statement.provenance.parents.get("query") and statement.events[0].mechanism in QUERY_MECHANISMS:
        found[0] = "query"
    return found


def together_by_purpose(statements: Sequence[PrivacyStatement]) -> list[tuple[Purpose, Event]]:
    """The events of several releases of one set of images; a query that several read is counted once.

    Two releases read the same query if the same file stands in their provenance.
    """
    found: list[tuple[Purpose, Event]] = []
    paid: set[str] = set()
    for release in statements:
        query = release.provenance.parents.get("query")
        named = zip(purposes(release), release.events, strict=True)
        found += [(purpose, event) for purpose, event in named if purpose != "query" or query not in paid]
        paid |= {query} - {None}
    return found


def by_purpose(named: Sequence[tuple[Purpose, Event]]) -> dict[Purpose, list[Event]]:
    """The events of each purpose."""
    parts: dict[Purpose, list[Event]] = {}
    for purpose, event in named:
        parts.setdefault(purpose, []).append(event)
    return parts
