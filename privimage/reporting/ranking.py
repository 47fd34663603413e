"""How well a proxy says which method will do best on the set that it stands for. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from scipy.stats import spearmanr

from privimage.errors import UserError
from privimage.reporting.metrics import scale
from privimage.reporting.study import MEAN
from privimage.reporting.summary import Row, aligned
from privimage.rows import epsilon_label

COLUMNS = ("epsilon", "method", "proxy", "real")
FEWEST = 3  # methods of which an order says something


def means(rows: Sequence[Row], epsilon: float | None = None) -> dict[str, float]:
    """Each method's mean accuracy over the seeds, and epsilons where none is given, that all methods were run with.

    Raises:
        UserError: if a release has no accuracy.
    """
    cells: dict[str, dict[tuple[float, int], float]] = {}
    for row in rows:
        if epsilon is None or row["epsilon"] == epsilon:
            if row.get(MEAN) is None:
                raise UserError(f"{row['method']}, epsilon {row['epsilon']:g} has no accuracy; nothing can be chosen.")
            cells.setdefault(row["method"], {})[row["epsilon"], row["seed"]] = row[MEAN]
    shared = set.intersection(*map(set, cells.values())) if cells else set()
    if cells and not shared:
        raise UserError(
            "no epsilon and seed was run with every method; nothing can be compared; run all with one seed."
        )
    return {method: fmean(found[cell] for cell in shared) for method, found in cells.items()}


def compared(proxy: Sequence[Row], real: Sequence[Row]) -> list[Row]:
    """A row an epsilon and method that both tables have: mean accuracy on the one and on the other.

    Raises:
        UserError: if they have none in common, or a release has no accuracy.
    """
    epsilons = sorted({row["epsilon"] for row in proxy} & {row["epsilon"] for row in real})
    found = []
    for epsilon in epsilons:
        one, other = means(proxy, epsilon), means(real, epsilon)
        found += [
            {"epsilon": epsilon, "method": method, "proxy": one[method], "real": other[method]}
            for method in one
            if method in other
        ]
    if not found:
        raise UserError("the proxy and the set have no method and epsilon in common; run both by one configuration.")
    return found


def correlation(rows: Sequence[Row]) -> float | None:
    """Spearman's rank correlation of the two columns; None of too few methods, or where all are equal."""
    columns = [[row[name] for row in rows] for name in ("proxy", "real")]
    if len(rows) < FEWEST or any(len(set(column)) == 1 for column in columns):
        return None
    return float(spearmanr(*columns).statistic)


def ranking_text(rows: Sequence[Row]) -> str:
    """Of each epsilon the correlation, what the method picked over all of them is worth, and what the best would be."""
    methods = {row["method"]: [r["proxy"] for r in rows if r["method"] == row["method"]] for row in rows}
    pick = max(methods, key=lambda name: fmean(methods[name]))
    columns = [["ε"], ["methods"], ["rank correlation"], ["picked"], ["its accuracy"], ["the best"], ["its accuracy"]]
    for epsilon in dict.fromkeys(row["epsilon"] for row in rows):
        own = [row for row in rows if row["epsilon"] == epsilon]
        best, found = max(own, key=lambda row: row["real"]), correlation(own)
        picked = next((row for row in own if row["method"] == pick), best)
        cells = [epsilon_label(epsilon), str(len(own)), "-" if found is None else f"{found:.2f}"]
        for row in (picked, best):
            cells += [row["method"], f"{row['real'] * scale(MEAN):.1f} %"]
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    return aligned(columns)
