"""The measurements of a data set as a table: a CSV file for programs, aligned text for people.

``python -m privimage.reporting.summary FILE`` prints the table of a ``summary.csv``.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from privimage.artifacts import ArtifactError, write_text
from privimage.measurements import Accuracy
from privimage.reporting.cells import Cell, Measured
from privimage.reporting.metrics import ACCURACIES, ATTACKS, groups, heading, instrument, kind, value_text
from privimage.rows import epsilon_label

Row = dict[str, str | int | float | None]
COORDINATES = ("dataset", "method", "seed", "epsilon", "epsilon_spent", "protocol")
VARIED = ("setting", "value")  # of an ablation's rows
SECONDS = "seconds"  # and, of each stage, `seconds_<stage>`
WIDTH = 100  # characters of a line of text
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
        row |= {"epsilon_spent": cell.statement.epsilon, **accuracies(found.accuracy)}
        for quality in found.qualities:
            row |= quality.metrics
        if found.memorisation:
            row["closer_to_train"] = found.memorisation.closer_to_train
        if found.membership:
            row["membership_auc"] = found.membership.auc
        rows.append(row | {"seconds": seconds.get(cell.coordinates)})
    for accuracy in measured.references:
        seed = accuracy.provenance.settings.get("seed")
        rows.append({"dataset": dataset, "method": REAL, "seed": seed, **accuracies(accuracy)})
    return rows


def write_summary(path: Path, rows: Sequence[Row]) -> None:
    """The file exists; an unknown value is an empty field."""
    write_rows(path, rows, [*COORDINATES, *metrics_of(rows), SECONDS])


def write_rows(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """The file exists, with these columns; an unknown value is an empty field."""
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
    """The measurements as aligned plain text, within 100 columns: accuracies and Fréchet distances, then the rest."""
    found = groups(metrics_of(rows))
    accuracies = {metric: heading(metric)[0] for metric in found.pop(ACCURACIES, [])}
    rest = [metric for members in found.values() for metric in members]
    main = {metric: metric for metric in rest if kind(metric) in ("fd", "fid")}
    note = "accuracy on real test images of classifiers trained on the images of each row; not private"
    text = (
        f"{rows[0]['dataset']}: {note}\n"
        + _stamp(rows)
        + _tables(lines_of(rows), accuracies | main, ("epsilon", "spent", "seeds"))
    )
    for name, heads in _blocks(metric for metric in rest if metric not in main).items():
        text += f"\n{name}\n" + _tables(lines_of(rows), heads, ("epsilon",))
    return text


def _stamp(rows: Sequence[Row]) -> str:
    """A line that says so if any number is not a valid result."""
    oracle = next((row["protocol"] for row in rows if str(row.get("protocol")).startswith("oracle")), None)
    return f"NOT VALID: {oracle}\n" if oracle else ""


def _blocks(metrics: Iterable[str]) -> dict[str, dict[str, str]]:
    """The metrics by what they were measured with, each with a short name for its column."""
    blocks: dict[str, dict[str, str]] = {}
    for metric in metrics:
        if metric in ATTACKS:
            blocks.setdefault("copies and membership", {})[metric] = heading(metric)[0]
        else:
            network = instrument(metric)
            blocks.setdefault(f"in the features of {network}", {})[metric] = metric.replace(f"_{network}", "", 1)
    return blocks


def _tables(lines: Sequence[Line], heads: dict[str, str], about: Sequence[str]) -> str:
    """The columns in as many tables as the width asks for; the first has the columns that are ``about`` the lines."""
    shown = [line for line in lines if not line.is_reference or any(metric in line.metrics for metric in heads)]
    facts = {
        "epsilon": [_text(line.epsilon, epsilon_label) for line in shown],
        "spent": [_text(line.epsilon_spent, "{:.4f}".format) for line in shown],
        "seeds": [str(line.seeds) for line in shown],
    }
    names = ["method", *(line.method for line in shown)]
    tables = [[names, *([name, *facts[name]] for name in about)]]
    for metric, head in heads.items():
        column = [head, *(value_text(metric, line.metrics.get(metric)) for line in shown)]
        if _width([*tables[-1], column]) > WIDTH:
            tables.append([names, ["epsilon", *facts["epsilon"]]])
        tables[-1].append(column)
    return "\n".join(map(aligned, tables))


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, column)) + 2 for column in columns) - 2


def aligned(columns: Sequence[Sequence[str]]) -> str:
    """Columns of text under their heads: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in columns]
    rows = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        for row in zip(*columns)
    ]
    return "\n".join([rows[0], "-" * len(rows[0]), *rows[1:]]) + "\n"


def _line(method: str, epsilon: float | None, group: Sequence[Row]) -> Line:
    values = {metric: [row[metric] for row in group if row.get(metric) is not None] for metric in metrics_of(group)}
    metrics = {m: (fmean(v), stdev(v) if len(v) > 1 else None) for m, v in values.items() if v}
    spent = [row["epsilon_spent"] for row in group if row.get("epsilon_spent") is not None]
    return Line(method, epsilon, max(spent, default=None), len(group), metrics)


def metrics_of(rows: Sequence[Row]) -> list[str]:
    """Every column but coordinates and times, in the order in which they first appear."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if key not in (*COORDINATES, *VARIED) and key.partition("_")[0] != SECONDS]


def accuracies(accuracy: Accuracy | None) -> Row:
    """The columns of what classifiers reached: each one's mean, their mean, and by which protocol."""
    if accuracy is None:
        return {}
    each = {f"accuracy_{name}": result["mean"] for name, result in accuracy.classifiers.items()}
    return {**each, "accuracy_mean": accuracy.mean_accuracy, "protocol": accuracy.protocol}


def _value(key: str, text: str) -> str | int | float | None:
    if key in ("dataset", "method", *VARIED):
        return text
    if not text or key == "protocol":
        return text or None
    return int(text) if key == "seed" else float(text)


def _text(value: float | None, form: Callable[[float], str]) -> str:
    return "-" if value is None else form(value)


def main() -> None:
    """Print the table of the summary file named on the command line."""
    print(table_text(read_summary(Path(sys.argv[1]))), end="")


if __name__ == "__main__":
    main()
