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
MADE: dict[str, str] = {"query": "query", "training": "weights", "votes": "weights"}  # a parent of the statement


def purposes(statement: PrivacyStatement) -> list[Purpose]:
    """Each event's purpose, in their order: the query's, if the release read one, comes first.

    An event of a mechanism that serves none goes by the mechanism's name.
    """
    found = [PURPOSES.get(event.mechanism, event.mechanism) for event in statement.events]
    if statement.provenance.parents.get("query") and statement.events[0].mechanism in QUERY_MECHANISMS:
        found[0] = "query"
    return found


def together_by_purpose(statements: Sequence[PrivacyStatement]) -> list[tuple[Purpose, Event]]:
    """The events of several releases of one set of images; a draw that several share is counted once.

    Two releases share a query, or the private model that their images are drawn from, if the same file stands in their
    provenance with the same event. Each chooses its classifiers' epochs by itself.
    """
    found: list[tuple[Purpose, Event]] = []
    paid: set[tuple[str, Event]] = set()
    for release in statements:
        named = list(zip(purposes(release), release.events, strict=True))
        made = [(release.provenance.parents.get(MADE.get(purpose, "")), event) for purpose, event in named]
        found += [each for each, draw in zip(named, made, strict=True) if draw not in paid]
        paid |= {(sha, event) for sha, event in made if sha}
    return found


def by_purpose(named: Sequence[tuple[Purpose, Event]]) -> dict[Purpose, list[Event]]:
    """The events of each purpose."""
    parts: dict[Purpose, list[Event]] = {}
    for purpose, event in named:
        parts.setdefault(purpose, []).append(event)
    return parts
