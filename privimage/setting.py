"""A documented field of a settings dataclass: the one place where a setting's default, bounds and source stand."""

from __future__ import annotations

from dataclasses import MISSING, field
from typing import Any

REQUIRED: Any = MISSING


def setting(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    source: str = "",
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field that carries its documentation.

    ``minimum`` and ``maximum`` are inclusive bounds, ``above`` and ``below`` exclusive ones; on a tuple they
    bound each element. ``REQUIRED`` as default makes the setting mandatory.
    """
    bounds = {"minimum": minimum, "exclusiveMinimum": above, "maximum": maximum, "exclusiveMaximum": below}
    metadata = {
        "doc": doc,
        "unit": unit,
        "source": source,
        "bounds": {key: value for key, value in bounds.items() if value is not None},
    }
    if default is REQUIRED:
        return field(metadata=metadata, kw_only=True)
    return field(default=default, metadata=metadata, kw_only=True)
