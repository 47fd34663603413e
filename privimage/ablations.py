"""Ablations: each value of one setting becomes a method of its own, overlaid on the row that is ablated. No torch.

A value `50` of the ablation `query-noise` is the method `query-noise.50`, and reads a query of that name where the
setting is the query's. A value that the ablated method has anyway is that method: it is trained and paid for once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from privimage.methods import OVERRIDABLE, Method
from privimage.rows import Ablation, epsilon_label
from privimage.schema import ConfigError, build, known, overlay, plain
from privimage.settings import NAME, QuerySettings

if TYPE_CHECKING:
    from privimage.config import Config

QUERY, EPSILON = "query", "epsilon"


@dataclass(frozen=True)
class Point:
    """One value of an ablation, and the release that has it."""

    value: Any
    method: str
    seed: int
    epsilon: float


def expand(config: Config) -> Config:
    """The configuration with a method, and a query where that is what is ablated, for each value that is to be run.

    Raises:
        ConfigError: if an ablation names what is not there, or a value is none of its setting.
    """
    for name in config.run.ablations or ():
        known("run.ablations", name, config.ablations)
        row = config.ablations[name]
        known(f"ablations.{name}.method", row.method, config.methods)
        if row.setting == EPSILON:
            _check_epsilons(name, row)
            continue
        labels = [label_of(name, value) for value in row.values]
        for label, value in zip(labels, row.values):
            if labels.count(label) > 1 or label in config.methods:
                raise ConfigError(
                    f"`ablations.{name}.values` gives the name `{label}` twice; expected each value once."
                )
            config = _with_method(config, name, label, value)
    return config


def check(config: Config) -> None:
    """Return if every value fits its setting, on every data set that is run.

    Raises:
        ConfigError: one sentence about the first that does not.
    """
    for name in config.run.ablations or ():
        row = config.ablations[name]
        for value in row.values if row.setting != EPSILON else ():
            for dataset in config.run.datasets:
                try:
                    _effective(config, dataset, label_of(name, value))
                except ConfigError as error:
                    raise ConfigError(f"`ablations.{name}` does not take the value {value!r}: {error}") from None


def points(config: Config, dataset: str, name: str) -> list[Point]:
    """What an ablation compares on a data set, in the order of its values."""
    row = config.ablations[name]
    seeds = config.run.seeds_of(name)
    if row.setting == EPSILON:
        return [Point(value, row.method, seed, float(value)) for value in row.values for seed in seeds]
    made = []
    for value in row.values:
        label = label_of(name, value)
        same = _effective(config, dataset, label) == _effective(config, dataset, row.method)
        made += [
            Point(value, row.method if same else label, seed, epsilon)
            for epsilon in row.epsilons or config.run.epsilons
            for seed in seeds
        ]
    return made


def epsilons(config: Config) -> list[float]:
    """Every epsilon of the run and its ablations, each once."""
    found = list(config.run.epsilons)
    for row in (config.ablations[name] for name in config.run.ablations or ()):
        found += row.values if row.setting == EPSILON else row.epsilons or ()
    return list(dict.fromkeys(map(float, found)))


def label_of(name: str, value: Any) -> str:
    """The method that an ablation's value is: a folder of the results."""
    label = f"{name}.{_spelt(name, value)}"
    if not re.fullmatch(NAME, label):
        raise ConfigError(f"`ablations.{name}.values` has {value!r}; expected letters, digits, '_', '.', '-'.")
    return label


def _spelt(name: str, value: Any) -> str:
    if isinstance(value, list) and value:
        return "-".join(_spelt(name, item) for item in value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, (int, float, str)):
        return format(value, "g") if isinstance(value, float) else str(value)
    raise ConfigError(f"`ablations.{name}.values` has {value!r}; expected numbers, words, or lists of them.")


def _with_method(config: Config, name: str, label: str, value: Any) -> Config:
    row = config.ablations[name]
    method = config.methods[row.method]
    section, _, key = row.setting.partition(".")
    if section not in (QUERY, *OVERRIDABLE) or not key:
        raise ConfigError(
            f"`ablations.{name}.setting` is {row.setting!r}; expected `{EPSILON}`, or a key of one of the sections "
            f"{', '.join((QUERY, *OVERRIDABLE))}, such as `select.classes_per_label`."
        )
    change = _nested(key, value)
    if section == QUERY:
        return _with_query(config, name, label, method, change)
    settings = overlay(method.settings or {}, {section: change})
    return replace(config, methods={**config.methods, label: replace(method, settings=settings)})


def _with_query(config: Config, name: str, label: str, method: Method, change: Mapping[str, Any]) -> Config:
    if method.query is None:
        raise ConfigError(
            f"`ablations.{name}.setting` is the query's, and the method `{config.ablations[name].method}` reads none; "
            "name a method that does, such as `privimage`."
        )
    known(f"methods.{config.ablations[name].method}.query", method.query, config.queries)
    base = plain(config.queries[method.query])
    changed = build(QuerySettings, overlay(base, change), f"ablations.{name}.query")
    datasets = dict(config.datasets)
    for dataset, row in datasets.items():  # where a set overrides the query, it overrides what is made of it
        if method.query in (row.queries or {}):
            own = overlay(row.queries[method.query], change)
            datasets[dataset] = replace(row, queries={**row.queries, label: own})
    return replace(
        config,
        queries={**config.queries, label: changed},
        methods={**config.methods, label: replace(method, query=label)},
        datasets=datasets,
    )


def _nested(key: str, value: Any) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {first: _nested(rest, value) if rest else value}


def _effective(config: Config, dataset: str, method: str) -> tuple[Any, ...]:
    """All that makes a method what it is on a data set: of equal ones, one is trained."""
    row = config.methods[method]
    sections = [config.of_method(section, dataset, method) for section in OVERRIDABLE]
    return (row.policy, row.generator, *sections, config.query(dataset, row.query) if row.query else None)


def _check_epsilons(name: str, row: Ablation) -> None:
    if row.epsilons is not None:
        raise ConfigError(f"`ablations.{name}.epsilons` is given, and epsilon is what varies; leave it out.")
    for value in row.values:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or value <= 0 or float(epsilon_label(value)) != value:
            raise ConfigError(
                f"`ablations.{name}.values` has {value!r}; expected epsilons: numbers above 0 of at most six digits."
            )
