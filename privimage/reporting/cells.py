"""What the report is made of: one cell a release (method, seed, epsilon), and what only the owner may see."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from privimage.artifacts import ImageSet, PrivacyStatement, Subset
from privimage.errors import UserError
from privimage.measurements import Accuracy, Audit, Curve, Membership, Memorisation, Quality, Semantics
from privimage.rows import epsilon_label

RELEASED = ("method", "seed", "epsilon", "privacy", "images", "subset")
READERS = {
    "accuracy": Accuracy,
    "audit": Audit,
    "curve": Curve,
    "memorisation": Memorisation,
    "membership": Membership,
    "semantics": Semantics,
}
MEASURED = ("quality", *READERS)


@dataclass(frozen=True)
class Cell:
    """One release: only what may leave the building."""

    method: str
    seed: int
    epsilon: float
    statement: PrivacyStatement
    images: ImageSet
    subset: Subset

    @property
    def name(self) -> str:
        """The method and the target, as a reader calls them."""
        return f"{self.method}, ε = {epsilon_label(self.epsilon)}"

    @property
    def coordinates(self) -> str:
        """Its folder below the data set's."""
        return f"{self.method}/seed{self.seed}/eps{epsilon_label(self.epsilon)}"


@dataclass(frozen=True)
class Measurements:
    """What was measured on one release with real images; what was not is absent."""

    qualities: tuple[Quality, ...] = ()
    accuracy: Accuracy | None = None
    audit: Audit | None = None
    curve: Curve | None = None
    memorisation: Memorisation | None = None
    membership: Membership | None = None
    semantics: Semantics | None = None


@dataclass(frozen=True)
class Measured:
    """What was computed from real images without a guarantee: for the owner alone.

    ``cells`` maps a release's coordinates to what was measured on it;
    ``benchmarks`` a label (``stage/method/seed0/eps1``, or its beginning) to seconds and megabytes;
    ``odometer_epsilon`` is the cost of everything ever drawn from the set, infinite where noise was reproducible, and
    ``odometer_lost`` says that nobody knows it any more.
    """

    train: ImageSet
    test: ImageSet
    cells: dict[str, Measurements] = field(default_factory=dict)
    references: list[Accuracy] = field(default_factory=list)
    benchmarks: dict[str, tuple[float, float]] = field(default_factory=dict)
    odometer_epsilon: float | None = None
    odometer_lost: bool = False

    def of(self, cell: Cell) -> Measurements:
        """What was measured on one release."""
        return self.cells.get(cell.coordinates, Measurements())


def read_cells(text: str, *, measured: bool) -> tuple[list[Cell], dict[str, Measurements]]:
    """The cells that a flag's JSON names, and what was measured on each: nothing unless ``measured``.

    Raises:
        UserError: if a key is unknown, missing, or not for this edition.
    """
    rows = json_of(text, "--cells", list)
    if not rows:
        raise UserError("--cells is empty; expected at least one release to report.")
    for row in rows:
        _check_keys(row, measured)
    cells = [_read_cell(row) for row in rows]
    found = [_read_measurements(row) for row in rows] if measured else []
    return cells, {cell.coordinates: measurements for cell, measurements in zip(cells, found)}


def read_benchmarks(text: str) -> dict[str, tuple[float, float]]:
    """Seconds and peak megabytes for each label whose benchmark file exists."""
    paths = {label: Path(path) for label, path in json_of(text, "--benchmarks", dict).items()}
    return {label: read_benchmark(path) for label, path in paths.items() if path.exists()}


def refuse_internal(paths: Sequence[str | Path]) -> None:
    """Return if none of the paths leads through a folder named ``internal``.

    Raises:
        UserError: if one does.
    """
    for path in paths:
        if "internal" in Path(path).parts:
            raise UserError(f"the release edition got {path}; it reads nothing from a folder named internal.")


def json_of(text: str, flag: str, kind: type) -> Any:
    """The value of a flag's JSON.

    Raises:
        UserError: if it is not JSON or not of this kind.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # also of numbers and depths that Python refuses
        raise UserError(f"{flag} is not JSON ({error}); expected a {kind.__name__}.") from error
    if not isinstance(value, kind):
        raise UserError(f"{flag} is a {type(value).__name__}; expected a {kind.__name__}.")
    return value


def _check_keys(row: Mapping[str, Any], measured: bool) -> None:
    known = RELEASED + MEASURED if measured else RELEASED
    unknown, missing = sorted(set(row) - set(known)), sorted(set(RELEASED) - set(row))
    if unknown or missing:
        raise UserError(
            f"--cells has an entry with keys {', '.join(sorted(row))}; this edition takes {', '.join(known)}"
            f" and needs {', '.join(RELEASED)}."
        )
    if not measured:
        refuse_internal([row["privacy"], row["images"], row["subset"]])


def _read_cell(row: Mapping[str, Any]) -> Cell:
    return Cell(
        method=row["method"],
        seed=int(row["seed"]),
        epsilon=float(row["epsilon"]),
        statement=PrivacyStatement.read(Path(row["privacy"])),
        images=ImageSet.read(Path(row["images"])),
        subset=Subset.read(Path(row["subset"])),
    )


def _read_measurements(row: Mapping[str, Any]) -> Measurements:
    found = {key: reader.read(Path(row[key])) for key, reader in READERS.items() if row.get(key)}
    return Measurements(tuple(Quality.read(Path(path)) for path in row.get("quality", ())), **found)


def read_benchmark(path: Path) -> tuple[float, float]:
    """Seconds and megabytes of a Snakemake benchmark's last line; what it could not measure counts as zero."""
    head, *_, last = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line]
    row = dict(zip(head, last, strict=False))
    return _number(row.get("s")), _number(row.get("max_rss"))


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
