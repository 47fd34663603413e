"""The members of a plain tar on the disk, or of a tar inside it, by their places: one header is held at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from privimage.data import tar_headers
from privimage.data.record import BadImage, printable
from privimage.data.tree import MAX_FILE, is_hidden, too_large
from privimage.errors import UserError

Span = tuple[int, int]  # the first byte, and the one after the last


@dataclass(frozen=True)
class Member:
    """A visible member that is no folder: its name without folders, and the bytes of the outermost file it fills."""

    name: str
    span: Span
    is_file: bool


def members(path: Path, span: Span | None = None, inside: str = "") -> Iterator[Member]:
    """The members of a tar, or of the tar called ``inside`` that fills the bytes ``span`` of it.

    Raises:
        UserError: while it is walked, if the tar cannot be read, is damaged, or ends early.
    """
    where = printable(f"{path}: {inside}" if inside else str(path))
    try:
        with open(path, "rb", buffering=0) as file:
            part = Part(file, span or (0, path.stat().st_size))
            for member in tar_headers.members(part):  # type: ignore[arg-type]
                name = member.name.rpartition("/")[2]
                if member.kind != tar_headers.FOLDER and name and not is_hidden(name):
                    start = part.start + member.start
                    yield Member(name, (start, start + member.size), member.kind == tar_headers.FILE)
    except tar_headers.BadTar as error:
        raise UserError(f"{where} is no whole tar archive ({printable(str(error))}); copy it anew.") from None
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror or error}); mend or copy it anew.") from None


class Part:
    """A part of a file as a stream to read from. It reads no further than asked: of a large tar, headers alone."""

    def __init__(self, file: BinaryIO, span: Span) -> None:
        self._file, (self.start, self._end) = file, span
        self._at = self.start

    def seek(self, position: int) -> None:
        """Go to a byte of the part."""
        self._at = self.start + position

    def read(self, size: int) -> bytes:
        """Up to so many bytes; fewer at the part's end."""
        self._file.seek(self._at)
        content = self._file.read(max(0, min(size, self._end - self._at)))
        self._at += len(content)
        return content


def read_member(path: Path, member: Member) -> bytes:
    """The content of a member.

    Raises:
        BadImage: if it is larger than any image should be, or the file became shorter.
        OSError: if the file cannot be read.
    """
    start, end = member.span
    if end - start > MAX_FILE:
        raise BadImage(*too_large(end - start))
    with open(path, "rb") as file:
        file.seek(start)
        content = file.read(end - start)
    if len(content) < end - start:
        raise BadImage("the archive ends within it", "copy the archive anew")
    return content
