"""Named arrays of images and labels, whatever file holds them: which are which, and what their labels mean.

Labels are whole numbers from 0 or names; without labels there is one class. ``class_names`` may name the numbers.
Images are read row by row.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from privimage.data.array_keys import choose
from privimage.data.classes import MAX_CLASSES, check_case, named, of_numbers, one_class
from privimage.data.parts import part_of, splits
from privimage.data.record import BadImage, Collection, Content, Problem, Record, Split, printable
from privimage.errors import UserError
from privimage.settings import Source

PIXELS = ("uint8", "uint16", "bool", "float16", "float32", "float64")
MAX_IMAGES = 100_000_000
STRETCH = 2**20  # labels that are looked at together


class Array(Protocol):
    """Rows of one array, read one by one, forward at little cost; ``row`` may raise `BadImage`."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def row(self, index: int) -> Content: ...


@dataclass(frozen=True)
class Entry:
    """An array that has not been opened, and what a person calls it."""

    name: str
    open: Callable[[], Array]


@dataclass(frozen=True)
class Group:
    """The images of one part; ``numbers`` holds a number for each image, None where nothing labels them."""

    entry: Entry
    split: Split
    num_images: int
    channels_first: bool
    numbers: Sequence[int] | None
    in_words: bool = False  # the numbers stand for names of classes


def merged(files: Sequence[tuple[str, Mapping[str, Entry]]], where: str) -> dict[str, Entry]:
    """The arrays of several files, under keys that begin with the part which the file's name says.

    Raises:
        UserError: if two files hold the same array of the same part, or only some files name a part.
    """
    entries: dict[str, Entry] = {}
    parts = [part_of(file) for file, _ in files]
    splits(parts, where)
    for part, (file, arrays) in zip(parts, files):
        for key, entry in arrays.items():
            key = f"{part}/{key}" if part else key
            if key in entries:
                raise UserError(
                    f"{printable(file)} and another file both hold {printable(key)}; expected it once: join the files, "
                    "or name one of them train and the other test."
                )
            entries[key] = Entry(f"{file}: {entry.name}", entry.open)
    return entries


def collection(
    form: str,
    where: str,
    entries: Mapping[str, Entry],
    source: Source,
    declared: Sequence[str] | None,
    number_names: Sequence[str] | None = None,
) -> Collection:
    """The collection that named arrays hold; ``number_names`` names the labels' numbers where a file says so elsewhere.

    Raises:
        UserError: if the arrays are not images and their labels, or the classes are not the declared ones.
    """
    chosen = choose(entries, where)
    split_of = splits([part for part, _, _ in chosen], where)
    vocabulary: dict[str, int] = {}
    groups = [
        _group(entries[images], entries[labels] if labels else None, split_of[part], vocabulary, source)
        for part, images, labels in chosen
    ]
    told_names = [_names(entry) for key, entry in entries.items() if key.rpartition("/")[2] == "class_names"]
    told_names += [list(number_names)] if number_names is not None else []
    if any(names != told_names[0] for names in told_names):
        raise UserError(f"{where} holds different lists of class names; expected one, remove the others.")
    number_names = told_names[0] if told_names else None
    names, label_of = _classes(groups, vocabulary, number_names, source, declared, where)
    told = "; ".join(", ".join(filter(None, keys)) for _, *keys in chosen)
    return Collection(f"{form} ({printable(told)})", names, lambda: _items(groups, label_of))


def _group(images: Entry, labels: Entry | None, split: Split, vocabulary: dict[str, int], source: Source) -> Group:
    name, rows = printable(images.name), images.open()
    channels_first, count = _check_images(rows, name, source), rows.shape[0]
    if labels is None:
        return Group(images, split, count, channels_first, None)
    numbers, in_words = _numbers(labels, count, name, vocabulary)
    return Group(images, split, count, channels_first, numbers, in_words)


def _check_images(array: Array, name: str, source: Source) -> bool:
    """Whether the channels come first.

    Raises:
        UserError: if these are no images.
    """
    shape = array.shape
    if 0 in shape:
        raise UserError(f"{name} is empty (shape {list(shape)}); expected at least one image.")
    if shape[0] > MAX_IMAGES:
        raise UserError(f"{name} has {shape[0]} rows; expected at most {MAX_IMAGES} images.")
    if getattr(array, "encoded", False):
        return False
    if array.dtype.name not in PIXELS:
        raise UserError(f"{name} has pixels of type {array.dtype}; expected {', '.join(PIXELS)}: convert them.")
    last = len(shape) == 4 and shape[3] in (1, 3, 4)
    first = len(shape) == 4 and not last and shape[1] in (1, 3)
    grey = len(shape) == 3 and (shape[2] not in (1, 3, 4) or shape[1] == shape[2])  # else one picture [H, W, C]
    if not (last or first or grey):
        raise UserError(
            f"{name} has the shape {list(shape)}; expected [N, H, W], [N, H, W, 1, 3 or 4] or [N, 1 or 3, H, W]."
        )
    height, width = shape[2:] if first else shape[1:3]
    if height * width > source.max_pixels:
        raise UserError(
            f"{name} holds images of {width} x {height} pixels; expected at most {source.max_pixels} pixels: make them "
            "smaller, or raise `preprocess.max_pixels`."
        )
    return first


def _numbers(entry: Entry, count: int, images: str, vocabulary: dict[str, int]) -> tuple[array, bool]:
    """A number for each image, and whether it stands for a name: names are numbered in ``vocabulary`` as they come.

    Raises:
        UserError: if there are not as many labels as images, or they are no labels.
    """
    rows, name = entry.open(), printable(entry.name)
    if rows.shape[0] != count:
        raise UserError(f"{name} has {rows.shape[0]} labels; expected {count}, one for each of {images}.")
    if rows.dtype.kind not in "biufSU" or any(length != 1 for length in rows.shape[1:]):
        raise UserError(
            f"{name} is {rows.dtype} of shape {list(rows.shape)}; expected one whole number or name an image ([N] or "
            "[N, 1])."
        )
    numbers = array("q")
    for index in range(count):
        try:
            value = rows.row(index).reshape(-1)[0]
            numbers.append(_number(value, vocabulary))
        except (BadImage, ValueError, OverflowError) as error:
            raise UserError(f"{name}[{index}] is no label ({printable(str(error))}); mend it.") from None
    return numbers, rows.dtype.kind in "SU"


def _number(value: object, vocabulary: dict[str, int]) -> int:
    if isinstance(value, (str, bytes)):
        number = vocabulary.setdefault(_text(value), len(vocabulary))
        if number >= MAX_CLASSES:
            raise ValueError(f"more than {MAX_CLASSES} class names")
        return number
    if value != (number := int(value)):  # of NaN and infinity, int raises
        raise ValueError(f"{value} is no whole number")
    return min(max(number, -(2**62)), 2**62)  # 8 bytes hold it, and no class has such a number


def _text(value: str | bytes) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _names(entry: Entry) -> list[str]:
    rows, name = entry.open(), printable(entry.name)
    if len(rows.shape) != 1 or rows.dtype.kind not in "SU" or rows.shape[0] > MAX_CLASSES:
        raise UserError(f"{name} is {rows.dtype} of shape {list(rows.shape)}; expected the names of the classes, [K].")
    try:
        return [_text(np.asarray(rows.row(index)).item()) for index in range(rows.shape[0])]
    except (BadImage, ValueError) as error:
        raise UserError(f"{name} cannot be read ({printable(str(error))}); write it anew, as UTF-8 text.") from None


def _classes(
    groups: Sequence[Group],
    vocabulary: Mapping[str, int],
    number_names: Sequence[str] | None,
    source: Source,
    declared: Sequence[str] | None,
    where: str,
) -> tuple[tuple[str, ...], list[int]]:
    """The class names, and the label of each number that the groups hold."""
    if groups[0].numbers is None:
        return one_class(source, declared, f"{where} has no labels"), [0]
    if len({group.in_words for group in groups}) > 1:
        raise UserError(f"{where} labels some images by names and others by numbers; expected one of the two.")
    if vocabulary:
        check_case(list(vocabulary), declared or number_names, where)
        in_order = list(number_names or sorted(vocabulary))
        if strangers := sorted(set(vocabulary) - set(in_order)):
            raise UserError(
                f"{where} has the label {printable(strangers[0])}, which its `class_names` lack; add it there."
            )
        names, label_of = named(in_order, source, declared, where)
        of_name = dict(zip(in_order, label_of))
        return names, [of_name[name] for name in vocabulary]
    if number_names is not None:
        return named(number_names, source, declared, where)
    names = of_numbers(_distinct(groups), partial(_rows_of, groups), source, declared, where)
    return names, list(range(len(names)))


def _distinct(groups: Sequence[Group]) -> set[int]:
    """The numbers that label images, or so many of them that they are too many."""
    found: set[int] = set()
    for group in groups:
        for start in range(0, group.num_images, STRETCH):
            found.update(group.numbers[start : start + STRETCH])
            if len(found) > 2 * MAX_CLASSES:
                return found | {max(max(group.numbers) for group in groups)}
    return found


def _rows_of(groups: Sequence[Group], number: int) -> Iterator[str]:
    for group in groups:
        yield from (f"{group.entry.name}[{index}]" for index, own in enumerate(group.numbers) if own == number)


def _items(groups: Sequence[Group], label_of: Sequence[int]) -> Iterator[Record | Problem]:
    for group in groups:
        rows = group.entry.open()
        for index in range(group.num_images):
            name = f"{group.entry.name}[{index}]"
            number = 0 if group.numbers is None else group.numbers[index]
            if 0 <= number < len(label_of):
                yield Record(name, label_of[number], group.split, partial(_pixels, rows, index, group.channels_first))
            else:
                yield Problem(name, f"label {number}; expected 0 to {len(label_of) - 1}", "mend its label")


def _pixels(rows: Array, index: int, channels_first: bool) -> Content:
    content = rows.row(index)
    if isinstance(content, bytes):
        return content
    if channels_first:
        content = np.moveaxis(content, 0, -1)  # [C, H, W] -> [H, W, C]
    return content.astype(content.dtype.newbyteorder("="), copy=False)
