"""What every reader gives: the classes of a source, and its images one by one, read only when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from privimage.errors import printable

Split = Literal["train", "test"] | None  # None: the image's own content decides
Content = bytes | np.ndarray  # an encoded image file, or pixels [H, W] or [H, W, C]


class Record(NamedTuple):
    """One image: where a person finds it, its class, its part, and what reads it.

    ``load`` may raise `BadImage`, or OSError.
    """

    name: str
    label: int
    split: Split
    load: Callable[[], Content]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: with which file or record, what, and how to mend it.

    ``skippable`` says that it concerns one record alone, so that leaving that record out changes no other.
    """

    name: str
    what: str
    fix: str
    skippable: bool = True

    def __str__(self) -> str:
        return f"{printable(self.name)}: {printable(self.what)}; {printable(self.fix)}."


class Note(NamedTuple):
    """Something about the source that is no problem, but that a person should know: a sentence."""

    text: str


class BadImage(Exception):
    """One image cannot be used: what is wrong with it and how to mend it; ``skippable`` as of a `Problem`."""

    def __init__(self, what: str, fix: str = "mend or remove it", *, skippable: bool = True) -> None:
        super().__init__(what)
        self.what, self.fix, self.skippable = what, fix, skippable


@dataclass(frozen=True)
class Collection:
    """The images of one source.

    ``form`` says in words what the source was taken for; ``items`` starts the list from its beginning, in an order that
    is always the same, with the problems of single records where those records would be. Listing reads no pixels and
    holds few names at a time; notes may come with it.
    """

    form: str
    class_names: tuple[str, ...]
    items: Callable[[], Iterator[Record | Problem | Note]]
