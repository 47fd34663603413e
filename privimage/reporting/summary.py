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
from privimage.reporting.cells import Cell

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


def rows_of(
    dataset: str, cells: Sequence[Cell], references: Sequence[Accuracy], seconds: dict[str, float]
) -> list[Row]:
    """One row a release, then one a reference; ``seconds`` maps a cell's coordinates to its stages' time."""
    rows: list[Row] = []
    for cell in cells:
        row: Row = {"dataset": dataset, "method": cell.method, "seed": cell.seed, "epsilon": cell.epsilon}
        row |= {"epsilon_spent": cell.statement.epsilon, **_accuracies(cell.accuracy)}
        for quality in cell.qualities:
            row |= quality.metrics
        rows.append(row | {"seconds": seconds.get(cell.coordinates)})
    for accuracy in references:
        seed = accuracy.provenance.settings.get("seed")
        rows.append({"dataset": dataset, "method": REAL, "seed": seed, **_accuracies(accuracy)})
    return rows


def write_summary(path: Path, rows: Sequence[Row]) -> None:
    """The file exists; an unknown value is an empty field."""
    columns = [*COORDINATES, *_metrics(rows), "seconds"]
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
    """The measurements as aligned plain text."""
    metrics = _metrics(rows)
    table = [["method", "epsilon", "spent", "seeds", *(metric.removeprefix("accuracy_") for metric in metrics)]]
    for line in lines_of(rows):
        head = [line.method, _text(line.epsilon, epsilon_label), _text(line.epsilon_spent, "{:.4f}".format)]
        table.append([*head, str(line.seeds), *(value_text(metric, line.metrics.get(metric)) for metric in metrics)])
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    aligned = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        for row in table
    ]
    note = "accuracy on real test images of classifiers trained on the images of each row; not private"
    return "\n".join([f"{rows[0]['dataset']}: {note}", aligned[0], "-" * len(aligned[0]), *aligned[1:]]) + "\n"


def value_text(metric: str, value: tuple[float, float | None] | None) -> str:
    """A metric's mean and deviation as a reader wants them: accuracies in per cent."""
    if value is None:
        return "-"
    scale, unit, digits = (100, " %", 1) if metric.startswith("accuracy_") else (1, "", 2)
    mean, deviation = value
    spread = f" ± {deviation * scale:.{digits}f}" if deviation is not None else ""
    return f"{mean * scale:.{digits}f}{spread}{unit}"


def _line(method: str, epsilon: float | None, group: Sequence[Row]) -> Line:
    values = {metric: [row[metric] for row in group if row.get(metric) is not None] for metric in _metrics(group)}
    metrics = {m: (fmean(v), stdev(v) if len(v) > 1 else None) for m, v in values.items() if v}
    spent = [row["epsilon_spent"] for row in group if row.get("epsilon_spent") is not None]
    return Line(method, epsilon, max(spent, default=None), len(group), metrics)


def _metrics(rows: Sequence[Row]) -> list[str]:
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
