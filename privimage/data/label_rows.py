"""The rows of a label table, CSV or JSON lines: which file, which label, which part, each as it is written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from privimage.data.record import printable
from privimage.errors import UserError

FILE_COLUMNS = ("file_name", "filename", "file", "image", "path", "name", "id")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "y")
SPLIT_COLUMN = "split"
DELIMITERS = (",", ";", "\t")
MAX_LINE = 1_000_000  # bytes of a JSON line
MEND_ROW = "mend or remove the row"


@dataclass(frozen=True, slots=True)
class Row:
    """One row; ``label`` and ``split`` are None where the table has no such column."""

    line: int
    name: str
    label: str | None
    split: str | None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be taken for one, and why."""

    line: int
    what: str
    skippable: bool = True


@dataclass(frozen=True)
class Columns:
    """What the columns that count are called; the first known name wins."""

    file: str
    label: str | None
    split: str | None


def table_rows(content: bytes, file: str) -> tuple[Columns, Iterator[Row | BadRow]]:
    """The columns of a table, and its rows one by one. ``file`` is its name, for messages and by its ending.

    Raises:
        UserError: at once or while reading rows, if the table is empty, no text in UTF-8, or has no known column.
    """
    if b"\0" in content:
        raise UserError(f"{printable(file)} holds zero bytes; expected text in UTF-8, save it anew as such.")
    rows = _guarded(_objects(content, file) if file.lower().endswith(".jsonl") else _lines(content, file), file)
    header = next(rows, None)
    if header is None:
        raise UserError(f"{printable(file)} is empty; expected a header and a row for each image.")
    columns = _columns(header, file)
    return columns, _picked(rows, header, columns)


def _guarded(rows: Iterator[Any], file: str) -> Iterator[Any]:
    """The rows; errors of their text become sentences."""
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise UserError(f"{printable(file)} is not in UTF-8 ({error.reason}); save it anew as UTF-8.") from None
    except csv.Error as error:
        raise UserError(
            f"{printable(file)} is no proper CSV ({printable(str(error))}); look for a quote that is not closed."
        ) from None


def _lines(content: bytes, file: str) -> Iterator[Any]:
    """Of CSV: the names of the columns, then for each row its line and fields, or a `BadRow`."""
    first = content.lstrip().split(b"\n", 1)[0].decode("utf-8-sig")
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(
        io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline=""), delimiter=delimiter, strict=True
    )
    header = [name.strip().lower() for name in next((row for row in reader if any(map(str.strip, row))), ())]
    if not header:
        return
    yield header
    before = reader.line_num
    for fields in reader:
        line, height, before = before + 1, reader.line_num - before, reader.line_num
        if height > 1:
            yield BadRow(line, f"goes over {height} lines (a quote that is not closed?)", skippable=False)
        elif len(fields) == len(header):
            yield line, dict(zip(header, fields))
        elif fields:  # an empty line is none
            yield BadRow(line, f"has {len(fields)} columns; expected {len(header)}, as in the header")


def _objects(content: bytes, file: str) -> Iterator[Any]:
    """Of JSON lines: the keys of the first object, then for each its line and values, or a `BadRow`."""
    header = None
    for line, text in enumerate(io.BytesIO(content), 1):
        if not text.strip():
            continue
        item = _object(text.decode("utf-8-sig" if line == 1 else "utf-8"))
        if header is None:
            if item is None:
                raise UserError(f'{printable(file)}, line {line}, is no JSON object like {{"file_name": …}}; mend it.')
            header = list(item)
            yield [name.strip().lower() for name in header]
        if item is None:
            yield BadRow(line, 'is no JSON object like {"file_name": …}')
        else:
            yield line, {key.strip().lower(): _written(value) for key, value in item.items()}


def _object(text: str) -> dict[str, Any] | None:
    try:
        item = json.loads(text) if len(text) <= MAX_LINE else None
    except (ValueError, RecursionError):
        return None
    return item if isinstance(item, dict) and item else None


def _written(value: Any) -> str | None:
    """A JSON value as a CSV field; None if it would fit none."""
    if isinstance(value, str):
        return value
    if value is None or value != value:  # NaN is how tables say that there is nothing
        return ""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _columns(header: Sequence[str], file: str) -> Columns:
    found = [printable(name)[:40] for name in header[:20]]
    if not set(header) & set(FILE_COLUMNS):
        raise UserError(
            f"{printable(file)} has the columns {found}; expected one of {', '.join(FILE_COLUMNS)} that names the "
            f"file, and one of {', '.join(LABEL_COLUMNS)}: name its columns so, or rename the file if it holds no "
            "labels."
        )
    twice = {name for name in header if header.count(name) > 1} if len(header) < 1000 else set()
    if twice & {*FILE_COLUMNS, *LABEL_COLUMNS, SPLIT_COLUMN}:
        raise UserError(f"{printable(file)} has columns of the same name in {found}; keep one of each.")
    return Columns(_first(FILE_COLUMNS, header), _first(LABEL_COLUMNS, header), _first((SPLIT_COLUMN,), header))


def _first(known: Iterable[str], header: Sequence[str]) -> str | None:
    return next((name for name in known if name in header), None)


def _picked(rows: Iterator[Any], header: Sequence[str], columns: Columns) -> Iterator[Row | BadRow]:
    """The values of the columns that count."""
    wanted = [name for name in (columns.file, columns.label, columns.split) if name]
    for item in rows:
        if isinstance(item, BadRow):
            yield item
            continue
        line, values = item
        bad = [name for name in wanted if values.get(name) is None]
        if bad:
            yield BadRow(line, f"has no {bad[0]}, or one that is neither text nor number")
        else:
            name, label, split = (values[column] if column else None for column in _all(columns))
            yield Row(line, name, label, split)


def _all(columns: Columns) -> tuple[str, str | None, str | None]:
    return columns.file, columns.label, columns.split
