"""The page: what its template is given, and the template filled in.

``page.html.j2`` is the release edition. It is given what `released` returns and nothing else, and refuses a name that
is not there. ``internal.html.j2`` extends it, and alone reads ``internal``, which holds what was measured on real
images.
"""

from __future__ import annotations

import base64
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from privimage.artifacts import QueryResult
from privimage.methods import POLICIES
from privimage.privacy import accounting
from privimage.reporting.cells import Cell
from privimage.reporting.cost import Verdict, parts_of, shares
from privimage.reporting.figures.budget import shares_figure
from privimage.reporting.figures.votes import MAX_CLASSES, votes_figure
from privimage.reporting.gallery import Picture
from privimage.reporting.metrics import value_text
from privimage.reporting.wording import FILTERS
from privimage.rows import epsilon_label
from privimage.settings import Declared

PACKAGES = ("privimage", "torch", "dp-accounting", "opacus", "numpy", "snakemake")
NAMED_CLASSES = 12  # whose selected public classes are listed
Queries = Mapping[str, tuple[str, QueryResult]]


def released(
    dataset: str,
    declared: Declared,
    cells: Sequence[Cell],
    queries: Queries,
    verdict: Verdict,
    num_others: int = 0,
) -> dict[str, Any]:
    """All that the release edition's template is given: nothing in it was computed from real images without noise.

    ``queries`` maps the SHA-256 of a query's file to its name and result; ``num_others`` releases are in the verdict
    and not among the cells. The gallery's grids come with `render`.
    """
    shown = first_of_each(cells, lambda cell: cell.name)
    budget = [
        (cell.name, shares(parts_of(cell.statement), cell.statement.delta), cell.statement.epsilon) for cell in shown
    ]
    together = (
        "everything together" if num_others else "everything here",
        shares(verdict.parts, verdict.delta),
        verdict.epsilon,
    )
    return {
        "dataset": dataset,
        "today": datetime.now(UTC).date().isoformat(),
        "verdict": verdict,
        "num_others": num_others,
        "class_names": declared.class_names,
        "num_classes": len(declared.class_names),
        "releases": [_release(cell) for cell in cells],
        "gallery": [_entry(cell) for cell in shown],
        "queries": [_query(sha, name, query, declared, cells) for sha, (name, query) in queries.items()],
        "selections": [_selection(cell) for cell in first_of_each(cells, lambda cell: cell.method)],
        "budget": uri("image/svg+xml", shares_figure([*budget, together])),
        "versions": {"Python": platform.python_version(), **_versions()},
    }


def render(
    released: Mapping[str, Any], grids: Sequence[Picture], num_shown: int, internal: Mapping[str, Any] | None
) -> str:
    """The release edition as HTML, or with ``internal`` the owner's.

    ``grids`` show the first ``num_shown`` classes: one an entry of the gallery, then, for the owner, of real images.
    """
    gallery = [{**entry, "grid": _uri_of(grid)} for entry, grid in zip(released["gallery"], grids)]
    context = {**released, "gallery": gallery, "class_names": released["class_names"][:num_shown]}
    if internal is None:
        return environment().get_template("page.html.j2").render(context)
    real = {"uri": _uri_of(grids[-1]), "width": grids[-1].width, "height": grids[-1].height}
    return environment().get_template("internal.html.j2").render({**context, "internal": {**internal, "real": real}})


def environment() -> jinja2.Environment:
    """The templates' environment, in which a name that is not there fails to render."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {**FILTERS, "label": epsilon_label, "metric": value_text}
    return made


def first_of_each(cells: Sequence[Cell], key: Callable[[Cell], Any]) -> list[Cell]:
    """The first cell of each value of ``key``, in the order of the cells."""
    firsts: dict[Any, Cell] = {}
    for cell in cells:
        firsts.setdefault(key(cell), cell)
    return list(firsts.values())


def selected_by(sha: str, cells: Sequence[Cell]) -> Mapping[str, Sequence[str]]:
    """What the first method that reads the query selected with it; empty where none does."""
    return next((c.subset.classes for c in cells if c.subset.provenance.parents.get("query") == sha), {})


def uri(kind: str, content: bytes) -> str:
    """The content as a reference that stands for itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _uri_of(picture: Picture) -> str:
    return uri(picture.kind, picture.content)


def _release(cell: Cell) -> dict[str, Any]:
    parts = parts_of(cell.statement)
    return {
        "method": cell.method,
        "seed": cell.seed,
        "statement": cell.statement,
        "query": parts.get("query", []),
        "training": parts.get("training", []),
        "votes": parts.get("votes", []),
        "choices": parts.get("choice of epochs", []),
        "copies": cell.statement.provenance.settings.get("noise_levels_per_image"),
    }


def _entry(cell: Cell) -> dict[str, Any]:
    return {
        "name": cell.name,
        "seed": cell.seed,
        "num_images": len(cell.images.labels),
        "counts": cell.images.counts,
    }


def _query(sha: str, name: str, query: QueryResult, declared: Declared, cells: Sequence[Cell]) -> dict[str, Any]:
    chosen = selected_by(sha, cells)
    figure = votes_figure(np.asarray(query.histogram), query.class_names, query.public_class_names, chosen)
    return {
        "name": name,
        "result": query,
        "epsilon": accounting.epsilon([query.event], declared.delta),
        "figure": uri("image/svg+xml", figure),
        "chosen": bool(chosen),
        "shown": min(MAX_CLASSES, len(query.class_names)),
    }


def _selection(cell: Cell) -> dict[str, Any]:
    classes = {name: chosen for name, chosen in cell.subset.classes.items() if chosen}
    return {
        "method": cell.method,
        "policy": POLICIES.get(cell.subset.policy, cell.subset.policy),
        "classes": dict(list(classes.items())[:NAMED_CLASSES]),
        "more": max(0, len(classes) - NAMED_CLASSES),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
