"""What the report is made of: one cell a release (method, seed, epsilon), and what only the owner may see."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from privimage.artifacts import ImageSet, PrivacyStatement, Subset
from privimage.config import epsilon_label
from privimage.errors import UserError
from privimage.measurements import Accuracy, Curve, Quality

RELEASED = ("method", "seed", "epsilon", "privacy", "images", "subset")
MEASURED = ("quality", "accuracy", "curve", "semantics", "memorisation", "membership")


@dataclass(frozen=True)
class Cell:
    """One release; the last three are measured on real images and absent from what leaves the building."""

    method: str
    seed: int
    epsilon: float
    statement: PrivacyStatement
    images: ImageSet
    subset: Subset
    qualities: tuple[Quality, ...] = ()
    accuracy: Accuracy | None = None
    curve: Curve | None = None

    @property
    def name(self) -> str:
        """The method and the target, as a reader calls them."""
        return f"{self.method}, ε = {epsilon_label(self.epsilon)}"

    @property
    def coordinates(self) -> str:
        """Its folder below the data set's."""
        return f"{self.method}/seed{self.seed}/eps{epsilon_label(self.epsilon)}"


@dataclass(frozen=True)
class Measured:
    """What was computed from real images without a guarantee: for the owner alone.

    ``benchmarks`` maps a label (``stage/method/seed0/eps1``, or its beginning) to seconds and megabytes;
    ``odometer_epsilon`` is the cost of everything ever drawn from the set, infinite where noise was reproducible, and
    ``odometer_lost`` says that nobody knows it any more.
    """

    train: ImageSet
    test: ImageSet
    references: list[Accuracy] = field(default_factory=list)
    benchmarks: dict[str, tuple[float, float]] = field(default_factory=dict)
    odometer_epsilon: float | None = None
    odometer_lost: bool = False


def read_cells(text: str, *, measured: bool) -> list[Cell]:
    """The cells that a flag's JSON names, with the measured files only if ``measured``.

    Raises:
        UserError: if a key is unknown, missing, or not for this edition.
    """
    rows = json_of(text, "--cells", list)
    if not rows:
        raise UserError("--cells is empty; expected at least one release to report.")
    return [_read_cell(row, measured) for row in rows]


def read_benchmarks(text: str) -> dict[str, tuple[float, float]]:
    """Seconds and peak megabytes for each label whose benchmark file exists."""
    paths = {label: Path(path) for label, path in json_of(text, "--benchmarks", dict).items()}
    return {label: _read_benchmark(path) for label, path in paths.items() if path.exists()}


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
    except json.JSONDecodeError as error:
        raise UserError(f"{flag} is not JSON ({error}); expected a {kind.__name__}.") from error
    if not isinstance(value, kind):
        raise UserError(f"{flag} is a {type(value).__name__}; expected a {kind.__name__}.")
    return value


def _read_cell(row: Mapping[str, Any], measured: bool) -> Cell:
    known = RELEASED + MEASURED if measured else RELEASED
    unknown, missing = sorted(set(row) - set(known)), sorted(set(RELEASED) - set(row))
    if unknown or missing:
        raise UserError(
            f"--cells has an entry with keys {', '.join(sorted(row))}; this edition takes {', '.join(known)}"
            f" and needs {', '.join(RELEASED)}."
        )
    if not measured:
        refuse_internal([row["privacy"], row["images"], row["subset"]])
    readers = {"accuracy": Accuracy, "curve": Curve}
    extra = {key: reader.read(Path(row[key])) for key, reader in readers.items() if row.get(key)}
    return Cell(
        method=row["method"],
        seed=int(row["seed"]),
        epsilon=float(row["epsilon"]),
        statement=PrivacyStatement.read(Path(row["privacy"])),
        images=ImageSet.read(Path(row["images"])),
        subset=Subset.read(Path(row["subset"])),
        qualities=tuple(Quality.read(Path(path)) for path in row.get("quality", ())),
        **extra,
    )


def _read_benchmark(path: Path) -> tuple[float, float]:
    """Seconds and megabytes of a Snakemake benchmark's last line; what it could not measure counts as zero."""
    head, *_, last = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line]
    row = dict(zip(head, last, strict=False))
    return _number(row.get("s")), _number(row.get("max_rss"))


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
