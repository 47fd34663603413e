"""What the labels of a table mean: names of classes, or their numbers from 0, but never some of both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from privimage.data.classes import MAX_CLASSES, check_case, in_declared_order, of_numbers
from privimage.data.record import printable
from privimage.errors import UserError
from privimage.settings import Source

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
WHOLE = re.compile(r"(\d{1,9})(\.0+)?", re.ASCII)  # 3.0 is how a column of numbers with a gap is often written


@dataclass(frozen=True)
class Meaning:
    """The classes, the label of each text that is one, and in words what a label must be."""

    class_names: tuple[str, ...]
    labels: Mapping[str, int]
    expected: str


def meaning_of(
    counts: Mapping[str, int],
    files: Callable[[set[str]], Iterable[str]],
    source: Source,
    declared: Sequence[str] | None,
    where: str,
) -> Meaning:
    """What the texts mean; ``counts`` says how many rows have each, ``files`` which files some of them label.

    They are the declared names if any of them is one; else numbers, unless more rows hold names.

    Raises:
        UserError: if no row has a label, or the classes are not the declared ones or not as many as they should be.
    """
    if declared is not None and any(text in counts for text in declared):
        labels = {name: label for label, name in enumerate(declared)}
        return Meaning(tuple(declared), labels, f"one of the {len(declared)} declared classes")
    numbers = {text: number for text in counts if (number := _number(text)) is not None}
    names = sorted(text for text in counts if text and not NUMBER.fullmatch(text))
    if not numbers and not names:
        raise UserError(
            f"{where} has no usable label, for instance {[printable(text) for text in list(counts)[:3]]}; expected "
            "names of classes, or whole numbers from 0."
        )
    if sum(counts[text] for text in numbers) >= sum(counts[text] for text in names):
        named = of_numbers(
            set(numbers.values()),
            lambda number: files({text for text, own in numbers.items() if own == number}),
            source, declared, where,
        )  # fmt: skip
        return Meaning(named, numbers, "a whole number from 0, as in most rows")
    check_case(names, declared, where)
    named = in_declared_order(names, source, declared, where)
    return Meaning(named, {name: label for label, name in enumerate(named)}, "a name and no number, as in most rows")


def _number(text: str) -> int | None:
    whole = WHOLE.fullmatch(text)
    return int(whole[1]) if whole and int(whole[1]) < MAX_CLASSES else None
