"""The classes of a source, held against those that were declared."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence

from privimage.data.record import printable
from privimage.errors import UserError
from privimage.settings import Source

MAX_CLASSES = 100_000
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


def of_numbers(count: int, source: Source, declared: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """The names of classes that a source only numbers from 0: the declared ones, else the numbers themselves.

    Raises:
        UserError: if there are none, absurdly many, more than were declared, or another number than a public row says.
    """
    if not 0 < count <= MAX_CLASSES:
        raise UserError(
            f"{where} has labels up to {count - 1}; expected whole numbers from 0 to at most {MAX_CLASSES - 1}: number "
            "the classes from 0."
        )
    if declared is None:
        return in_declared_order([str(number) for number in range(count)], source, None, where)
    if count > len(declared):
        raise UserError(
            f"{where} numbers its classes up to {count - 1}; expected at most {len(declared) - 1}, since "
            f"{len(declared)} are declared."
        )
    return tuple(declared)


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
