"""Camelyon17 as WILDS released it (Koh et al. 2021): patches of lymph nodes, with tumour tissue or without.

The split is the official one: the hospital numbered 2 is the test set. Left out, as in published results, are the
hospital numbered 1, on which WILDS validates, and the validation images of the other three: what remains are 302,436
images to train with and 85,054 for testing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from privimage.data.classes import in_declared_order
from privimage.data.messages import shown
from privimage.data.record import BadImage, Collection, Problem, Record, Split, printable
from privimage.data.tree import Tree, open_tree
from privimage.errors import UserError
from privimage.settings import Source

CLASSES = ("normal", "tumor")
COLUMNS = ("patient", "node", "x_coord", "y_coord", "tumor", "center", "split")
TABLE, RELEASE = "metadata.csv", "camelyon17_v1.0"
TEST_CENTER, VALIDATION_CENTER, CENTERS = 2, 1, range(5)
MAX_LINE = 10_000  # characters
NUMBER = re.compile(r"\d{1,9}", re.ASCII)


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """The patches that ``metadata.csv`` lists for training and testing, in its order.

    The folder is ``source.path`` (or ``data/camelyon17``), or the release's own within it. Whether a patch's file is
    there is seen when it is read.

    Raises:
        UserError: if the table or its columns are missing, or the classes are not the declared ones.
    """
    given = Path(source.path or f"data/{source.source}")
    root = next((root for root in (given, given / RELEASE) if (root / TABLE).is_file()), None)
    if root is None:
        raise UserError(
            f"{shown(given)} has no {TABLE}; `path` must name the folder {RELEASE} that WILDS's archive unpacks to."
        )
    _, header = next(_lines(root / TABLE), (1, ""))
    missing = [name for name in COLUMNS if name not in _cells(header)]
    if missing:
        raise UserError(f"{shown(root / TABLE)} lacks the columns {', '.join(missing)}; copy the official file anew.")
    names = in_declared_order(CLASSES, source, class_names, shown(root))
    labels = [names.index(name) for name in CLASSES]
    return Collection("Camelyon17 (WILDS)", names, partial(_items, root, _cells(header), labels))


def _items(root: Path, header: Sequence[str], labels: Sequence[int]) -> Iterator[Record | Problem]:
    tree, place = open_tree(root), {name: header.index(name) for name in COLUMNS}
    for number, line in islice(_lines(root / TABLE), 1, None):
        cells = _cells(line)
        row = _row(cells, place) if len(cells) == len(header) else None
        if row is None:
            told = f"got '{printable(line[:80])}'; expected {len(header)} whole numbers as in the other rows"
            yield Problem(f"{TABLE}, line {number}", told, "copy the official file anew")
        elif (split := _split(row)) is not None:
            name = _name(row)
            yield Record(name, labels[row["tumor"]], split, partial(_load, tree, name))


def _load(tree: Tree, name: str) -> bytes:
    if not tree.has(name):
        raise BadImage(f"{TABLE} lists it, but there is no such file", "unpack the release anew")
    return tree.read(name)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, counted from 1.

    Raises:
        UserError: while they are read, if the file cannot be, or a line has no end.
    """
    number, where = 0, shown(path)
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            while line := file.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE:
                    raise UserError(f"{where}, line {number} is longer than any table's; copy the official file anew.")
                if line.strip():
                    yield number, line.strip("\n")
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror}); mend its permissions or copy it anew.") from None


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")]


def _row(cells: Sequence[str], place: Mapping[str, int]) -> dict[str, int] | None:
    """The numbers of a row, or None if they are not what they should be."""
    told = {name: cells[index] for name, index in place.items()}
    if not all(NUMBER.fullmatch(cell) for cell in told.values()):
        return None
    row = {name: int(cell) for name, cell in told.items()}
    return row if row["tumor"] in (0, 1) and row["split"] in (0, 1) and row["center"] in CENTERS else None


def _split(row: Mapping[str, int]) -> Split:
    """The official part; None for what is left out."""
    if row["center"] == TEST_CENTER:
        return "test"
    return "train" if row["center"] != VALIDATION_CENTER and row["split"] == 0 else None


def _name(row: Mapping[str, int]) -> str:
    slide = f"patient_{row['patient']:03}_node_{row['node']}"
    return f"patches/{slide}/patch_{slide}_x_{row['x_coord']}_y_{row['y_coord']}.png"
