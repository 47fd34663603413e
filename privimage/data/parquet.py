"""Tables of encoded images in Parquet: one file or a folder of them, as Hugging Face's data sets are stored.

The image column holds image files, as binary or as a struct with a field ``bytes``; the label column whole numbers
(named in the schema's metadata, where it has the entry ``huggingface``) or texts. Labels are read by themselves; images
only from where one is asked for, through a buffer of fixed size: a mapped file would count as memory of the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from privimage.data.arrays import MAX_IMAGES
from privimage.data.classes import MAX_CLASSES, check_case, named, of_numbers, one_class
from privimage.data.files import files_in, path_of
from privimage.data.messages import reason, shown
from privimage.data.parquet_columns import features, image_column, is_text, label_column
from privimage.data.parts import part_of, splits
from privimage.data.record import BadImage, Collection, Problem, Record, Split, printable
from privimage.errors import UserError
from privimage.settings import Source

BUFFER_BYTES = 2**20
BATCH_BYTES = 2**24  # of images decoded at once, by their mean size
MAX_BATCH_ROWS = 64
LABEL_ROWS = 8192


@dataclass(frozen=True)
class Table:
    """One file: its columns and the names of its classes; ``leaf`` is where the image files' bytes are."""

    path: Path
    name: str
    image: pa.Field
    label: pa.Field | None
    class_names: tuple[str, ...] | None

    @property
    def leaf(self) -> str:
        return f"{self.image.name}.bytes" if pa.types.is_struct(self.image.type) else self.image.name

    def alike(self) -> tuple[Any, ...]:
        """What all files of a source have in common."""
        label = (self.label.name, self.label.type) if self.label else None
        return self.image.name, self.image.type, label, self.class_names


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """The images of a Parquet file, or of a folder of files that may be named by parts (``train-00000.parquet``).

    Raises:
        UserError: if the path is absent, a file is damaged, encrypted or unlike the others, it has no column of images,
            or the classes are not the declared ones.
    """
    root = path_of(source)
    where = shown(root)
    paths = _files(root, where) if root.is_dir() else [root]
    tables = [_table(path, str(path.relative_to(root)) if root.is_dir() else path.name) for path in paths]
    for table in tables[1:]:
        if table.alike() != tables[0].alike():
            raise UserError(
                f"{printable(table.name)} has other columns or classes than {printable(tables[0].name)}; expected the "
                "same image and label columns in all files: keep files of one kind in the folder."
            )
    parts = [part_of(path.name) if root.is_dir() else None for path in paths]
    split_of = splits(parts, where)
    files = [(table, split_of[part]) for table, part in zip(tables, parts)]
    names, label_of = _classes(tables, source, class_names, where)
    return Collection(_form(root, tables[0]), names, lambda: _items(files, label_of))


def _files(root: Path, where: str) -> list[Path]:
    found = [files_in(folder, (".parquet",)) if folder.is_dir() else [] for folder in (root, root / "data")]
    if not any(found):
        raise UserError(
            f"{where} holds no .parquet file, nor does a folder `data` in it; `path` must name where they lie."
        )
    if all(found):
        raise UserError(f"{where} holds .parquet files, and so does its folder `data`; `path` must name one of them.")
    return found[0] or found[1]


def _form(root: Path, table: Table) -> str:
    columns = table.image.name + (f", {table.label.name}" if table.label else "")
    return f"{'folder of Parquet files' if root.is_dir() else 'Parquet file'} ({printable(columns)})"


def _open(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, memory_map=False, buffer_size=BUFFER_BYTES, pre_buffer=False)


def _table(path: Path, name: str) -> Table:
    try:
        with _open(path) as file:
            schema = file.schema_arrow
            image = image_column(schema, name)
            named_by = features(schema)
            label = label_column(schema, named_by, image.name, name)
            table = Table(path, name, image, label, named_by.get(label.name) if label else None)
            if not 0 < file.metadata.num_rows <= MAX_IMAGES:
                raise UserError(
                    f"{printable(name)} has {file.metadata.num_rows} rows; expected 1 to {MAX_IMAGES} images."
                )
            return table
    except UserError:
        raise
    except Exception as error:  # of a damaged file, pyarrow raises errors of many kinds
        raise UserError(
            f"{shown(path)} is no Parquet file that can be read ({reason(error)}); copy it anew, unencrypted."
        ) from None


def _classes(
    tables: Sequence[Table], source: Source, declared: Sequence[str] | None, where: str
) -> tuple[tuple[str, ...], dict[Any, int] | None]:
    """The class names, and the label of each value of the label column; None where there is no such column."""
    first = tables[0]
    if first.label is None:
        return one_class(source, declared, f"{where} has no labels"), None
    if first.class_names is not None and not is_text(first.label.type):
        names, label_of = named(first.class_names, source, declared, where)
        return names, dict(enumerate(label_of))
    if is_text(first.label.type):
        found = sorted(_texts(tables, where))
        check_case(found, declared, where)
        names, label_of = named(found, source, declared, where)
        return names, dict(zip(found, label_of))
    found = {int(value) for table in tables for value in _values(table) if value is not None}
    names = of_numbers(found, partial(_rows_of, tables), source, declared, where)
    return names, {number: number for number in range(len(names))}


def _rows_of(tables: Sequence[Table], number: int) -> Iterator[str]:
    for table in tables:
        yield from (_row(table, row) for row, value in enumerate(_values(table)) if value == number)


def _row(table: Table, row: int) -> str:
    return f"{table.name}, row {row}"


def _texts(tables: Sequence[Table], where: str) -> set[str]:
    found: set[str] = set()
    for table in tables:
        for value in filter(lambda value: value is not None, _values(table)):
            found.add(value)
            if len(found) > MAX_CLASSES:
                raise UserError(f"{where} has more than {MAX_CLASSES} labels; expected names of classes.")
    if not found:
        raise UserError(f"{where} has only empty labels; expected a class for each image.")
    return found


def _values(table: Table) -> Iterator[Any]:
    """The labels of a file, one by one."""
    with _open(table.path) as file:
        for group in range(file.metadata.num_row_groups):
            yield from _labels(file, group, table)


def _labels(file: pq.ParquetFile, group: int, table: Table) -> Iterator[Any]:
    count = file.metadata.row_group(group).num_rows
    if table.label is None:
        yield from (None for _ in range(count))
        return
    got = 0
    try:
        for batch in file.iter_batches(LABEL_ROWS, row_groups=[group], columns=[table.label.name], use_threads=False):
            values = batch.column(0).to_pylist()
            got += len(values)
            yield from values
    except Exception as error:  # as in `_table`
        raise UserError(
            f"{printable(table.name)} is damaged or encrypted in its column {printable(table.label.name)} "
            f"({reason(error)}); copy it anew."
        ) from None
    if got != count:
        raise UserError(f"{printable(table.name)} has {got} labels in a group of {count} rows; copy it anew.")


def _items(files: Sequence[tuple[Table, Split]], label_of: dict[Any, int] | None) -> Iterator[Record | Problem]:
    for table, split in files:
        row = 0
        with _open(table.path) as file, closing(_Images(table)) as images:
            for group in range(file.metadata.num_row_groups):
                for place, value in enumerate(_labels(file, group, table)):
                    name, load = _row(table, row), partial(images.load, group, place)
                    row += 1
                    if label_of is None:
                        yield Record(name, 0, split, load)
                    elif value in label_of:
                        yield Record(name, label_of[value], split, load)
                    else:
                        yield _unknown(name, value, len(label_of))


def _unknown(name: str, value: Any, count: int) -> Problem:
    if value is None:
        return Problem(name, "no label", "label or remove it")
    return Problem(name, f"label {str(value)[:80]}; expected one of the {count} classes", "mend its label")


class _Images:
    """The images of one file, decoded onwards from where the last one stood; nothing is opened before the first."""

    def __init__(self, table: Table) -> None:
        self._table, self._file = table, None
        self._forget()

    def load(self, group: int, place: int) -> bytes:
        """The content of the image at this place of this row group.

        Raises:
            BadImage: if it is not inside the file, or the file is damaged there.
        """
        try:
            value = self._value(group, place)
        except Exception as error:  # as in `_table`
            self.close()
            raise BadImage(f"cannot be read ({reason(error)})", "copy the file anew") from None
        if isinstance(value, dict):
            value = value["bytes"]
        if value is None:
            raise BadImage("the image is not inside the file; at most a path", "embed it before writing, or remove it")
        return value

    def close(self) -> None:
        """Let go of the file; the next image opens it anew."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self._forget()

    def _forget(self) -> None:
        self._group, self._start, self._batch, self._batches = -1, 0, (), iter(())

    def _value(self, group: int, place: int) -> Any:
        if group != self._group or place < self._start:
            self._forget()
            self._file = self._file or _open(self._table.path)
            self._group, self._batches = group, self._file.iter_batches(
                _batch_rows(self._file.metadata.row_group(group)),
                row_groups=[group], columns=[self._table.leaf], use_threads=False,
            )  # fmt: skip
        while place >= self._start + len(self._batch):
            self._start += len(self._batch)
            self._batch = next(self._batches).column(0)
        return self._batch[place - self._start].as_py()


def _batch_rows(group: pq.RowGroupMetaData) -> int:
    """Rows that are decoded at once. Of a damaged file, facts about single columns would abort the process."""
    return max(1, min(MAX_BATCH_ROWS, BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)))
