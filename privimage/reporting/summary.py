"""The measurements of a data set as a table: a CSV file for programs, aligned text for people.

``python -m privimage.reporting.summary FILE`` prints the table of a ``summary.csv``.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from privimage.artifacts import ArtifactError, write_text
from privimage.config import epsilon_label
from privimage.measurements import Accuracy
from privimage.reporting.cells import Cell, Measured
from privimage.reporting.metrics import groups, heading, value_text

Row = dict[str, str | int | float | None]
COORDINATES = ("dataset", "method", "seed", "epsilon", "epsilon_spent")
REAL = "real"  # the method's name in the rows of the reference, whose training images are the real ones


@dataclass(frozen=True)
class Line:
    """A method at an epsilon: each metric's mean over the seeds, and its deviation if there are several."""

    method: str
    epsilon: float | None
    epsilon_spent: float | None
    seeds: int
    metrics: dict[str, tuple[float, float | None]]

    @property
    def is_reference(self) -> bool:
        """Whether the classifiers were trained on the real images."""
        return self.method == REAL


def rows_of(dataset: str, cells: Sequence[Cell], measured: Measured, seconds: dict[str, float]) -> list[Row]:
    """One row a release, then one a reference; ``seconds`` maps a cell's coordinates to its stages' time."""
    rows: list[Row] = []
    for cell in cells:
        found = measured.of(cell)
        row: Row = {"dataset": dataset, "method": cell.method, "seed": cell.seed, "epsilon": cell.epsilon}
        row |= {"epsilon_spent": cell.statement.epsilon, **_accuracies(found.accuracy)}
        for quality in found.qualities:
            row |= quality.metrics
        if found.memorisation:
            row["closer_to_train"] = found.memorisation.closer_to_train
        if found.membership:
            row["membership_auc"] = found.membership.auc
        rows.append(row | {"seconds": seconds.get(cell.coordinates)})
    for accuracy in measured.references:
        seed = accuracy.provenance.settings.get("seed")
        rows.append({"dataset": dataset, "method": REAL, "seed": seed, **_accuracies(accuracy)})
    return rows


def write_summary(path: Path, rows: Sequence[Row]) -> None:
    """The file exists; an unknown value is an empty field."""
    columns = [*COORDINATES, *metrics_of(rows), "seconds"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = [row.get(column) for column in columns]
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in values])
    write_text(path, buffer.getvalue())


def read_summary(path: Path) -> list[Row]:
    """The rows of a summary file.

    Raises:
        ArtifactError: if it is absent or has other columns.
    """
    try:
        table = list(csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines()))
        return [{key: _value(key, text) for key, text in row.items()} for row in table]
    except (FileNotFoundError, ValueError) as error:
        raise ArtifactError(f"{path} is not a summary ({error}); run the stage report.") from error


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """The rows with seeds averaged, in the order in which methods appear and by epsilon, the reference last."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    groups: dict[tuple, list[Row]] = {}
    for row in sorted(rows, key=lambda r: (r["method"] == REAL, methods.index(r["method"]), r.get("epsilon") or 0)):
        groups.setdefault((row["method"], row.get("epsilon")), []).append(row)
    return [_line(method, epsilon, group) for (method, epsilon), group in groups.items()]


def table_text(rows: Sequence[Row]) -> str:
    """The measurements as aligned plain text: one table for each kind of metric."""
    note = "accuracy on real test images of classifiers trained on the images of each row; not private"
    tables = [_table(rows, members) for members in groups(metrics_of(rows)).values()] or [_table(rows, [])]
    return f"{rows[0]['dataset']}: {note}\n" + "\n".join(tables)


def _table(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    heads = [" ".join(filter(None, heading(metric))) for metric in metrics]
    table = [["method", "epsilon", "spent", "seeds", *heads]]
    for line in lines_of(rows):
        if line.is_reference and not any(metric in line.metrics for metric in metrics):
            continue
        head = [line.method, _text(line.epsilon, epsilon_label), _text(line.epsilon_spent, "{:.4f}".format)]
        table.append([*head, str(line.seeds), *(value_text(metric, line.metrics.get(metric)) for metric in metrics)])
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    aligned = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        for row in table
    ]
    return "\n".join([aligned[0], "-" * len(aligned[0]), *aligned[1:]]) + "\n"


def _line(method: str, epsilon: float | None, group: Sequence[Row]) -> Line:
    values = {metric: [row[metric] for row in group if row.get(metric) is not None] for metric in metrics_of(group)}
    metrics = {m: (fmean(v), stdev(v) if len(v) > 1 else None) for m, v in values.items() if v}
    spent = [row["epsilon_spent"] for row in group if row.get("epsilon_spent") is not None]
    return Line(method, epsilon, max(spent, default=None), len(group), metrics)


def metrics_of(rows: Sequence[Row]) -> list[str]:
    """Every column but coordinates and times, in the order in which they first appear."""
    return list(dict.fromkeys(key for row in rows for key in row if key not in (*COORDINATES, "seconds")))


def _accuracies(accuracy: Accuracy | None) -> Row:
    if accuracy is None:
        return {}
    each = {f"accuracy_{name}": result["mean"] for name, result in accuracy.classifiers.items()}
    return {**each, "accuracy_mean": accuracy.mean_accuracy}


def _value(key: str, text: str) -> str | int | float | None:
    if key in ("dataset", "method"):
        return text
    if not text:
        return None
    return int(text) if key == "seed" else float(text)


def _text(value: float | None, form: Callable[[float], str]) -> str:
    return "-" if value is None else form(value)


def main() -> None:
    """Print the table of the summary file named on the command line."""
    print(table_text(read_summary(Path(sys.argv[1]))), end="")


if __name__ == "__main__":
    main()
