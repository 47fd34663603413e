"""Downsampled ImageNet (Chrabaszcz, Loshchilov and Hutter 2017) at 8, 16, 32 or 64 pixels, from its published batches.

The batches come as .npz or as pickles. Of an .npz one row at a time is in memory, so that is the lean form: a pickled
batch is read whole (0.4 GB at 32 pixels, 1.6 GB at 64), by `unpickle`, which runs nothing.
The labels 1 to 1000 follow the development kit of ILSVRC 2012 (1 is the kit fox), not the sorted WordNet numbers.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from privimage.data import batches, classes, imagenet_classes, unpickle
from privimage.data.files import listed
from privimage.data.messages import reason, shown
from privimage.data.npy_rows import Rows
from privimage.data.record import BadImage, Collection, Record, Split, printable
from privimage.errors import UserError
from privimage.settings import Source

TRAIN = tuple(f"train_data_batch_{number}" for number in range(1, 11))
VALIDATION = "val_data"
NAMES = "map_clsloc.txt"
MAX_PICKLE = 2_000_000_000  # bytes
MAX_NAMES = 1_000_000  # bytes


@dataclass(frozen=True)
class Batch:
    """One file of images and its part of the split."""

    path: Path
    split: Split


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """The ten training batches in their order, then the validation batch, which is held out for testing.

    They lie in ``source.path`` (or ``data/imagenet-downsampled``) or in the folders within it. The classes are named by
    ``map_clsloc.txt`` where it lies there too, which may then list fewer than 1000, else by the table of ImageNet's.

    Raises:
        UserError: if a batch is missing or damaged, images are of different sizes, or the classes are not the declared
            ones. Pickled batches are looked into only when their images are listed.
    """
    root = Path(source.path or f"data/{source.source}")
    if not root.is_dir():
        raise UserError(f"{shown(root)} is not a folder; `path` must name the one with {TRAIN[0]} to {TRAIN[-1]}.")
    found = _batches(root)
    names, ordered = _classes(root, source, class_names)
    order = [ordered.index(name) for name in names]  # published number - 1 -> label
    sides = {_npz_side(batch.path, len(names)) for batch in found if batch.path.suffix == ".npz"}
    if len(sides) > 1:
        raise UserError(
            f"{shown(root)} holds batches of images of {sorted(sides)} pixels; expected one size, separate them."
        )
    forms = {"npz" if batch.path.suffix == ".npz" else "pickled" for batch in found}
    form = f"Downsampled ImageNet ({' and '.join(sorted(forms))} batches)"
    return Collection(form, ordered, partial(_items, found, order))


def _items(found: Sequence[Batch], order: Sequence[int]) -> Iterator[Record]:
    side = None
    for batch in found:
        own, labels, load = (_from_npz if batch.path.suffix == ".npz" else _from_pickle)(batch.path, len(order))
        if side not in (None, own):
            raise UserError(f"{shown(batch.path)} holds images of {own} pixels, others of {side}; expected one size.")
        side = own
        for index, label in enumerate(labels):
            name = f"{batch.path.name}, image {index}"
            yield Record(name, order[label], batch.split, partial(_pixels, load, index, side))
        load = None  # before the next batch is read


def _pixels(load: Callable[[int], np.ndarray], index: int, side: int) -> np.ndarray:
    return batches.square_rgb(load(index), side)


def _from_npz(path: Path, num_classes: int) -> tuple[int, np.ndarray, Callable[[int], np.ndarray]]:
    """The side of the images, their labels from 0, and what reads the row of one."""
    images, numbers = _rows(path, "data"), _rows(path, "labels")
    side = batches.side(images.shape, images.dtype, images.name)
    if numbers.shape != images.shape[:1]:
        raise UserError(
            f"{numbers.name} has the shape {list(numbers.shape)} for {images.shape[0]} images; expected one label for "
            "each, fetch it anew."
        )
    try:
        found = numbers.whole()
    except BadImage as error:
        raise UserError(f"{numbers.name}: {error.what}; {error.fix}.") from error
    finally:
        numbers.close()
    return side, batches.labels(found, images.shape[0], 1, num_classes, numbers.name), images.row


def _from_pickle(path: Path, num_classes: int) -> tuple[int, np.ndarray, Callable[[int], np.ndarray]]:
    try:
        with path.open("rb") as file:
            batch = unpickle.load(file, shown(path), min(MAX_PICKLE, path.stat().st_size))
    except OSError as error:
        raise UserError(f"{shown(path)} cannot be read ({error.strerror or error}); copy it anew.") from error
    images = batches.images(batch, shown(path))
    labels = batches.labels(batch.get("labels"), len(images), 1, num_classes, shown(path))
    return batches.side(images.shape, images.dtype, shown(path)), labels, images.__getitem__


def _npz_side(path: Path, num_classes: int) -> int:
    return _from_npz(path, num_classes)[0]


def _rows(path: Path, key: str) -> Rows:
    name = f"{shown(path)}: {key}"
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(f"{key}.npy").file_size
    except KeyError:
        raise UserError(f"{shown(path)} has no array `{key}`; expected `data` and `labels`, fetch it anew.") from None
    except Exception as error:  # zipfile raises errors of many kinds; all mean a bad file
        raise UserError(f"{shown(path)} is no .npz file that can be read ({reason(error)}); fetch it anew.") from error
    return Rows(partial(_member, path, f"{key}.npy"), name, size)


def _member(path: Path, name: str) -> BinaryIO:
    with zipfile.ZipFile(path) as archive:
        return archive.open(name)  # it keeps the file open for itself


def _folders(root: Path) -> list[Path]:
    """The folder and those within it."""
    return [root, *filter(Path.is_dir, listed(root))]


def _batches(root: Path) -> list[Batch]:
    folders = _folders(root)
    found = {name: _file(folders, name) for name in (*TRAIN, VALIDATION)}
    missing = [name for name in TRAIN if found[name] is None]
    if missing:
        raise UserError(
            f"{shown(root)} lacks {', '.join(missing)} (as .npz, or pickled and without ending); expected all ten "
            "training batches, copy them there."
        )
    is_split = found[VALIDATION] is not None
    train = [Batch(found[name], "train" if is_split else None) for name in TRAIN]
    return train + ([Batch(found[VALIDATION], "test")] if is_split else [])


def _file(folders: Sequence[Path], name: str) -> Path | None:
    candidates = [folder / f"{name}{ending}" for ending in (".npz", "") for folder in folders]
    return next((path for path in candidates if path.is_file()), None)


def _classes(root: Path, source: Source, declared: Sequence[str] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names in the order of the published numbers, and in the order of the labels."""
    path = next((folder / NAMES for folder in _folders(root) if (folder / NAMES).is_file()), None)
    names = _mapped(path) if path else imagenet_classes.by_devkit_id()
    return names, classes.in_declared_order(names, source, declared, shown(path or root))


def _mapped(path: Path) -> tuple[str, ...]:
    """The names of the classes 1, 2, ... from lines like ``n02119789 1 kit_fox``; equal names end in the WordNet id."""
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_NAMES).decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{shown(path)} cannot be read ({error}); copy it anew.") from error
    found: dict[int, tuple[str, str]] = {}
    for number, line in enumerate(lines, 1):
        parts = re.fullmatch(r"(n\d{8}) (\d{1,4}) (\S.*)", line.strip())
        if not parts and line.strip() or parts and int(parts[2]) in found:
            raise UserError(
                f"{shown(path)}, line {number} is `{printable(line.strip()[:80])}`; expected one like `n02119789 1 "
                "kit_fox`, each number once."
            )
        if parts:
            found[int(parts[2])] = (parts[3].strip(), parts[1])
    if not found or sorted(found) != list(range(1, len(found) + 1)):
        raise UserError(f"{shown(path)} numbers {len(found)} classes; expected the numbers from 1 on without a gap.")
    times = Counter(name for name, _ in found.values())
    in_order = [found[number] for number in sorted(found)]
    return tuple(name if times[name] == 1 else f"{name} ({wnid})" for name, wnid in in_order)
