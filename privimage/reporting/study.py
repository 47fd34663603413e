"""Rows of many releases as text: methods down, epsilons across; and ours beside what others published."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from privimage.artifacts import ArtifactError, reading
from privimage.reporting.metrics import kind, title, value_text
from privimage.reporting.summary import Row, aligned, metrics_of
from privimage.rows import epsilon_label

MEAN = "accuracy_mean"
PUBLISHED = ("experiment", "dataset", "method", "epsilon", "metric", "value", "source")
COMPARED = ("experiment", "dataset", "method", "epsilon", "metric", "published", "ours", "spread", "seeds", "source")
OF = "Mean ± standard deviation over seeds; of one seed's mean accuracy, over its classifiers. Not private."


def shown(metrics: Sequence[str]) -> list[str]:
    """The metrics that a study looks at first: mean accuracy, then distances."""
    return [metric for metric in metrics if metric == MEAN or kind(metric) in ("fd", "fid")]


def spread(rows: Sequence[Row], metric: str) -> tuple[float, float | None] | None:
    """A metric's mean over rows of several seeds and its deviation; None where nothing was measured."""
    values = [row[metric] for row in rows if row.get(metric) is not None]
    if not values:
        return None
    if len(values) == 1 and metric == MEAN:
        (one,) = [row for row in rows if row.get(metric) is not None]
        values_of = [one[m] for m in metrics_of(rows) if kind(m) == "accuracy" and m != MEAN and one.get(m) is not None]
        return values[0], stdev(values_of) if len(values_of) > 1 else None
    return fmean(values), stdev(values) if len(values) > 1 else None


def grid(rows: Sequence[Row]) -> str:
    """A table a metric: a method a line, or a value where a setting varies; an epsilon a column."""
    budgets = sorted({row["epsilon"] for row in rows}) if rows[0].get("setting") != "epsilon" else [None]  # None: any
    names = {_name(row): [r for r in rows if _name(r) == _name(row)] for row in rows}
    text = f"{rows[0]['dataset']}: {OF}\n"
    for metric in shown(metrics_of(rows)):
        columns = [[str(rows[0].get("setting", "method")), *names]]
        for epsilon in budgets:
            cells = [spread([r for r in found if epsilon in (None, r["epsilon"])], metric) for found in names.values()]
            head = "mean" if epsilon is None else f"ε = {epsilon_label(epsilon)}"
            columns.append([head, *(value_text(metric, cell) for cell in cells)])
        text += f"\n{title(metric)}\n{aligned(columns)}"
    return text


def read_published(path: Path) -> list[dict[str, str]]:
    """What others published, a number a row.

    Raises:
        ArtifactError: if the file is absent or has other columns.
    """
    with reading(path):
        table = csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines())
        rows = list(table)
        if tuple(table.fieldnames or ()) != PUBLISHED:
            raise ArtifactError(f"{path} has the columns {table.fieldnames}; expected {', '.join(PUBLISHED)}.")
    return rows


def beside(dataset: str, rows: Sequence[Row], published: Sequence[dict[str, str]]) -> list[Row]:
    """A row a number, published, ours or both: first those that were published, in their order, then the rest."""
    ours: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        for metric in metrics_of([row]):
            if (kind(metric) in ("accuracy", "fid", "fd")) and row.get(metric) is not None:
                ours.setdefault((row["method"], epsilon_label(row["epsilon"]), metric), []).append(row)
    compared = []
    for told in (row for row in published if row["dataset"] == dataset):
        key = (told["method"], epsilon_label(float(told["epsilon"])) if told["epsilon"] else "", told["metric"])
        about = {name: told[name] for name in ("experiment", "source")}
        compared.append({**_compared(dataset, key, ours.get(key, [])), **about, "published": float(told["value"])})
    met = {(row["method"], row["epsilon"], row["metric"]) for row in compared}
    return compared + [_compared(dataset, key, found) for key, found in ours.items() if key not in met]


def beside_text(rows: Sequence[Row]) -> str:
    """The comparison as text; what is not there is a dash."""
    columns = [["method", *(str(row["method"]) for row in rows)], ["ε", *(str(row["epsilon"]) or "-" for row in rows)]]
    columns.append(["metric", *(str(row["metric"]) for row in rows)])
    for name in ("published", "ours"):
        cells = [(row.get(name), row.get("spread") if name == "ours" else None) for row in rows]
        texts = [value_text(row["metric"], None if c[0] is None else c) for row, c in zip(rows, cells)]
        columns.append([name, *texts])
    columns.append(["seeds", *(str(row.get("seeds") or "-") for row in rows)])
    return aligned(columns)


def _compared(dataset: str, key: tuple[str, str, str], found: Sequence[Row]) -> Row:
    method, epsilon, metric = key
    each = {row["seed"]: row for row in found}  # a release may stand in several tables
    mean, deviation = spread(list(each.values()), metric) or (None, None)
    about: Row = {"dataset": dataset, "method": method, "epsilon": epsilon, "metric": metric}
    return {**about, "ours": mean, "spread": deviation, "seeds": len(each) or None}


def _name(row: Row) -> str:
    return str(row.get("value", row["method"]))
