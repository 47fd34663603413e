"""Images in a zip archive, read in place. Only stored and deflated members are read: their unpacking can be bounded."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from privimage.data.archive import MAX_RATIO, REPACK, ArchiveTree, Index, tidy, unsafe
from privimage.data.messages import reason, shown
from privimage.data.record import BadImage
from privimage.data.tree import MAX_FILE, ONLY_REGULAR, too_large
from privimage.errors import UserError

MAX_MEMBER_RATIO = 200  # unpacked over packed, of a member that is larger than the next line
UNSUSPICIOUS = 1_000_000  # bytes
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1
BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, RuntimeError, MemoryError
)  # fmt: skip


def open_zip(path: Path) -> ArchiveTree:
    """The archive as a tree.

    Raises:
        UserError: if it is no whole zip archive, is empty, or unpacks to more than a thousand times its size.
    """
    zip_store = Zip(path)
    members = zip_store.members()
    if not members:
        raise UserError(f"{zip_store.where} is an empty zip archive; expected images in it.")
    unpacked, packed = sum(member.file_size for member in members), path.stat().st_size
    if unpacked > MAX_RATIO * packed:
        raise UserError(
            f"{zip_store.where} unpacks to {unpacked} bytes, {unpacked // packed} times its size; expected at most "
            f"{MAX_RATIO} times, so it may be a bomb: unpack it yourself and name the folder."
        )
    return ArchiveTree(zip_store)


class Zip:
    """The members of a zip archive; each process opens it for itself."""

    form = "zip archive"

    def __init__(self, path: Path) -> None:
        self._path, self.where, self.title = path, shown(path), path.name
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        self._index: Index | None = None

    def _archive(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():  # a fork would share the place in the file
            try:
                self._opened = (os.getpid(), zipfile.ZipFile(self._path))
            except (OSError, *BROKEN) as error:
                raise UserError(
                    f"{self.where} is no whole zip archive ({reason(error)}); copy or pack it anew."
                ) from None
        return self._opened[1]

    def members(self) -> list[zipfile.ZipInfo]:
        """All that the archive's directory lists."""
        return self._archive().filelist

    def index(self) -> Index:
        """Where everything lies: positions in `members`."""
        if self._index is None:
            index = Index()
            for place, member in enumerate(self.members()):
                if not unsafe(member.orig_filename):
                    name = tidy(member.orig_filename)
                    index.add_folder(name) if _is_folder(member) else index.add(name, place)
            self._index = index.close()
        return self._index

    def walk(self) -> Iterator[tuple[str | None, tuple[str, str] | None, str]]:
        """The members that are no folders, in the order of the archive's directory."""
        for member in self.members():
            raw = member.orig_filename
            what = unsafe(raw)
            if what:
                yield None, (what, REPACK), raw
            elif not _is_folder(member):
                yield tidy(raw), _fault(member), raw

    def read(self, name: str) -> bytes:
        """A file's content, held against its length and checksum."""
        place = self.index().find(name)
        member = self.members()[place]
        fault = _fault(member)
        if fault:
            raise BadImage(*fault)
        try:
            with self._archive().open(member) as file:
                content = file.read(member.file_size)
        except (OSError, *BROKEN) as error:
            raise BadImage(f"cannot be unpacked ({reason(error)})", "copy or pack the archive anew") from None
        if len(content) != member.file_size:
            raise BadImage(
                f"unpacks to {len(content)} bytes; expected {member.file_size}", "copy or pack the archive anew"
            )
        return content


def _is_folder(member: zipfile.ZipInfo) -> bool:
    return member.orig_filename.endswith("/")


def _fault(member: zipfile.ZipInfo) -> tuple[str, str] | None:
    """What is wrong with a member that is no folder, and how to mend it."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "a symbolic link", "pack the file itself"
    if kind not in (0, stat.S_IFREG):
        return ONLY_REGULAR
    if member.flag_bits & ENCRYPTED:
        return "encrypted", "pack it without a password"
    if member.compress_type not in METHODS:
        method = zipfile.compressor_names.get(member.compress_type, member.compress_type)
        return f"packed by the method {method}; expected deflate", "pack it anew, by deflate or stored"
    if member.file_size > MAX_FILE:
        return too_large(member.file_size)
    if member.file_size > max(UNSUSPICIOUS, MAX_MEMBER_RATIO * member.compress_size):
        return (
            f"unpacks from {member.compress_size} to {member.file_size} bytes; expected at most {MAX_MEMBER_RATIO} "
            "times as many (a bomb?)",
            "remove it",
        )
    return None
