"""Images in a tar archive, plain or compressed, read in place.

A compressed archive can only be read forward: the file that was listed last is read from where the list stands, any
other one from the archive's start. Two passes over the headers are made: one to index them, one for each list.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from privimage.data.archive import MAX_RATIO, REPACK, ArchiveTree, Index, tidy, unsafe
from privimage.data.messages import reason, shown
from privimage.data.record import BadImage
from privimage.data.tar_headers import FILE, FOLDER, LINK, SPARSE, BadTar, Member, members
from privimage.data.tree import MAX_FILE, ONLY_REGULAR, too_large
from privimage.errors import UserError

UNSUSPICIOUS = 1_000_000_000  # bytes that any archive may unpack to
XZ_MEMORY = 200_000_000  # bytes; enough for what `xz -9` writes
BROKEN = (EOFError, zlib.error, lzma.LZMAError, OSError, ValueError, OverflowError, MemoryError)
FAULTS = {
    LINK: ("a link", "pack the file itself (tar --dereference --hard-dereference)"),
    SPARSE: ("a sparse file", "pack it without --sparse"),
}


def open_tar(path: Path) -> ArchiveTree:
    """The archive as a tree.

    Raises:
        UserError: if it does not start as a tar archive, or is empty.
    """
    tar = Tar(path)
    with tar.open() as stream:
        if next(tar.members(stream), None) is None:
            raise UserError(f"{tar.where} is an empty tar archive; expected images in it.")
    return ArchiveTree(tar)


class Tar:
    """The members of a tar archive; each process opens it for itself."""

    form = "tar archive"

    def __init__(self, path: Path) -> None:
        self._path, self.where, self.title = path, shown(path), path.name
        self._limit = UNSUSPICIOUS + MAX_RATIO * path.stat().st_size  # bytes that it may unpack to
        self._index: Index | None = None
        self._current: tuple[str, Member, BinaryIO] | None = None  # the file listed last, and the list's stream
        self._own: tuple[int, BinaryIO] | None = None  # for files out of turn

    def open(self) -> BinaryIO:
        """The unpacked archive from its start."""
        try:
            with open(self._path, "rb") as file:
                magic = file.read(6)
            if magic.startswith(b"\x1f\x8b"):
                return gzip.open(self._path)
            if magic.startswith(b"BZh"):
                return bz2.open(self._path)
            if magic == b"\xfd7zXZ\0":
                return io.BufferedReader(Xz(self._path), 1 << 16)
            return open(self._path, "rb")
        except OSError as error:
            raise UserError(f"{self.where} cannot be read ({error.strerror}); mend its permissions.") from None

    def members(self, stream: BinaryIO, start: int = 0) -> Iterator[Member]:
        """What lies in the unpacked archive from a header on, in its order.

        Raises:
            UserError: if it is not whole, or unpacks to more than it should.
        """
        try:
            for member in members(stream, start):
                yield member
                if member.next > self._limit:  # told before the stream is unpacked so far
                    raise UserError(
                        f"{self.where} says that it holds {member.next} bytes, more than {MAX_RATIO} times its size; "
                        "copy it anew, or unpack it yourself and name the folder."
                    )
        except (BadTar, *BROKEN) as error:
            raise UserError(f"{self.where} is no whole tar archive ({reason(error)}); copy or pack it anew.") from None

    def index(self) -> Index:
        """Where everything lies: positions of headers in the unpacked archive."""
        if self._index is None:
            index = Index()
            with self.open() as stream:
                for member in self.members(stream):
                    if not unsafe(member.name):
                        name = tidy(member.name)
                        index.add_folder(name) if member.kind == FOLDER else index.add(name, member.header)
            self._index = index.close()
        return self._index

    def walk(self) -> Iterator[tuple[str | None, tuple[str, str] | None, str]]:
        """The members that are no folders, in the archive's order."""
        with self.open() as stream:
            for member in self.members(stream):
                what = unsafe(member.name)
                if what:
                    yield None, (what, REPACK), member.name
                elif member.kind != FOLDER:
                    name = tidy(member.name)
                    self._current = (name, member, stream)
                    yield name, _fault(member), member.name

    def read(self, name: str) -> bytes:
        """A file's content."""
        current = self._current
        if current is not None and current[0] == name and not current[2].closed:
            return self._content(current[1], current[2])
        stream = self._stream()
        return self._content(self._found(name, stream), stream)

    def _found(self, name: str, stream: BinaryIO) -> Member:
        return next(self.members(stream, self.index().find(name)))

    def _stream(self) -> BinaryIO:
        if self._own is None or self._own[0] != os.getpid():  # a fork would share the place in the file
            self._own = (os.getpid(), self.open())
        return self._own[1]

    def _content(self, member: Member, stream: BinaryIO) -> bytes:
        fault = _fault(member)
        if fault:
            raise BadImage(*fault)
        try:
            stream.seek(member.start)
            content = stream.read(member.size)
        except BROKEN as error:
            raise BadImage(f"cannot be unpacked ({reason(error)})", "copy or pack the archive anew") from None
        if len(content) != member.size:
            raise BadImage(f"{len(content)} bytes; expected {member.size}", "copy or pack the archive anew")
        return content


def _fault(member: Member) -> tuple[str, str] | None:
    """What is wrong with a member that is no folder, and how to mend it."""
    if member.kind != FILE:
        return FAULTS.get(member.kind, ONLY_REGULAR)
    return too_large(member.size) if member.size > MAX_FILE else None


class Xz(io.RawIOBase):
    """An unpacked .xz file whose dictionary may not take more than `XZ_MEMORY`, which `lzma.open` cannot promise."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 closed by `close`
        self._rewind()

    def _rewind(self) -> None:
        self._file.seek(0)
        self._position, self._unpacker = 0, self._start()

    @staticmethod
    def _start() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: memoryview) -> int:
        """Unpacked bytes; none at the end of the last of the file's streams."""
        unpacked = b""
        while not unpacked:
            if self._unpacker.eof:
                packed = (self._unpacker.unused_data or self._file.read(1 << 16)).lstrip(b"\0")  # padding
                if not packed:
                    return 0
                self._unpacker = self._start()
            else:
                packed = self._file.read(1 << 16) if self._unpacker.needs_input else b""
                if not packed and self._unpacker.needs_input:
                    raise EOFError("the compressed file ends early")
            unpacked = self._unpacker.decompress(packed, len(buffer))
        buffer[: len(unpacked)] = unpacked
        self._position += len(unpacked)
        return len(unpacked)

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Forward by unpacking, backward from the start."""
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence != io.SEEK_SET:
            raise io.UnsupportedOperation("seek from the end")
        if offset < self._position:
            self._rewind()
        while self._position < offset and self.read(min(1 << 16, offset - self._position)):
            pass
        return self._position
