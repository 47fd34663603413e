"""Rows that are like another: what they do not say themselves, the other says. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privimage.schema import ConfigError, known, overlay

TABLES = ("publics", "datasets")
MEANING = "Another row of the table: what this row does not say, that one says."


def spelt_out(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with each row that is `like` another merged over it, as YAML gave both; the key is gone.

    Raises:
        ConfigError: if the other row is not there, or rows are like each other in a circle.
    """
    tables = {name: raw[name] for name in TABLES if isinstance(raw.get(name), Mapping)}
    whole = {name: {label: _whole(table, name, label) for label in table} for name, table in tables.items()}
    return {**raw, **whole}


def _whole(table: Mapping[str, Any], name: str, label: str) -> Any:
    chain = [label]
    while isinstance(table[chain[-1]], Mapping) and "like" in table[chain[-1]]:
        other = table[chain[-1]]["like"]
        known(f"{name}.{chain[-1]}.like", other, table)
        if other in chain:
            raise ConfigError(f"`{name}.{label}.like` leads back to `{other}`; expected a row that is complete.")
        chain.append(other)
    if len(chain) == 1:
        return table[label]
    made: Any = {}
    for each in reversed(chain):
        made = overlay(made, {key: value for key, value in table[each].items() if key != "like"})
    return made
