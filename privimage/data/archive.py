"""What zip and tar archives have in common: which names are trusted, where each file lies, and the tree they form."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from privimage.data.record import BadImage, Problem, printable
from privimage.data.tree import INSIDE, MAX_DEPTH, is_archive, is_hidden

MAX_NAME = 4096  # characters
MAX_RATIO = 1000  # unpacked over packed; images are packed already, so more is a bomb
REPACK = "pack the images anew, with names relative to their folder"
TWICE = ("the archive holds two files of this name", "keep one of them")
NO_FILE = ("no such file in the archive", "pack it anew")


def unsafe(raw: str, it: str = "a member") -> str | None:
    """Why a name cannot be trusted to lie inside the archive or folder, if so; ``it`` is what has the name."""
    parts = raw.split("/")
    if not raw or "\0" in raw:
        return f"{it} without a proper name"
    if raw.startswith("/"):
        return f"{it} with an absolute name"
    if re.match("[A-Za-z]:", raw):
        return f"{it} with a drive letter"
    if "\\" in raw:
        return f"{it} with a backslash in its name"
    if ".." in parts:
        return f"{it} whose name leads out of the archive (..)"
    if len(raw) > MAX_NAME or len(parts) > MAX_DEPTH:
        return f"{it} with a name of {len(raw)} characters in {len(parts) - 1} folders"
    return None


def tidy(raw: str) -> str:
    """A safe name without the parts that say nothing: ``./cat//1.png`` is ``cat/1.png``."""
    if "//" not in raw and "./" not in raw and not raw.endswith(("/", ".")):
        return raw
    return "/".join(part for part in raw.split("/") if part not in ("", "."))


def in_sight(name: str) -> bool:
    """Whether no part of the name is passed over."""
    return not any(map(is_hidden, name.split("/")))


class Index:
    """Where each file lies, by a hash of its name, and the folders: 16 bytes a file once it is closed."""

    def __init__(self) -> None:
        self._hashes, self._places = array("Q"), array("Q")
        self._folders: dict[str, list[str]] = {"": []}
        self._twice: frozenset[int] = frozenset()

    def add(self, name: str, place: int) -> None:
        """A file."""
        self._hashes.append(_hash(name))
        self._places.append(place)
        self.add_folder(name.rpartition("/")[0])

    def add_folder(self, name: str) -> None:
        """A folder and those above it."""
        if name not in self._folders:
            self._folders[name] = []
            above, _, last = name.rpartition("/")
            self.add_folder(above)
            self._folders[above].append(last)

    def close(self) -> Index:
        """To be called once, after the last file."""
        hashes = np.frombuffer(self._hashes, np.uint64) if self._hashes else np.empty(0, np.uint64)
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._places = np.frombuffer(self._places, np.uint64)[order] if len(order) else order
        same = self._hashes[1:] == self._hashes[:-1]
        self._twice = frozenset(self._hashes[1:][same].tolist())
        return self

    def find(self, name: str) -> int | None:
        """Where the file lies, if there is one."""
        wanted = np.uint64(_hash(name))
        at = int(np.searchsorted(self._hashes, wanted))
        return int(self._places[at]) if at < len(self._hashes) and self._hashes[at] == wanted else None

    def is_twice(self, name: str) -> bool:
        """Whether several files have this name."""
        return bool(self._twice) and _hash(name) in self._twice

    def folders(self, name: str) -> list[str]:
        """The sub-folders of a folder, sorted."""
        return sorted(self._folders.get(name, ()))


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


class Store(Protocol):
    """What an archive format gives."""

    where: str
    form: str
    title: str  # the archive's own name, for messages

    def index(self) -> Index:
        """Where everything lies."""

    def walk(self) -> Iterator[tuple[str | None, tuple[str, str] | None, str]]:
        """Of every member that is no folder: its tidy name if that is safe, its fault and fix if any, its raw name."""

    def read(self, name: str) -> bytes:
        """A file's content. Raises: BadImage, OSError."""


class ArchiveTree:
    """An archive, or one of its folders, as a `Tree`."""

    def __init__(self, store: Store, prefix: str = "") -> None:
        self._store, self._prefix = store, prefix
        self.form = store.form
        self.where = f"{store.where}: {printable(prefix.rstrip('/'))}" if prefix else store.where

    def files(self) -> Iterator[str | Problem]:
        """Every visible regular file, in the archive's order; members without a safe name are told in every folder."""
        index = self._store.index()
        for name, fault, raw in self._store.walk():
            if name is None:
                yield Problem(f"{self._store.title}: {raw}", *fault)
            elif in_sight(name) and name.startswith(self._prefix):
                known = fault or (INSIDE if is_archive(name) else None)
                if known is None and not index.is_twice(name):
                    yield name[len(self._prefix) :]
                else:
                    yield Problem(f"{self._store.title}: {name}", *(known or TWICE), skippable=known is not None)

    def folders(self, name: str = "") -> list[str]:
        """The visible sub-folders of a folder, sorted."""
        found = self._store.index().folders((self._prefix + name).strip("/"))
        return [folder for folder in found if not is_hidden(folder)]

    def has(self, name: str) -> bool:
        """Whether there is such a visible file."""
        return in_sight(name) and self._store.index().find(self._prefix + name) is not None

    def read(self, name: str) -> bytes:
        """A file's whole content."""
        if not self.has(name):
            raise BadImage(*NO_FILE)
        return self._store.read(self._prefix + name)

    def sub(self, name: str) -> ArchiveTree:
        """The same tree seen from one of its folders."""
        return ArchiveTree(self._store, f"{self._prefix}{name}/")

    def called(self, name: str) -> str:
        """What messages call a file."""
        return f"{self._store.title}: {self._prefix}{name}"
