"""Schemas: a dataclass, its schema and its JSON say the same."""

from dataclasses import dataclass
from typing import Literal

import jsonschema
import pytest

from privimage.config import SECTIONS, TABLES, config_schema
from privimage.errors import UserError
from privimage.schema import ConfigError, build, plain, schema_of
from privimage.setting import REQUIRED, setting

KNOWN = "known here: flag, inner, kind, limit, name, rate, sizes."


@dataclass(frozen=True)
class Inner:
    depth: int = setting(2, "Depth.", minimum=1)


@dataclass(frozen=True)
class Outer:
    name: str = setting(REQUIRED, "A name.")
    rate: float = setting(0.5, "A rate.", above=0, maximum=1)
    sizes: tuple[int, ...] = setting((1, 2), "Sizes.", minimum=1)
    kind: Literal["a", "b"] = setting("a", "A kind.")
    limit: float | None = setting(None, "A limit.", above=0)
    flag: bool = setting(False, "A flag.")
    inner: Inner = setting(Inner(), "An inner section.")


def test_plain_and_build_are_inverse():
    value = Outer(name="x", rate=1.0, sizes=(3,), kind="b", limit=2.0, flag=True, inner=Inner(depth=5))
    assert build(Outer, plain(value)) == value
    assert plain(build(Outer, {"name": "x"})) == plain(Outer(name="x"))


def test_numbers_take_the_declared_type():
    value = build(Outer, {"name": "x", "rate": 1, "limit": 3, "sizes": [2.0]})
    assert [type(v) for v in (value.rate, value.limit, value.sizes[0])] == [float, float, int]


def test_a_partial_schema_requires_nothing():
    assert schema_of(Outer)["required"] == ["name"]
    assert "required" not in schema_of(Outer, partial=True)


@pytest.mark.parametrize("cls", [*SECTIONS.values(), *TABLES.values(), Outer])
def test_every_generated_schema_is_one(cls):
    jsonschema.Draft202012Validator.check_schema(schema_of(cls))


def test_the_configurations_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(config_schema())


@pytest.mark.parametrize("cls", [cls for cls in SECTIONS.values()])
def test_the_defaults_of_a_section_fit_it(cls):
    assert build(cls, plain(cls())) == cls() == build(cls, {})


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({}, "`here.name` is missing; add it (A name)."),
        ({"name": "x", "rat": 1}, "`here.rat` is not a setting; did you mean `rate`?"),
        ({"name": "x", "inner": {"dept": 1}}, "`here.inner.dept` is not a setting; did you mean `depth`?"),
        ({"name": "x", "qqq": 1}, f"`here.qqq` is not a setting; {KNOWN}"),
        ({"name": 1}, "`here.name` is 1; expected text."),
        ({"name": "x", "rate": 0}, "`here.rate` is 0; expected more than 0."),
        ({"name": "x", "rate": 2}, "`here.rate` is 2; expected at most 1."),
        ({"name": "x", "limit": "1"}, "`here.limit` is '1'; expected a number or null; YAML reads this as text, "
         "write it with a point, as in 1.0e-5."),
        ({"name": "x", "sizes": [1, 0]}, "`here.sizes.1` is 0; expected at least 1."),
        ({"name": "x", "kind": "c"}, "`here.kind` is 'c'; expected one of a, b."),
        ({"name": "x", "rate": float("nan")}, "`here.rate` is nan; expected a finite number."),
        ({"name": "x", "rate": True}, "`here.rate` is True; expected a number."),
        ({"name": "x", 3: 1, None: 2}, f"`here.3` is not a setting; {KNOWN}"),
    ],
)  # fmt: skip
def test_one_sentence_says_what_does_not_fit(value, sentence):
    with pytest.raises(ConfigError) as caught:
        build(Outer, value, "here")
    assert str(caught.value) == sentence
    assert isinstance(caught.value, UserError)
