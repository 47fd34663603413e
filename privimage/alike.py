"""Rows that are like another: what they do not say themselves, the other says. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privimage.schema import ConfigError, known, overlay

TABLES = ("publics", "datasets")
OWN = ("like", "proxy")  # what a row says of itself alone
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
        other, key = table[chain[-1]]["like"], f"{name}.{chain[-1]}.like"
        if not isinstance(other, str):
            raise ConfigError(f"`{key}` is {other!r}; expected the name of another row.")
        known(key, other, table)
        if not isinstance(table[other], Mapping):
            raise ConfigError(f"`{key}` names `{other}`, which holds no settings; expected a row that does.")
        if other in chain:
            raise ConfigError(f"`{name}.{label}.like` leads back to `{other}`; expected a row that is complete.")
        chain.append(other)
    if len(chain) == 1:
        return table[label]
    made: Any = {}
    for each in reversed(chain):
        made = overlay({k: v for k, v in made.items() if k not in OWN}, table[each])
    del made["like"]
    return made
