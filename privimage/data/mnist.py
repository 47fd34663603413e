"""MNIST, Fashion-MNIST, KMNIST and EMNIST, from their original IDX files.

The files of EMNIST store each image with rows and columns exchanged: they were written by a program that counts down
the columns first, so that, read as MNIST's are, a letter lies on its side and is mirrored. Exchanging rows and columns
is its own inverse; the reader does it once more, and the letters stand upright, as MNIST's digits do.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from privimage.data import classes, idx
from privimage.data.files import listed
from privimage.data.forward import Forward
from privimage.data.messages import shown
from privimage.data.record import Collection, Record, Split
from privimage.errors import UserError
from privimage.settings import Source

DIGITS, CAPITALS = tuple(string.digits), tuple(string.ascii_uppercase)
MERGED = (*DIGITS, *CAPITALS, *"abdefghnqrt")  # small letters that look like their capitals are counted with these
CLASSES = {
    "mnist": DIGITS,
    "fashion-mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}  # fmt: skip
PARTS = {
    "letters": CAPITALS,
    "balanced": MERGED,
    "digits": DIGITS,
    "mnist": DIGITS,
    "byclass": (*DIGITS, *CAPITALS, *string.ascii_lowercase),
    "bymerge": MERGED,
}
FIRST_LABEL = {"letters": 1}  # all others count from 0
FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "emnist": "EMNIST"}  # torchvision's


@dataclass(frozen=True)
class Half:
    """The training images or the test images, and their labels counted from 0, int64 [N]."""

    images: idx.Images
    labels: np.ndarray
    split: Split


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """The images of ``source.path`` (or ``data/<source>``), training images first.

    Where the files of the test images are absent, each image's own content decides the split.

    Raises:
        UserError: if a file is missing or damaged, labels and images do not fit together, or the classes are not the
            declared ones.
    """
    root = Path(source.path or f"data/{source.source}")
    if not root.is_dir():
        raise UserError(
            f"{shown(root)} is not a folder; `path` must name the one with the IDX files of {source.source}."
        )
    folder = _folder(root, source)
    names = _names(source, folder)
    ordered = classes.in_declared_order(names, source, class_names, shown(folder))
    first = FIRST_LABEL.get(source.variant, 0) if source.source == "emnist" else 0
    halves = [_half(*pair, source, len(names), first) for pair in _pairs(folder, source)]
    order = [ordered.index(name) for name in names]  # published number -> label
    form = f"IDX files ({source.source}{f', {source.variant}' if source.source == 'emnist' else ''})"
    return Collection(form, ordered, partial(_items, halves, order, source.source == "emnist"))


def _items(halves: Sequence[Half], order: Sequence[int], transposed: bool) -> Iterator[Record]:
    for half in halves:
        rows, name = half.images.rows(), half.images.path.name
        for index, label in enumerate(half.labels):
            load = partial(_pixels, half.images, rows, index, transposed)
            yield Record(f"{name}, image {index}", order[label], half.split, load)


def _pixels(images: idx.Images, rows: Forward, index: int, transposed: bool) -> np.ndarray:
    pixels = images.image(rows, index)  # [H, W]
    return np.ascontiguousarray(pixels.T) if transposed else pixels


def _folder(root: Path, source: Source) -> Path:
    """The folder itself, or the one below it in which downloading programs leave the files."""
    own = FOLDERS[source.source]
    candidates = [root, root / own / "raw", root / "raw", root / own, root / "gzip"]
    for folder in candidates:
        if any("-ubyte" in entry.name for entry in _entries(folder)):
            return folder
    return root


def _entries(folder: Path) -> list[Path]:
    return listed(folder) if folder.is_dir() else []


def _names(source: Source, folder: Path) -> tuple[str, ...]:
    if source.source != "emnist":
        return CLASSES[source.source]
    present = [part for part in PARTS if any(e.name.startswith(f"emnist-{part}-") for e in _entries(folder))]
    if source.variant not in PARTS or source.variant not in present:
        got = (
            f"no variant {source.variant} of EMNIST"
            if source.variant
            else "several variants of EMNIST, and `variant` names none"
        )
        there = ", ".join(present) or "none at all, so copy the IDX files there"
        raise UserError(f"{shown(folder)} has {got}; expected `variant` to be one of those that are there: {there}.")
    return PARTS[source.variant]


def _pairs(folder: Path, source: Source) -> list[tuple[Path, Path, Split]]:
    """The files of images and of labels, for training and, where they are, for testing."""
    halves = [f"emnist-{source.variant}-{half}" for half in ("train", "test")]
    train, test = halves if source.source == "emnist" else ("train", "t10k")
    wanted = {half: (f"{half}-images-idx3-ubyte", f"{half}-labels-idx1-ubyte") for half in (train, test)}
    found = {half: [_file(folder, name) for name in names] for half, names in wanted.items()}
    if not any(found[test]):
        del wanted[test]
    missing = [name for half, names in wanted.items() for name, path in zip(names, found[half]) if path is None]
    if missing:
        raise UserError(
            f"{shown(folder)} lacks {' and '.join(missing)} (plain or with `.gz`); copy what is missing to the other "
            "files."
        )
    splits = ("train", "test") if test in wanted else (None,)
    return [(*found[half], split) for half, split in zip(wanted, splits)]


def _file(folder: Path, name: str) -> Path | None:
    stem = name.replace("-idx", ".idx")
    candidates = [folder / f"{spelling}{ending}" for spelling in (name, stem) for ending in ("", ".gz")]
    return next((path for path in candidates if path.is_file()), None)


def _half(images_path: Path, labels_path: Path, split: Split, source: Source, count: int, first: int) -> Half:
    images = idx.Images(images_path, source.max_pixels)
    labels = idx.labels(labels_path, images.count).astype(np.int64) - first
    outside = np.flatnonzero((labels < 0) | (labels >= count))
    if len(outside):
        raise UserError(
            f"{shown(labels_path)} has the label {labels[outside[0]] + first} at image {outside[0]}; expected {first} "
            f"to {first + count - 1}: is it the file of another set?"
        )
    return Half(images, labels, split)
