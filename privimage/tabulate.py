"""Put what was measured of many releases into one table: a run's, an ablation's, or ours beside published numbers.

Reads:   privacy statements, accuracies, distances and times of releases; or such tables, and what others published.
Writes:  a table as CSV, differences to the first method, a picture where a setting varies; prints methods against
         epsilons.
Privacy: evaluation, not private: accuracies and distances were computed from real images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from privimage import cli
from privimage.artifacts import ArtifactError, PrivacyStatement, write_bytes
from privimage.errors import UserError
from privimage.measurements import Accuracy, Quality
from privimage.reporting import differences, study, summary
from privimage.reporting.cells import json_of, read_benchmark
from privimage.reporting.summary import Row

VERSION = 1
REQUIRED = {"method", "seed", "epsilon", "privacy"}
TAKEN = {*REQUIRED, "accuracy", "quality", "seconds", "value"}


def run(dataset: str, entries: Sequence[Mapping[str, Any]], setting: str | None = None) -> list[Row]:
    """A row a release, in order: coordinates, the setting's value if one varies, what was measured, seconds by stage.

    Raises:
        UserError: if an entry has other keys than it may, or a file is not what it should be.
    """
    if not entries:
        raise UserError("--cells is empty; expected at least one release.")
    return [_row(dataset, entry, setting) for entry in entries]


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Coordinates first, then what was measured, then seconds."""
    keys = dict.fromkeys(key for row in rows for key in row)
    varied = [key for key in summary.VARIED if key in keys]
    seconds = [key for key in keys if key.partition("_")[0] == summary.SECONDS]
    return [*summary.COORDINATES, *varied, *summary.metrics_of(rows), *seconds]


def main() -> None:
    """Parse, read, tabulate, write, print."""
    args = _parse()
    if args.paper:
        rows = [row for table in args.tables for row in summary.read_summary(table)]
        compared = study.beside(args.dataset, rows, study.read_published(args.published))
        summary.write_rows(args.paper, compared, study.COMPARED)
        print(f"{args.dataset}: ours beside the published numbers. {study.OF}\n\n{study.beside_text(compared)}", end="")
        return
    rows = run(args.dataset, json_of(args.cells, "--cells", list), args.setting)
    if args.figure:
        from privimage.reporting.figures.ablation import ablation_figure

        write_bytes(args.figure, ablation_figure(args.setting, rows, study.shown(summary.metrics_of(rows))))
    summary.write_rows(args.table, rows, columns_of(rows))
    print(study.grid(rows), end="")
    if args.differences:
        found = differences.differences(rows)
        summary.write_rows(args.differences, found, differences.COLUMNS)
        if args.differences_figure:
            from privimage.reporting.figures.differences import differences_figure

            shown = study.shown(list(dict.fromkeys(row["metric"] for row in found)))
            write_bytes(args.differences_figure, differences_figure(found, rows[0]["method"], shown))
        print(f"\n{differences.differences_text(found)}", end="")


def _parse() -> argparse.Namespace:
    made = cli.parser("tabulate", __doc__)
    made.add_argument("--dataset", required=True, help="name of the sensitive set")
    table = made.add_argument_group("a table of releases")
    table.add_argument("--cells", metavar="JSON", help="list of releases: method, seed, epsilon, files")
    table.add_argument("--table", type=Path, metavar="OUT", help="the table as CSV")
    table.add_argument("--differences", type=Path, metavar="OUT", help="of each method to the first one, as CSV")
    table.add_argument("--differences-figure", type=Path, metavar="OUT", help="the same as PNG")
    table.add_argument("--setting", help="what varies, if it is an ablation")
    table.add_argument("--figure", type=Path, metavar="OUT", help="its picture as PNG")
    paper = made.add_argument_group("ours beside published numbers")
    paper.add_argument("--tables", type=Path, nargs="+", help="such tables")
    paper.add_argument("--published", type=Path, help="published numbers as CSV")
    paper.add_argument("--paper", type=Path, metavar="OUT", help="both as CSV")
    args = made.parse_args()
    one, other = (args.cells, args.table), (args.tables, args.published, args.paper)
    if not (all(one) and not any(other)) and not (all(other) and not any(one)):
        raise UserError("tabulate takes --cells and --table, or --tables, --published and --paper; give one set whole.")
    if bool(args.setting) != bool(args.figure):
        raise UserError("an ablation has a setting and a figure; give --setting and --figure, or neither.")
    return args


def _row(dataset: str, entry: Mapping[str, Any], setting: str | None) -> Row:
    if not REQUIRED <= set(entry) <= TAKEN or ("value" in entry) != (setting is not None):
        raise UserError(
            f"--cells has an entry with keys {', '.join(sorted(entry))}; expected {', '.join(sorted(REQUIRED))}, "
            f"if measured {', '.join(sorted(TAKEN - REQUIRED - {'value'}))}, and `value` with --setting."
        )
    statement = PrivacyStatement.read(Path(entry["privacy"]))
    if statement.target_epsilon != entry["epsilon"]:
        raise ArtifactError(
            f"{entry['privacy']} is for epsilon {statement.target_epsilon:g}; expected {entry['epsilon']:g}; "
            "rerun finetune."
        )
    row: Row = {"dataset": dataset, "method": entry["method"], "seed": entry["seed"], "epsilon": entry["epsilon"]}
    row |= {"epsilon_spent": statement.epsilon}
    row |= summary.accuracies(Accuracy.read(Path(entry["accuracy"])) if "accuracy" in entry else None)
    if setting is not None:
        row |= {"setting": setting, "value": _text(entry["value"])}
    for path in entry.get("quality", ()):
        row |= Quality.read(Path(path)).metrics
    for stage, paths in entry.get("seconds", {}).items():
        times = [read_benchmark(Path(path))[0] for path in paths if Path(path).exists()]
        row[f"{summary.SECONDS}_{stage}"] = sum(times) if times else None
    return row


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    cli.run(main)
