"""The classes of a source, held against those that were declared."""

from __future__ import annotations

import json
from collections.abc import Sequence

from privimage.data.record import printable
from privimage.errors import UserError
from privimage.settings import Source


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


def of_numbers(count: int, source: Source, declared: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """The names of classes that a source only numbers from 0: the declared ones, else the numbers themselves.

    Raises:
        UserError: if there are more classes than were declared, or another number than a public row says.
    """
    if declared is None:
        return in_declared_order([str(number) for number in range(count)], source, None, where)
    if count > len(declared):
        raise UserError(
            f"{where} numbers its classes up to {count - 1}; expected at most {len(declared) - 1}, since "
            f"{len(declared)} are declared."
        )
    return tuple(declared)


def _some(names: Sequence[str]) -> str:
    shown = [printable(name) for name in names[:20]]
    return f"{shown}{f' and {len(names) - 20} more' if len(names) > 20 else ''}"
