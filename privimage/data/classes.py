"""The classes of a source, held against those that were declared."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence, Set
from itertools import islice

from privimage.data.record import printable
from privimage.errors import UserError
from privimage.settings import Source

MAX_CLASSES = 100_000
NAMED_ROWS = 3  # that an error names
FLAT_NAME = "image"  # the class of images without labels


def in_declared_order(
    found: Sequence[str], source: Source, declared: Sequence[str] | None, where: str
) -> tuple[str, ...]:
    """The classes that a source names, in the order in which a sensitive set declares them, else in the source's own.

    Raises:
        UserError: if they are not the declared ones, not as many as a public row says, or no names.
    """
    bad = [name for name in found if not name.strip() or name != printable(name)]
    if bad:
        raise UserError(
            f"{where} has a class called {json.dumps(printable(bad[0]))}; expected a name of printable characters, "
            "rename it."
        )
    if len({unicodedata.normalize("NFC", name).strip() for name in found}) < len(found):
        raise UserError(
            f"{where} has classes whose names differ in spaces at an end or in the spelling of accents alone, among "
            f"{_some(found)}; expected names that look different, merge or rename them."
        )
    if declared is not None:
        if sorted(declared) != sorted(found):
            raise UserError(
                f"{where} has the classes {_some(found)}; expected {_some(declared)}, as declared. If the source is "
                f"right, write `class_names: {json.dumps(list(found), ensure_ascii=False)}`."
            )
        return tuple(declared)
    if source.num_classes not in (None, len(found)):
        raise UserError(f"{where} has {len(found)} classes; expected {source.num_classes}, the row's `num_classes`.")
    return tuple(found)


def check_case(labels: Sequence[str], declared: Sequence[str] | None, where: str) -> None:
    """Two labels that differ in case alone are one class that was written in two ways, unless both are declared.

    Raises:
        UserError: if there are such.
    """
    seen: dict[str, str] = {}
    for label in sorted(labels):
        other = seen.setdefault(label.casefold(), label)
        if other != label and not {other, label} <= set(declared or ()):
            raise UserError(
                f"{where} has the labels {printable(other)} and {printable(label)}, which differ in case alone; "
                "expected one name a class, mend the labels."
            )


def named(
    found: Sequence[str], source: Source, declared: Sequence[str] | None, where: str
) -> tuple[tuple[str, ...], list[int]]:
    """The class names, and for each found one its label.

    Raises:
        UserError: if a name comes twice, or they are not the declared ones.
    """
    if len(set(found)) < len(found):
        raise UserError(f"{where} names a class twice; expected each class name once.")
    names = in_declared_order(found, source, declared, where)
    label_of = {name: label for label, name in enumerate(names)}
    return names, [label_of[name] for name in found]


def of_numbers(
    found: Set[int], rows: Callable[[int], Iterable[str]], source: Source, declared: Sequence[str] | None, where: str
) -> tuple[str, ...]:
    """The names of classes that a source only numbers from 0: the declared ones, else the numbers themselves.

    ``rows`` names the images that have a number: the error of one that is out of place says where it stands.

    Raises:
        UserError: if there are none, absurdly many, more than were declared, or another number than a public row says;
            or, where neither says how many there should be, if one of them is the label of no image.
    """
    highest = max(found, default=-1)
    if not 0 <= highest < MAX_CLASSES:
        raise UserError(
            f"{where} has labels up to {_placed(highest, rows)}; expected whole numbers from 0 to at most "
            f"{MAX_CLASSES - 1}: number the classes from 0."
        )
    if declared is not None:
        if highest >= len(declared):
            raise UserError(
                f"{where} numbers its classes up to {_placed(highest, rows)}; expected at most {len(declared) - 1}, "
                f"since {len(declared)} are declared."
            )
        return tuple(declared)
    if source.num_classes is not None and highest >= source.num_classes:
        raise UserError(
            f"{where} numbers its classes up to {_placed(highest, rows)}; expected at most {source.num_classes - 1}, "
            "by the row's `num_classes`."
        )
    gaps = [number for number in range(highest) if number not in found]
    if gaps and source.num_classes is None:
        told = f"{', '.join(map(str, gaps[:3]))}{f' and {len(gaps) - 3} more numbers' if len(gaps) > 3 else ''}"
        raise UserError(
            f"{where} has labels up to {_placed(highest, rows)}, but no image has {told}; expected every number from 0 "
            "to the largest: mend the labels, number the classes from 0 without gaps, or say how many there are "
            "(`class_names`, or a public row's `num_classes`)."
        )
    return in_declared_order([str(number) for number in range(highest + 1)], source, None, where)


def _placed(number: int, rows: Callable[[int], Iterable[str]]) -> str:
    """A number and the first images that have it."""
    names = [printable(name)[:100] for name in islice(rows(number), NAMED_ROWS + 1)]
    more = " and others" if len(names) > NAMED_ROWS else ""
    return f"{number} ({', '.join(names[:NAMED_ROWS])}{more})" if names else str(number)


def one_class(source: Source, declared: Sequence[str] | None, why: str) -> tuple[str, ...]:
    """The only class of images that come without labels; ``why`` says in an error that they do.

    Raises:
        UserError: if the row has several classes.
    """
    several = len(declared) if declared is not None else source.num_classes or 1
    if several != 1:
        raise UserError(f"{why}; expected {several} classes, so give each image its class or declare only one.")
    return tuple(declared or (FLAT_NAME,))


def _some(names: Sequence[str]) -> str:
    shown = [printable(name) for name in names[:20]]
    return f"{shown}{f' and {len(names) - 20} more' if len(names) > 20 else ''}"
