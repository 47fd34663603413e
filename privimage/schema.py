"""Dataclasses of settings become a JSON schema, and JSON that fits it becomes the dataclasses."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from math import isfinite
from typing import Any

from privimage.errors import UserError

UNIONS = (types.UnionType, typing.Union)  # of `int | None`, and of a literal and None


class ConfigError(UserError):
    """A setting is unknown, missing, of the wrong type or out of bounds."""


def schema_of(cls: type, *, partial: bool = False) -> dict[str, Any]:
    """The JSON schema of a settings dataclass; ``partial`` drops what is required (for overrides)."""
    hints = _hints(cls)
    properties = {f.name: {**_schema_of_type(hints[f.name]), **_annotations(f)} for f in fields(cls)}
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    required = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    if required and not partial:
        schema["required"] = required
    return schema


def validate(value: Any, schema: Mapping[str, Any], where: str = "") -> None:
    """Return if ``value`` fits the schema.

    Raises:
        ConfigError: one sentence about the first thing that does not fit, with the key's full name.
    """
    import jsonschema

    errors = jsonschema.Draft202012Validator(schema).iter_errors(value)
    first = next(iter(sorted(errors, key=lambda error: (_rank(error), list(map(str, error.absolute_path))))), None)
    if first is not None:
        raise ConfigError(_sentence(first, where))
    _check_finite(value, where)


def _check_finite(value: Any, where: str) -> None:
    """YAML and JSON read `.inf`, `NaN` and the like as numbers, and no bound refuses them all."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _check_finite(item, _join(where, key))
    if isinstance(value, float) and not isfinite(value):
        raise ConfigError(f"`{where}` is {value}; expected a finite number.")


def build(cls: type, value: Mapping[str, Any], where: str = "") -> Any:
    """An instance of the settings dataclass from JSON-like data, checked.

    Raises:
        ConfigError: if the data does not fit.
    """
    validate(value, {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema_of(cls)}, where)
    return _build(cls, value)


def overlay(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The base with what the other holds merged over it, key by key; a list replaces a list as a whole."""
    out = dict(base)
    for key, value in extra.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = overlay(out[key], value) if both else value
    return out


def plain(value: Any) -> Any:
    """The JSON-like data of a settings dataclass, every default spelt out."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def known(key: str, name: str, table: Mapping[str, Any]) -> None:
    """Return if the table has a row of that name.

    Raises:
        ConfigError: if not; it names what is near.
    """
    if name not in table:
        near = difflib.get_close_matches(str(name), table, n=1, cutoff=0.4)
        hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(table))}."
        raise ConfigError(f"`{key}` names `{name}`, which is not in its table; {hint}")


def _build(kind: Any, value: Any) -> Any:
    if is_dataclass(kind):
        hints = _hints(kind)
        return kind(**{name: _build(hints[name], item) for name, item in value.items()})
    origin = typing.get_origin(kind)
    if origin is tuple:
        return tuple(_build(typing.get_args(kind)[0], item) for item in value)
    if kind is float:
        return float(value)
    if kind is int:
        return int(value)
    if origin in UNIONS and value is not None:
        return _build(next(arg for arg in typing.get_args(kind) if arg is not type(None)), value)
    return value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _schema_of_type(kind: Any) -> dict[str, Any]:
    if is_dataclass(kind):
        return schema_of(kind, partial=True)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return {}
    if origin is tuple:
        return {"type": "array", "items": _schema_of_type(args[0]), "minItems": 1, "uniqueItems": False}
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin is dict:
        return {"type": "object"}
    if origin in UNIONS:
        inner = _schema_of_type(next(arg for arg in args if arg is not type(None)))
        return {"enum": [*inner["enum"], None]} if "enum" in inner else {**inner, "type": [inner["type"], "null"]}
    return {"type": {bool: "boolean", int: "integer", float: "number", str: "string"}[kind]}


def _annotations(f: Any) -> dict[str, Any]:
    bounds = f.metadata["bounds"]
    kind = str(f.type)
    extra: dict[str, Any] = {"description": f.metadata["doc"]}
    if bounds and kind.startswith("tuple"):
        element = "string" if "str" in kind else ("integer" if "int" in kind else "number")
        return {**extra, "items": {"type": element, **bounds}}
    return {**extra, **bounds}


_RANKS = ("additionalProperties", "required", "type", "enum")


def _rank(error: Any) -> int:
    return _RANKS.index(error.validator) if error.validator in _RANKS else len(_RANKS)


def _sentence(error: Any, where: str) -> str:
    key = ".".join([part for part in [where, *map(str, error.absolute_path)] if part])
    got = error.instance
    if error.validator == "additionalProperties":
        known = sorted(error.schema["properties"])
        unknown = sorted(map(str, set(got) - set(known)))[0]
        near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}."
        return f"`{_join(key, unknown)}` is not a setting; {hint}"
    if error.validator == "required":
        missing = sorted(set(error.validator_value) - set(got))[0]
        doc = error.schema.get("properties", {}).get(missing, {}).get("description", "")
        return f"`{_join(key, missing)}` is missing; add it" + (f" ({doc.rstrip('.')})." if doc else ".")
    expected = {
        "type": lambda: f"expected {_words(error.validator_value)}",
        "enum": lambda: f"expected one of {', '.join(map(str, error.validator_value))}",
        "minimum": lambda: f"expected at least {error.validator_value:g}",
        "maximum": lambda: f"expected at most {error.validator_value:g}",
        "exclusiveMinimum": lambda: f"expected more than {error.validator_value:g}",
        "exclusiveMaximum": lambda: f"expected less than {error.validator_value:g}",
        "minItems": lambda: "expected at least one entry",
    }.get(error.validator, lambda: error.message)()
    if error.validator == "type" and isinstance(got, str) and _is_number(got):
        expected += "; YAML reads this as text, write it with a point, as in 1.0e-5"
    return f"`{key}` is {got!r}; {expected}."


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else str(name)


def _words(kinds: str | list[str]) -> str:
    names = {"object": "a section", "array": "a list", "string": "text", "integer": "a whole number",
             "number": "a number", "boolean": "true or false", "null": "null"}  # fmt: skip
    return " or ".join(names[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
