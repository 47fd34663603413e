"""CelebA's aligned faces (Liu et al. 2015), with its own split; one class, or two by one of its 40 attributes.

The validation images are left out, as in published results: 162,770 images to train with, 19,962 for testing.
"""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from privimage.data.classes import in_declared_order
from privimage.data.record import BadImage, Collection, Problem, Record, Split, printable
from privimage.data.tree import Tree, open_tree
from privimage.errors import UserError
from privimage.settings import Source

IMAGES, PARTITION, ATTRIBUTES = "img_align_celeba", "list_eval_partition", "list_attr_celeba"
IMAGE_FOLDERS, TABLE_FOLDERS = ("", "Img"), ("", "Anno", "Eval")  # of the official release, and of copies of it
PARTS = {"0": 0, "1": 1, "2": 2}
SPLITS: dict[int, Split] = {0: "train", 2: "test"}  # 1 is for validation
SIGNS = {"-1": 0, "0": 0, "1": 1}
MAX_TABLE = 64_000_000  # bytes; the official tables have at most 27 million
MAX_BAD_ROWS = 1000


@dataclass(frozen=True)
class Table:
    """One column of a table: the value of each image (None where its row is wrong), and the rows that are wrong."""

    name: str
    values: Mapping[str, int | None]
    problems: Sequence[Problem]
    num_rows: int


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """The faces under ``source.path`` (or ``data/celeba``), in the order in which they lie there.

    With ``source.attribute`` the classes are those without it and those with it: ``not Male`` and ``Male``, or the two
    declared names, in this order unless one of them is the attribute's.

    Raises:
        UserError: if the images or a table are missing, a table is damaged as a whole, the attribute is unknown, or the
            classes are not the declared ones.
    """
    root = Path(source.path or f"data/{source.source}")
    tree = open_tree(root)
    images = _images(root, tree)
    names, labels = _classes(source, class_names, tree.where)
    parts = _parts(tree)
    attribute = _attribute(tree, source.attribute) if source.attribute is not None else None
    told = f"the attribute {printable(source.attribute)}" if attribute else "no attribute"
    return Collection(f"CelebA, {images.form}, {told}", names, partial(_items, images, parts, attribute, labels))


def _items(images: Tree, parts: Table, attribute: Table | None, labels: Sequence[int]) -> Iterator[Record | Problem]:
    yield from parts.problems
    yield from attribute.problems if attribute else ()
    missing = dict.fromkeys(parts.values)
    for item in images.files():
        if isinstance(item, Problem):
            yield item
            continue
        missing.pop(item, None)
        known = _item(images, item, parts, attribute, labels)
        if known is not None:
            yield known
    for name in missing:
        yield Problem(images.called(name), f"{parts.name} lists it, but there is no such image", "copy it anew")


def _item(
    images: Tree, name: str, parts: Table, attribute: Table | None, labels: Sequence[int]
) -> Record | Problem | None:
    """The record of an image; None if it is for validation, or a problem with its row was told already."""
    for table in (parts, attribute):
        if table and name not in table.values:
            return Problem(images.called(name), f"{table.name} does not list it", "remove it, or copy the table anew")
    split, sign = SPLITS.get(parts.values[name]), attribute.values[name] if attribute else 0
    if split is None or sign is None:
        return None
    return Record(images.called(name), labels[sign], split, partial(images.read, name))


def _classes(source: Source, declared: Sequence[str] | None, where: str) -> tuple[tuple[str, ...], Sequence[int]]:
    """The classes' names, and the labels of the images without the attribute and with it."""
    attribute = source.attribute
    if attribute is None:
        if declared is not None and len(declared) != 1:
            raise UserError(
                f"{where} without an `attribute` is one class; got {len(declared)} in `class_names`, expected one, or "
                "an `attribute` such as Male."
            )
        return in_declared_order(declared or ("face",), source, declared, where), (0,)
    pair = (f"not {attribute}", attribute)
    if declared is None or len(declared) != 2:
        return in_declared_order(pair, source, declared, where), (0, 1)
    if attribute in declared:
        return tuple(declared), (1 - declared.index(attribute), declared.index(attribute))
    if pair[0] in declared:
        return tuple(declared), (declared.index(pair[0]), 1 - declared.index(pair[0]))
    return tuple(declared), (0, 1)


def _images(root: Path, tree: Tree) -> Tree:
    for folder in IMAGE_FOLDERS:
        name = f"{folder}/{IMAGES}".lstrip("/")
        if IMAGES in tree.folders(folder):
            inner = tree.sub(name)
            return inner.sub(IMAGES) if IMAGES in inner.folders() else inner  # Kaggle's are one deeper
        if (root / f"{name}.zip").is_file():
            packed = open_tree(root / f"{name}.zip")
            return packed.sub(IMAGES) if IMAGES in packed.folders() else packed
    raise UserError(f"{tree.where} has neither a folder {IMAGES} nor {IMAGES}.zip; expected CelebA's aligned images.")


def _parts(tree: Tree) -> Table:
    name, rows = _rows(tree, PARTITION)
    first = next(rows, None)
    has_head = first is None or first[1][0] == "image_id"
    return _column(name, rows if has_head else chain([first], rows), 2, 1, PARTS)


def _attribute(tree: Tree, attribute: str) -> Table:
    name, rows = _rows(tree, ATTRIBUTES)
    stated = None
    if name.endswith(".txt"):
        told = next(rows, (1, [""]))[1][0]
        stated = int(told) if re.fullmatch(r"\d{1,9}", told, re.ASCII) else -1
    head = next(rows, (1, []))[1]
    names = head[1:] if name.endswith(".csv") else head
    if attribute not in names:
        raise UserError(f"{name} has no attribute '{printable(attribute)}'; {_near(attribute, names)}")
    table = _column(name, rows, 1 + len(names), 1 + names.index(attribute), SIGNS)
    if stated not in (None, table.num_rows):
        said = f"says {stated}" if stated >= 0 else "says no number of images"
        raise UserError(f"{name} {said} in its first line and has {table.num_rows} rows; copy the official file anew.")
    return table


def _near(attribute: str, names: Sequence[str]) -> str:
    lower = {name.lower(): printable(name) for name in names}
    near = [lower[key] for key in difflib.get_close_matches(attribute.lower(), lower, 3)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"expected one of {', '.join(map(printable, names[:50])) or 'those of the official file'}."


def _rows(tree: Tree, stem: str) -> tuple[str, Iterator[tuple[int, list[str]]]]:
    """A table's name, and of each line that is not empty its number and its cells."""
    names = [f"{folder}/{stem}{ending}".lstrip("/") for folder in TABLE_FOLDERS for ending in (".txt", ".csv")]
    name = next((name for name in names if tree.has(name)), None)
    if name is None:
        raise UserError(f"{tree.where} has neither {stem}.txt nor {stem}.csv; copy CelebA's own table there.")
    try:
        content = tree.read(name)
    except (BadImage, OSError) as error:
        raise UserError(f"{printable(tree.called(name))} cannot be read ({error}); copy it anew.") from None
    if len(content) > MAX_TABLE:
        raise UserError(f"{tree.called(name)} has {len(content)} bytes; expected at most {MAX_TABLE}, copy it anew.")
    separator = "," if name.endswith(".csv") else None
    lines = enumerate(io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", "replace"), 1)
    cells = ((number, [cell.strip() for cell in line.split(separator)]) for number, line in lines if line.strip())
    return name.rpartition("/")[2], cells


def _column(
    table: str, rows: Iterable[tuple[int, list[str]]], width: int, column: int, meaning: Mapping[str, int]
) -> Table:
    values: dict[str, int | None] = {}
    problems, count = [], 0
    for number, cells in rows:
        count += 1
        name = cells[0]
        value = meaning.get(cells[column]) if len(cells) == width else None
        if value is None:
            told = f"got '{' '.join(cells)[:80]}'; expected {width} cells, the value one of {', '.join(meaning)}"
            problems.append(Problem(f"{table}, line {number}", told, "copy the table anew"))
        elif name in values:
            same = values[name] == value
            told = f"it names {name} again{'' if same else ', and differently'}"
            problems.append(Problem(f"{table}, line {number}", told, "remove the wrong row", skippable=same))
            value = value if same else None
        values[name] = value
        if len(problems) > MAX_BAD_ROWS:
            raise UserError(f"{table} has more than {MAX_BAD_ROWS} wrong rows, of which the last is: {problems[-1]}")
    return Table(table, values, problems, count)
