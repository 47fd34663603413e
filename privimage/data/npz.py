"""Arrays of images and labels: an .npz, an .npy or a folder of them; HDF5 files follow the same rules of names.

An array is found by its key: ``images`` and ``labels``, ``x`` and ``y``, or ``data`` and ``labels`` or ``targets``,
with the part before or behind it where there are parts (``x_train``, ``test_images``). Labels are whole numbers from 0
or names; without labels there is one class. ``class_names`` may name the numbers. Images are read row by row.
"""

from __future__ import annotations

import os
import re
import zipfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from privimage.data.classes import in_declared_order, of_numbers
from privimage.data.npy_rows import Rows
from privimage.data.record import BadImage, Collection, Content, Problem, Record, Split, printable
from privimage.errors import UserError
from privimage.settings import Source

PARTS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip
PAIRS = (("images", ("labels",)), ("x", ("y",)), ("X", ("y",)), ("data", ("labels", "targets")))
FORMS = ("{name}", "{part}_{name}", "{name}_{part}", "{part}/{name}")  # the last: of a group, or of a file's own name
PIXELS = ("uint8", "uint16", "bool", "float16", "float32", "float64")
MAX_IMAGES = 100_000_000
MAX_CLASSES = 100_000


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


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """The images of an .npz, an .npy, or a folder of such files.

    Raises:
        UserError: if the path is absent, its arrays are no images and labels, or the classes are not the declared ones.
    """
    path = path_of(source)
    if path.is_dir():
        form, entries = _folder(path)
    elif path.suffix.lower() == ".npy":
        form, entries = "npy file", {"images": _npy(path, path.stem)}
    else:
        form, entries = "npz file", _npz(path)
    return collection(form, printable(str(path)), entries, source, class_names)


def _folder(folder: Path) -> tuple[str, dict[str, Entry]]:
    npy, npz = (files_in(folder, (ending,)) for ending in (".npy", ".npz"))
    if bool(npy) == bool(npz):
        raise UserError(
            f"{printable(str(folder))} holds {len(npy)} .npy and {len(npz)} .npz files; expected files of one kind."
        )
    if npy:
        return "folder of npy files", {file.stem: _npy(file, file.name) for file in npy}
    return "folder of npz files", merged([(file.name, _npz(file)) for file in npz], printable(str(folder)))


def _npy(path: Path, name: str) -> Entry:
    return Entry(name, lambda: Rows(lambda: open(path, "rb"), printable(name), path.stat().st_size))


def _npz(path: Path) -> dict[str, Entry]:
    try:
        with zipfile.ZipFile(path) as file:
            members = [member for member in file.infolist() if member.filename.endswith(".npy")]
    except Exception as error:  # of a hostile archive, zipfile raises errors of many kinds
        raise UserError(
            f"{printable(str(path))} is no .npz file that can be read ({printable(str(error))[:200]}); copy it anew."
        ) from None
    keys = [member.filename.removesuffix(".npy") for member in members]
    if len(set(keys)) < len(keys):
        raise UserError(f"{printable(str(path))} holds two arrays of one name; expected each once, save it anew.")
    return {key: _member(path, key, member) for key, member in zip(keys, members)}


def _member(path: Path, key: str, member: zipfile.ZipInfo) -> Entry:
    def open_member() -> BinaryIO:
        return zipfile.ZipFile(path).open(member.filename)  # type: ignore[return-value]

    return Entry(key, lambda: Rows(open_member, printable(key), member.file_size))


# What HDF5 and parquet files share with these.


def path_of(source: Source) -> Path:
    """The folder or regular file that a source names.

    Raises:
        UserError: if there is none.
    """
    path = Path(source.path or "")
    if not source.path or not (os.path.isdir(path) or os.path.isfile(path)):  # pathlib raises for names too long
        told = f"{printable(str(path))} is not there" if source.path else f"`source: {source.source}` has no path"
        raise UserError(f"{told}; `path` must name a file or folder of images.")
    return path


def files_in(folder: Path, endings: Sequence[str]) -> list[Path]:
    """The visible files of a folder whose names end so, sorted.

    Raises:
        UserError: if the folder cannot be listed, or one of them is no regular file.
    """
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in endings and path.name[0] != ".")
    except OSError as error:
        raise UserError(
            f"{printable(str(folder))} cannot be listed ({error.strerror}); mend its permissions."
        ) from None
    for path in found:
        if not path.is_file():
            raise UserError(f"{printable(str(path))} is no regular file; remove it, or mend the link.")
    return found


def part_of(name: str) -> str | None:
    """``train``, ``val`` or ``test`` where a file's name says so, in a word of its own (``latest`` does not say test).

    Raises:
        UserError: if it says two of them.
    """
    parts = {PARTS[word] for word in re.split("[^a-z]+", name.lower()) if word in PARTS}
    if len(parts) > 1:
        raise UserError(f"{printable(name)} names the parts {sorted(parts)}; expected one, rename it.")
    return parts.pop() if parts else None


def splits(parts: Iterable[str | None], where: str) -> dict[str | None, Split]:
    """What each part is for: validation images are held out where there is no test part, else they join training.

    Raises:
        UserError: if something is held out of nothing, or some files name no part.
    """
    found = set(parts)
    if len(found) == 1:
        return dict.fromkeys(found)
    if None in found or "train" not in found:
        told = ", ".join(sorted(part or "files that name no part" for part in found))
        raise UserError(f"{where} holds {told}; expected a train part beside test or validation, or no parts at all.")
    held_out = "test" if "test" in found else "val"
    return {part: "test" if part == held_out else "train" for part in found}


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
    chosen = _choose(entries, where)
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


def _choose(keys: Iterable[str], where: str) -> list[tuple[str | None, str, str | None]]:
    """Part, key of the images and key of the labels: the first names that fit, those with labels before those without.

    Raises:
        UserError: if no names fit, or one part has labels and another has none.
    """
    known = set(keys)
    found = [choice for form in FORMS for pair in PAIRS if (choice := _matches(form, *pair, known))]
    labelled = [choice for choice in found if any(labels for _, _, labels in choice)]
    if not found:
        shown = printable(", ".join(sorted(known)[:20])) or "none"
        raise UserError(
            f"{where} holds the arrays {shown}; expected images and labels, x and y, or data and labels, with train_ "
            "and test_ before them (or _train and _test behind) where there are parts: rename them."
        )
    choice = (labelled or found)[0]
    bare = [images for _, images, labels in choice if not labels]
    if labelled and bare:
        raise UserError(f"{where} has no labels for {printable(bare[0])}; expected labels for every part or for none.")
    if len({part for part, _, _ in choice}) < len(choice):
        raise UserError(f"{where} spells one part in two ways; expected each part once, rename one array.")
    return choice


def _matches(
    form: str, images: str, labels: Sequence[str], known: set[str]
) -> list[tuple[str | None, str, str | None]]:
    """What of one pair of names there is, in each of its parts."""
    spellings = PARTS if "{part}" in form else {"": None}
    choice = []
    for spelling, part in spellings.items():
        named_so = [form.format(part=spelling, name=name) for name in labels]
        if (key := form.format(part=spelling, name=images)) in known:
            choice.append((part, key, next((name for name in named_so if name in known), None)))
    return choice


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
        return one_class(source, declared, where), [0]
    if len({group.in_words for group in groups}) > 1:
        raise UserError(f"{where} labels some images by names and others by numbers; expected one of the two.")
    if vocabulary:
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
    return numbered(1 + max(max(group.numbers) for group in groups), source, declared, where)


def numbered(
    count: int, source: Source, declared: Sequence[str] | None, where: str
) -> tuple[tuple[str, ...], list[int]]:
    """The names of ``count`` classes that are only numbered, and the label of each number.

    Raises:
        UserError: if there are none, absurdly many, or more than were declared.
    """
    if not 0 < count <= MAX_CLASSES:
        raise UserError(
            f"{where} has labels up to {count - 1}; expected whole numbers from 0 to at most {MAX_CLASSES - 1}: number "
            "the classes from 0."
        )
    return of_numbers(count, source, declared, where), list(range(count))


def one_class(source: Source, declared: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """The class of a source without labels.

    Raises:
        UserError: if more than one was declared.
    """
    if declared is not None and len(declared) != 1:
        raise UserError(f"{where} has no labels; expected some, since {len(declared)} classes are declared: add them.")
    return in_declared_order(declared or ["image"], source, declared, where)


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
