"""What each method is worth beside the first one: differences of means, with their standard errors over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev

from privimage.reporting.metrics import kind, scale, title
from privimage.reporting.study import shown
from privimage.reporting.summary import SECONDS, Row, aligned, metrics_of
from privimage.rows import epsilon_label

COLUMNS = ("dataset", "method", "epsilon", "metric", "seeds", "mean", "difference", "error", "seconds", "more_seconds")


def differences(rows: Sequence[Row]) -> list[Row]:
    """A row a method, epsilon and metric: its mean, and how much more that is than the first method's.

    Seeds that both have are compared pair by pair, and are those of ``mean`` where there are any. ``error`` is the
    standard error of the mean difference, None where one seed or none is left. Accuracies are fractions. ``seconds``
    are of all stages with times, the mean of a release.
    """
    base = rows[0]["method"]
    found = []
    for method, epsilon in dict.fromkeys((row["method"], row["epsilon"]) for row in rows):
        own, others = _of(rows, method, epsilon), _of(rows, base, epsilon)
        for metric in (m for m in metrics_of(rows) if kind(m) in ("accuracy", "fd", "fid")):
            pairs = [(own[s].get(metric), others[s].get(metric)) for s in own if s in others]
            pairs = [(mine, its) for mine, its in pairs if mine is not None and its is not None]
            gains = [mine - its for mine, its in pairs]
            values = [mine for mine, _ in pairs] or [r[metric] for r in own.values() if r.get(metric) is not None]
            if values:
                told = {"dataset": rows[0]["dataset"], "method": method, "epsilon": epsilon, "metric": metric}
                found.append(told | _spread(values, gains if method != base else []) | _times(own, others))
    return found


def differences_text(rows: Sequence[Row]) -> str:
    """A table a metric: a method a line, an epsilon a column; accuracies in points of a hundred."""
    if not rows:
        return "Nothing was measured that methods could differ in.\n"
    epsilons = sorted({row["epsilon"] for row in rows})
    text = f"Differences to {rows[0]['method']}, mean ± standard error over seeds; not private.\n"
    for metric in shown([*dict.fromkeys(row["metric"] for row in rows)]):
        own = [row for row in rows if row["metric"] == metric]
        methods = list(dict.fromkeys(row["method"] for row in own))
        columns = [["method", *methods]]
        for epsilon in epsilons:
            cells = {row["method"]: row for row in own if row["epsilon"] == epsilon}
            columns.append([f"ε = {epsilon_label(epsilon)}", *(_cell(metric, cells.get(m)) for m in methods)])
        text += f"\n{title(metric)}\n{aligned(columns)}"
    return text


def _of(rows: Sequence[Row], method: str, epsilon: float) -> dict[int, Row]:
    return {row["seed"]: row for row in rows if row["method"] == method and row["epsilon"] == epsilon}


def _spread(values: Sequence[float], gains: Sequence[float]) -> Row:
    error = stdev(gains) / sqrt(len(gains)) if len(gains) > 1 else None
    return {
        "seeds": len(gains) or len(values),
        "mean": fmean(values),
        "difference": fmean(gains) if gains else None,
        "error": error,
    }


def _times(own: dict[int, Row], others: dict[int, Row]) -> Row:
    mine, its = _seconds(own), _seconds(others)
    return {"seconds": mine, "more_seconds": None if mine is None or its is None else mine - its}


def _seconds(rows: dict[int, Row]) -> float | None:
    times = [
        sum(v for k, v in row.items() if k.partition("_")[0] == SECONDS and v is not None) for row in rows.values()
    ]
    return fmean(times) if any(times) else None


def _cell(metric: str, row: Row | None) -> str:
    if row is None:
        return "-"
    digits, by = (1, scale(metric)) if kind(metric) == "accuracy" else (2, 1)
    if row["difference"] is None:
        return f"{row['mean'] * by:.{digits}f}"
    error = "" if row["error"] is None else f" ± {row['error'] * by:.{digits}f}"
    return f"{row['difference'] * by:+.{digits}f}{error}"
