"""One page to release, and one for the owner alone.

Reads: privacy statements, also of releases that are not shown, synthetic images, subsets and noisy queries; for the
    internal edition also the real images, measurements on them, attacks, training curves, benchmarks and the odometer.
Writes: one HTML file; for the internal edition also the measurements as CSV.
Privacy: post-processing (release edition); evaluation, not private (internal edition).
Source: Li et al., USENIX Security 2024, for what is measured.

A benchmark's label is `stage`, `stage/method/seed0` or `stage/method/seed0/eps1`, and may go on (`/network`): what
stands before the first slash names the row of the table of times, and a full label counts to that cell's seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from privimage import cli
from privimage.artifacts import ArtifactError, ImageSet, QueryResult, Stated, Statements, sha256, write_text
from privimage.errors import UserError
from privimage.measurements import Accuracy
from privimage.privacy.ledger import Ledger
from privimage.reporting import owner, page, summary
from privimage.reporting.cells import (
    Cell,
    Measured,
    Measurements,
    json_of,
    read_benchmarks,
    read_cells,
    refuse_internal,
)
from privimage.reporting.cost import verdict
from privimage.reporting.gallery import Picture, grids_within
from privimage.settings import Declared

VERSION = 3
MAX_BYTES = 5_000_000
GRID_BYTES = 2_600_000  # of all grids together, if figures leave as much
SPARE_BYTES = 50_000
INTERNAL = ("real_train", "real_test", "real_accuracy", "benchmarks", "odometer", "summary")
NEEDED = ("real_train", "real_test", "summary")


def run(
    dataset: str,
    declared: Declared,
    cells: Sequence[Cell],
    queries: Mapping[str, tuple[str, QueryResult]],
    measured: Measured | None = None,
    others: Sequence[Stated] = (),
) -> tuple[str, list[summary.Row]]:
    """The page, and the rows of the summary (none without ``measured``).

    ``queries`` maps the SHA-256 of a query's file to its name and result. With ``measured`` it is the internal
    edition. ``others`` are releases that the page does not show, and whose cost its headline counts.

    Raises:
        ArtifactError: if the artifacts do not belong together or a privacy statement is incomplete.
    """
    _check_belonging(declared, cells, measured)
    stated = [*(cell.statement for cell in cells), *(other.statement for other in others)]
    cost = verdict(stated, {sha: q for sha, (_, q) in queries.items()}, declared)
    shown = page.first_of_each(cells, lambda cell: cell.name)
    pictured = [cell.images for cell in shown] + ([measured.train] if measured else [])
    released = page.released(dataset, declared, cells, queries, cost, len(others))
    rows: list[summary.Row] = []
    internal = None
    if measured:
        rows = summary.rows_of(dataset, cells, measured, _seconds(cells, measured))
        internal = owner.internal(measured, cells, queries, rows, declared)
    without = page.render(released, [Picture("image/png", b"", 1, 1)] * len(pictured), 1, internal)
    room = (MAX_BYTES - SPARE_BYTES - len(without.encode())) * 3 // 4  # base64 makes four bytes of three
    grids, num_shown = grids_within(pictured, len(declared.class_names), min(GRID_BYTES, room))
    html = page.render(released, grids, num_shown, internal)
    if len(html.encode()) > MAX_BYTES:
        raise UserError(f"the page has {len(html.encode())} bytes; expected at most {MAX_BYTES}; report fewer cells.")
    return html, rows


def main() -> None:
    """Read what the flags name, write the page, and print the utility table in the internal edition."""
    args = _parse()
    internal = args.edition == "internal"
    declared = cli.settings_from(Declared, args.declared, "--declared")
    cells, measurements = read_cells(args.cells, measured=internal)
    paths = [Path(path) for path in json_of(args.queries, "--queries", list)]
    if not internal:
        refuse_internal([*paths, *([args.statements] if args.statements else [])])
    queries = {sha256(path): (path.stem, QueryResult.read(path)) for path in paths}
    measured = _read_measured(args, declared, measurements) if internal else None
    others = _others(args.statements, cells) if args.statements else []
    html, rows = run(args.dataset, declared, cells, queries, measured, others)
    write_text(args.html, html)
    if internal:
        summary.write_summary(args.summary, rows)
        print(summary.table_text(rows), end="")


def _parse() -> argparse.Namespace:
    made = cli.parser("report", __doc__)
    made.add_argument("--edition", required=True, choices=("release", "internal"))
    made.add_argument("--dataset", required=True, help="name of the sensitive set")
    made.add_argument("--declared", required=True, metavar="JSON", help="its public constants")
    made.add_argument("--cells", required=True, metavar="JSON", help="list of releases: method, seed, epsilon, files")
    made.add_argument("--queries", required=True, metavar="JSON", help="list of the queries' files")
    made.add_argument("--statements", type=Path, help="privacy statements of all that the run releases of the set")
    made.add_argument("--html", required=True, type=Path, metavar="OUT", help="the page")
    internal = made.add_argument_group("internal edition only")
    internal.add_argument("--real-train", type=Path, help="the sensitive training images")
    internal.add_argument("--real-test", type=Path, help="the sensitive test images")
    internal.add_argument("--real-accuracy", metavar="JSON", help="list of files, one a seed: trained on real images")
    internal.add_argument("--benchmarks", metavar="JSON", help="label: benchmark file; absent files are left out")
    internal.add_argument("--odometer", type=Path, help="the data set's odometer")
    internal.add_argument("--summary", type=Path, metavar="OUT", help="the measurements as CSV")
    args = made.parse_args()
    given = [name for name in INTERNAL if getattr(args, name) is not None]
    if args.edition == "release" and given:
        raise UserError(
            f"the release edition got {_flags(given)}; it takes nothing that was computed from real images."
        )
    missing = [name for name in NEEDED if name not in given]
    if args.edition == "internal" and missing:
        raise UserError(f"the internal edition needs {_flags(missing)} too.")
    return args


def _others(path: Path, cells: Sequence[Cell]) -> list[Stated]:
    """The releases of the file that are none of the cells.

    Raises:
        ArtifactError: if a cell is not among them.
    """
    stated, shown = Statements.read(path).releases, []
    for cell in cells:
        shown.append(Stated(cell.method, cell.seed, cell.statement))
        if shown[-1] not in stated:
            raise ArtifactError(f"{path} lacks the privacy statement of {cell.coordinates}; rerun statements.")
    return [release for release in stated if release not in shown]


def _read_measured(args: argparse.Namespace, declared: Declared, measurements: dict[str, Measurements]) -> Measured:
    kept = bool(args.odometer) and args.odometer.exists()
    return Measured(
        train=ImageSet.read(args.real_train),
        test=ImageSet.read(args.real_test),
        cells=measurements,
        references=[Accuracy.read(Path(path)) for path in json_of(args.real_accuracy or "[]", "--real-accuracy", list)],
        benchmarks=read_benchmarks(args.benchmarks or "{}"),
        odometer_epsilon=_odometer(args.odometer, args.dataset, declared) if kept else None,
        odometer_lost=bool(args.odometer) and not kept,
    )


def _odometer(path: Path, dataset: str, declared: Declared) -> float:
    """Epsilon of everything that the odometer at ``state_dir/dataset/odometer.jsonl`` holds."""
    if path.absolute().parent.name != dataset:
        raise UserError(f"--odometer is {path}; expected it in the folder {dataset} of the state directory.")
    return Ledger(path.absolute().parent.parent, dataset, declared).total_epsilon()


def _check_belonging(declared: Declared, cells: Sequence[Cell], measured: Measured | None) -> None:
    for cell in cells:
        if not cell.images.is_synthetic:
            raise ArtifactError(
                f"{cell.coordinates} has images from the source {cell.images.source!r}; expected synthetic ones: no "
                "others are shown as a release."
            )
    real = {"the real training images": measured.train, "the real test images": measured.test} if measured else {}
    for name, images in {**{cell.coordinates: cell.images for cell in cells}, **real}.items():
        if images.class_names != declared.class_names:
            raise ArtifactError(
                f"{name} has the classes {', '.join(images.class_names)}; expected the declared ones, "
                f"{', '.join(declared.class_names)}; rerun what made it."
            )


def _seconds(cells: Sequence[Cell], measured: Measured) -> dict[str, float]:
    """For each cell's coordinates, the time of the stages that ran for it alone."""
    times: dict[str, float] = {}
    for label, (seconds, _) in measured.benchmarks.items():
        coordinates = "/".join(label.split("/")[1:4])
        if coordinates in {cell.coordinates for cell in cells}:
            times[coordinates] = times.get(coordinates, 0.0) + seconds
    return times


def _flags(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


if __name__ == "__main__":
    cli.run(main)
