"""Labels from a table beside the images: CSV (also with ; or tabs) or JSON lines, one row a file.

Of its columns one names the file, relative to the table's folder; one may give the label, one the part, which else the
folders of all files may say (``train/1.png``). Without labels all images are of one class. The table is held in memory,
in about 200 bytes a row; the images are not.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from privimage.data.archive import tidy, unsafe
from privimage.data.classes import one_class
from privimage.data.label_rows import LABEL_COLUMNS, MEND_ROW, BadRow, Row, table_rows
from privimage.data.label_values import Meaning, meaning_of
from privimage.data.parts import PARTS, splits
from privimage.data.record import BadImage, Collection, Problem, Record, Split, printable
from privimage.data.tree import Tree
from privimage.errors import UserError
from privimage.settings import Source

LABEL_FILES = ("labels.csv", "metadata.csv", "metadata.jsonl", "labels.jsonl")
CODES = (None, "train", "test", "val")  # of parts, as the rows hold them
MAX_UNUSED = 10  # classes without a row that are told one by one
MAX_BAD_ROWS = 10_000  # beyond it, the table as a whole is not what it should be


def label_file(tree: Tree, folder: str = "") -> str | None:
    """The label file in a folder (empty, or ending with "/"), if there is one.

    Raises:
        UserError: if there are several.
    """
    found = [folder + name for name in LABEL_FILES if tree.has(folder + name)]
    if len(found) > 1:
        raise UserError(f"{tree.where} has the label files {' and '.join(map(printable, found))}; keep one of them.")
    return found[0] if found else None


def labelled(
    tree: Tree,
    folders: Mapping[str, Split],
    source: Source,
    declared: Sequence[str] | None,
    is_text: Callable[[str], bool],
) -> Collection:
    """The images that the label files of these folders name; ``is_text`` says which others may lie there unnamed.

    Raises:
        UserError: if a label file is missing, cannot be read as a table, or has other classes than were declared.
    """
    table = Table(tree)
    for folder, split in folders.items():
        table.fill(folder, split)
    where = _where(tree, *table.files)
    if not table.rows:
        told = str(table.problems[0]) if table.problems else "add a row for each image."
        raise UserError(f"{where} has no row that can be used; {told}")
    if table.unlabelled:
        missing = f"{where} has no label column (one of {', '.join(LABEL_COLUMNS)})"
        meaning = Meaning(one_class(source, declared, missing), {"": 0}, "")
    else:
        meaning = meaning_of(table.counts(), table.files_with, source, declared, where)
    parts = table.parts(where)
    form = f"{tree.form} with {' and '.join(map(printable, table.files))}"
    form += ", split by folders" if any(parts) and not table.stated else ""
    return Collection(form, meaning.class_names, partial(_items, table, meaning, parts, is_text))


@dataclass
class Table:
    """The rows of all label files of a tree, by file name: for each a label as written, and a part."""

    tree: Tree
    files: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)  # file name -> row
    texts: list[str] = field(default_factory=list)  # the labels as written, each once
    places: dict[str, int] = field(default_factory=dict)  # label as written -> its place in ``texts``
    codes: array = field(default_factory=lambda: array("i"))  # [rows] place of the label
    splits: array = field(default_factory=lambda: array("b"))  # [rows] place of the part in ``CODES``
    problems: list[Problem] = field(default_factory=list)
    unlabelled: bool = False
    stated: bool = False  # whether a column or the folder of the label file gives the parts

    def fill(self, folder: str, split: Split) -> None:
        """Add the rows of a folder's label file; the folder's part is that of all of them."""
        file = label_file(self.tree, folder)
        if file is None:
            raise UserError(
                f"{self.tree.where} has no label file in {printable(folder)} but in another part; expected one of "
                f"{', '.join(LABEL_FILES)} in each."
            )
        called, where = self.tree.called(file), _where(self.tree, file)
        columns, rows = table_rows(_content(self.tree, file), where)
        if split and columns.split:
            raise UserError(f"{where} has a column `split`, but its folder is a part; remove the column.")
        if self.files and self.unlabelled != (columns.label is None):
            both = _where(self.tree, self.files[0], file)
            raise UserError(f"{both} do not both have labels; expected a label column in both, or in none.")
        self.files.append(file)
        self.unlabelled, self.stated = columns.label is None, bool(split or columns.split)
        for row in rows:
            told = row if isinstance(row, BadRow) else self._add(row, folder, split)
            if told is not None:
                self._tell(Problem(f"{called}, line {row.line}", told.what, MEND_ROW, told.skippable))

    def _add(self, row: Row, folder: str, split: Split) -> BadRow | None:
        """Take a row in, or say what is wrong with it."""
        what = unsafe(row.name, "a file") or (None if _is_text(row.name) else "which is no text")
        if what:
            return BadRow(row.line, f"names {row.name[:100]!r}, {what}")
        name, label = folder + tidy(row.name), (row.label or "").strip()
        told = row.split if row.split is not None else split or name.partition("/")[0]
        part = PARTS.get(told.strip().lower())
        if row.split is not None and not part:
            return BadRow(row.line, f"has the split {row.split[:100]!r}; expected one of {', '.join(PARTS)}")
        if name in self.rows:
            first = self.text(self.rows[name])
            labels = "" if first == label else f", with the labels {first[:100]!r} and {label[:100]!r}"
            return BadRow(row.line, f"names {printable(name)[:100]} a second time{labels}", skippable=False)
        self.rows[name] = len(self.codes)
        self.codes.append(self.places.setdefault(label, len(self.texts)))
        if self.codes[-1] == len(self.texts):
            self.texts.append(label)
        self.splits.append(CODES.index(part))
        return None

    def _tell(self, problem: Problem) -> None:
        if len(self.problems) >= MAX_BAD_ROWS:
            raise UserError(
                f"{_where(self.tree, self.files[-1])} has more than {MAX_BAD_ROWS} bad rows; the first: "
                f"{self.problems[0]}"
            )
        self.problems.append(problem)

    def text(self, row: int) -> str:
        """A row's label as it was written."""
        return self.texts[self.codes[row]]

    def counts(self) -> dict[str, int]:
        """How many rows have each label."""
        counted = Counter(self.codes)
        return {text: counted[code] for code, text in enumerate(self.texts)}

    def files_with(self, texts: set[str]) -> Iterator[str]:
        """The files that have one of these labels."""
        codes = {self.places[text] for text in texts}
        return (self.tree.called(name) for name, row in self.rows.items() if self.codes[row] in codes)

    def parts(self, where: str) -> list[Split]:
        """The split that each of ``CODES`` stands for.

        Raises:
            UserError: if there are parts, but none to train on.
        """
        found = {CODES[code] for code in set(self.splits)}
        if not self.stated and (None in found or "train" not in found):
            return [None] * len(CODES)  # folders that are called like parts by chance
        if "train" not in found:
            raise UserError(f"{where} has no row of the split train; expected train and test.")
        split_of = splits(found, where)
        return [split_of.get(part) for part in CODES]


def _where(tree: Tree, *files: str) -> str:
    """The files with the path to them, for errors of the source as a whole."""
    return printable(tree.sub(files[0]).where if len(files) == 1 else f"{tree.where}: {' and '.join(files)}")


def _content(tree: Tree, file: str) -> bytes:
    try:
        return tree.read(file)
    except BadImage as error:
        raise UserError(f"{_where(tree, file)} cannot be read: {printable(error.what)}; {error.fix}.") from None
    except OSError as error:
        raise UserError(f"{_where(tree, file)} cannot be read ({error.strerror}); mend its permissions.") from None


def _items(
    table: Table, meaning: Meaning, parts: Sequence[Split], is_text: Callable[[str], bool]
) -> Iterator[Record | Problem]:
    """The bad rows, the files in the tree's order, and what the rows and the declared classes lack."""
    tree, seen = table.tree, bytearray(len(table.rows))
    labels = [meaning.labels.get(text) for text in table.texts]
    yield from table.problems
    for item in tree.files():
        if isinstance(item, Problem):
            yield item
        elif (row := table.rows.get(item)) is not None:
            seen[row] = 1
            label = labels[table.codes[row]]
            if label is None:
                yield _bad_label(tree.called(item), table.text(row), meaning.expected)
            else:
                yield Record(tree.called(item), label, parts[table.splits[row]], partial(tree.read, item))
        elif item not in table.files and not _lies_free(item, table.files, is_text):
            yield Problem(tree.called(item), "no row of the label file names it", "add a row or remove it")
    for name, row in table.rows.items():
        if not seen[row]:
            what = "a row of the label file names it, but there is no such file (names must match to the letter)"
            yield Problem(tree.called(name), what, "add the file, or mend or remove the row")
    used = {labels[code] for code in set(table.codes)}
    unused = [name for label, name in enumerate(meaning.class_names) if label not in used]
    for name in unused[:MAX_UNUSED]:
        yield Problem(tree.called(table.files[0]), f"no row has the class {name}", "add rows, or do not declare it")
    if (more := len(unused) - MAX_UNUSED) > 0:
        yield Problem(tree.called(table.files[0]), f"no row has one of {more} more classes", "add rows, as above")


def _lies_free(item: str, files: Sequence[str], is_text: Callable[[str], bool]) -> bool:
    """Whether it is a text beside a label file, or at the root."""
    return any(item.startswith(folder) and is_text(item.removeprefix(folder)) for folder in ("", *map(_folder, files)))


def _is_text(name: str) -> bool:
    """Whether a file may have the name: JSON can spell characters that are none."""
    try:
        return bool(name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return False


def _folder(file: str) -> str:
    return file[: file.rfind("/") + 1]


def _bad_label(name: str, text: str, expected: str) -> Problem:
    told = f"the label {printable(text)[:100]!r}" if text else "no label"
    return Problem(name, f"has {told} in the label file; expected {expected}", MEND_ROW)
