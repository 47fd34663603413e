"""Which reader a path is for: by names in a folder, by the ending and the first bytes of a file.

Nothing is guessed where two readings are possible: the error says to name the reader with ``source``. The form of the
collection says what the path was taken for.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from privimage.data import reader
from privimage.data.files import unlisted
from privimage.data.messages import shown
from privimage.data.record import Collection, printable
from privimage.data.tree import READABLE, is_archive, is_hidden, leads_to_folder
from privimage.errors import UserError
from privimage.settings import Source

ENDINGS = {  # ending -> what the first bytes say, source
    ".npz": ("zip", "npz"),
    ".npy": ("npy", "npz"),
    ".h5": ("HDF5", "hdf5"),
    ".hdf5": ("HDF5", "hdf5"),
    ".parquet": ("Parquet", "parquet"),
    **{ending: (content, "folder") for ending, content in READABLE.items()},
}
TABLES = {ending: name for ending, (_, name) in ENDINGS.items() if name != "folder"}
PUBLISHED = {
    "cifar-10-python.tar.gz": "cifar10",
    "cifar-100-python.tar.gz": "cifar100",
    "ilsvrc2012_img_train.tar": "imagenet",
}
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
MAGIC = (
    (b"PK\x03\x04", "zip"), (b"PK\x05\x06", "zip"), (b"\x93NUMPY", "npy"), (HDF5_MAGIC, "HDF5"),
    (b"PAR1", "Parquet"), (b"PARE", "Parquet"), (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"),
    (b"\x89PNG", "image"), (b"\xff\xd8\xff", "image"), (b"GIF8", "image"), (b"BM", "image"), (b"II*\x00", "image"),
    (b"MM\x00*", "image"), (b"RIFF", "image"), (b"\x00\x00\x00\x0cjP", "image"),
)  # fmt: skip
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".jp2", ".tga",
          ".avif")  # fmt: skip
USER_BLOCKS = [512 * 2**power for power in range(12)]  # an HDF5 file may begin behind somebody's own header
IDX = re.compile(r"idx\d-ubyte")
IDX_FOLDERS = ("", "raw", "gzip", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw", "EMNIST/raw")
WNID = re.compile(r"n\d{8}")
CAMELYON = {"patient", "node", "x_coord"}
HINT = "name the reader with `source`, or move the others away"


@dataclass(frozen=True)
class Look:
    """What lies in a folder: its folders, its files that are no images, and whether there are images."""

    path: Path
    folders: frozenset[str]
    files: frozenset[str]
    has_images: bool

    @property
    def where(self) -> str:
        return shown(self.path)


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """What the fitting reader reads; the form says so where the names alone did not tell.

    Raises:
        UserError: if there is nothing, nothing known, or more than one reader fits; and whatever that reader raises.
    """
    if not source.path:
        raise UserError("`source: auto` has no path; `path` must name a folder or file of images.")
    path = Path(source.path)
    name, doubt = _of_folder(look_at(path)) if os.path.isdir(path) else (_of_file(path), "")
    found = reader(name)(replace(source, source=name), class_names)
    return replace(found, form=found.form + doubt)


def _of_file(path: Path) -> str:
    where = shown(path)
    content = _content(path, where)
    name = path.name.lower()
    if IDX.search(name):
        raise UserError(f"{where} is one IDX file of several; `path` must name the folder that holds them all.")
    ending = next((ending for ending in ENDINGS if name.endswith(ending)), None)
    if ending is None:
        raise UserError(f"{where} is {_told(content)}; expected a folder of images, or a file {', '.join(ENDINGS)}.")
    wanted, source = ENDINGS[ending]
    if content != wanted:
        raise UserError(
            f"{where} is called {ending} but is {_told(content)}; expected {wanted} data, rename it as what it is or "
            "copy it anew."
        )
    return PUBLISHED.get(name, source)


def _content(path: Path, where: str) -> str:
    """What a file's bytes say it is."""
    if not os.path.isfile(path):
        raise UserError(f"{where} is not there, or is no file or folder; `path` must name the images.")
    try:
        with open(path, "rb") as file:
            head = file.read(512)
            known = next((content for magic, content in MAGIC if head.startswith(magic)), None)
            return known or (_behind_user_block(file) if len(head) == 512 else None) or _plain(head)
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror}); mend its permissions.") from None


def _behind_user_block(file: BinaryIO) -> str | None:
    for place in USER_BLOCKS:
        file.seek(place)
        if file.read(len(HDF5_MAGIC)) == HDF5_MAGIC:
            return "HDF5"
    return None


def _plain(head: bytes) -> str:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        return "tar"
    except tarfile.TarError:
        pass
    if not head:
        return "empty"
    text = head.decode("utf-8", "replace").rstrip("\ufffd")  # the last character may be cut
    return "text" if text and all(c.isprintable() or c in "\t\r\n\f" for c in text.lstrip("\ufeff")) else "unknown"


def _told(content: str) -> str:
    special = {"image": "a single image", "text": "a text file", "empty": "empty", "unknown": "of an unknown form"}
    return special.get(content, f"{content} data")


def look_at(folder: Path) -> Look:
    """The names in a folder; of images only whether there are any, so that a million of them need no memory.

    Raises:
        UserError: if it cannot be listed.
    """
    folders, files, has_images = set(), set(), False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if leads_to_folder(entry):
                    folders.add(entry.name)
                elif entry.name.lower().endswith(IMAGES):
                    has_images = True
                else:
                    files.add(entry.name)
    except OSError as error:
        raise unlisted(folder, error) from None
    return Look(folder, frozenset(folders), frozenset(files), has_images)


def _of_folder(look: Look) -> tuple[str, str]:
    """The source, and what to add to the form."""
    if idx := _idx(look):
        return idx
    for rule in (_published, _table):
        if name := rule(look):
            return name, ""
    inner = look_at(look.path / "train").folders if "train" in look.folders else ()
    return ("imagenet" if any(map(WNID.fullmatch, (*look.folders, *inner))) else "folder"), ""


def _idx(look: Look) -> tuple[str, str] | None:
    """One of the MNIST family. Three of its sets have the same names of files: the folder's name tells them apart."""
    found = set()
    for within in IDX_FOLDERS:
        folder = look.path / within
        if within.partition("/")[0] in ("", *look.folders) and os.path.isdir(folder):
            names = (look if not within else look_at(folder)).files
            found |= {_idx_source(folder, name) for name in names if IDX.search(name)}
    if len({name for name, _ in found}) > 1:
        told = ", ".join(sorted(name for name, _ in found))
        raise UserError(f"{look.where} holds files of {told}; expected one set, {HINT}.")
    return found.pop() if found else None


def _idx_source(folder: Path, file: str) -> tuple[str, str]:
    if file.startswith("emnist-"):
        return "emnist", ""
    folder = folder.absolute()
    words = f"{folder.parent.name} {folder.name}".lower()
    for word, name in (("fashion", "fashion-mnist"), ("kmnist", "kmnist"), ("mnist", "mnist")):
        if word in words:
            return name, ""
    return "mnist", ", taken for MNIST: the files of Fashion-MNIST and KMNIST have the same names"


def _published(look: Look) -> str | None:
    """A published set that is known by the names of its files."""
    files, folders = look.files, look.folders
    signs = {
        "cifar10": "data_batch_1" in files or "cifar-10-batches-py" in folders or "cifar-10-python.tar.gz" in files,
        "cifar100": {"train", "meta"} <= files or "cifar-100-python" in folders or "cifar-100-python.tar.gz" in files,
        "imagenet-downsampled": any(re.fullmatch(r"train_data_batch_1(\.npz)?", name) for name in files),
        "celeba": "img_align_celeba" in folders or "img_align_celeba.zip" in files,
        "camelyon17": _is_camelyon(look.path) or _is_camelyon(look.path / "camelyon17_v1.0"),
        "imagenet": "ILSVRC2012_img_train.tar" in files
        or any(os.path.isdir(look.path / deep / "Data/CLS-LOC") for deep in ("", "ILSVRC")),
    }
    found = [name for name, sign in signs.items() if sign]
    if len(found) > 1:
        raise UserError(f"{look.where} holds files of {', '.join(found)}; expected one set, {HINT}.")
    return found[0] if found else None


def _is_camelyon(folder: Path) -> bool:
    if not os.path.isfile(folder / "metadata.csv"):  # pathlib raises where the folder may not be entered
        return False
    try:
        with open(folder / "metadata.csv", "rb") as file:
            header = file.readline(4096).decode("utf-8", "replace")
    except OSError:
        return False
    return {word.strip(' "\r\n') for word in header.split(",")} >= CAMELYON


def _table(look: Look) -> str | None:
    """Array files or tables, if nothing else lies beside them that could be images."""
    kinds = _kinds(look)
    beside = look.folders
    if not kinds and "data" in look.folders and not look.has_images:
        kinds = _kinds(look_at(look.path / "data")) & {"parquet"}
        beside = beside - {"data"}
    if not kinds:
        return None
    others = sorted(beside) + sorted(name for name in look.files if is_archive(name))
    if len(kinds) > 1 or others or look.has_images:
        told = [f"files for {kind}" for kind in sorted(kinds)] + ["images"] * look.has_images
        told += [printable(other) for other in others[:3]]
        raise UserError(f"{look.where} holds {' and '.join(told)}; expected one kind, {HINT}.")
    return kinds.pop()


def _kinds(look: Look) -> set[str]:
    return {name for file in look.files for ending, name in TABLES.items() if file.lower().endswith(ending)}
