"""The members of a tar archive, one at a time, from any stream: nothing is kept, and no header is larger than bounded.

The standard library's reader keeps every member, takes a damaged header for the end of the archive, and reads headers
of any length; this one reads the old, POSIX (ustar and pax) and GNU forms, and refuses what is not whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
MAX_HEADER = 1_000_000  # bytes of an extended header
FILE, LINK, FOLDER, OTHER, SPARSE = "file", "link", "folder", "other", "sparse"
KINDS = {b"0": FILE, b"\0": FILE, b"7": FILE, b"1": LINK, b"2": LINK, b"5": FOLDER, b"S": SPARSE}
WITHOUT_CONTENT = b"123456"  # types whose size says nothing of what follows
EXTENDED = b"LKxXg"


class BadTar(Exception):
    """The archive is not whole, or no tar archive: why."""


@dataclass(frozen=True, slots=True)
class Member:
    """One entry: its raw name and kind, and where its headers, its content and the next header lie in the stream."""

    name: str
    kind: str
    header: int
    start: int
    size: int
    next: int


def members(stream: BinaryIO, position: int = 0) -> Iterator[Member]:
    """Every entry from the header at a position to the archive's end mark. The stream may be moved in between.

    Raises:
        BadTar: if a header is damaged, or the archive ends before its end mark or goes on after it.
    """
    first, extended, last = position, {}, "its start"
    while True:
        stream.seek(position)
        header = stream.read(BLOCK)
        if len(header) < BLOCK:
            raise BadTar(f"it ends without an end mark, after {last}" if header or position else "it is empty")
        if not any(header):
            _check_rest(stream, last)
            return
        if not _is_sound(header):
            raise BadTar(f"a damaged header after {last}" if position else "it does not start like one")
        size, kind = _number(header[124:136]), header[156:157]
        if kind in EXTENDED:
            extended |= _extension(stream, size, kind)
            position += BLOCK + _whole(size)
            continue
        member = _member(header, extended, first, position + BLOCK, size)
        yield member
        _check_reaches(stream, member)  # only now: a compressed stream does not go back to the content
        first, extended, last = member.next, {}, member.name
        position = first


def _member(header: bytes, extended: dict[str, str], first: int, start: int, size: int) -> Member:
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and header[345]:
        name = f"{_text(header[345:500])}/{name}"
    name, flag = extended.get("path", name), header[156:157]
    kind = KINDS.get(flag, OTHER)
    if kind == FILE and name.endswith("/"):
        kind = FOLDER
    if any(key.startswith("GNU.sparse.") for key in extended):
        kind = SPARSE
    if "size" in extended:
        size = _decimal(extended["size"])
    content = 0 if flag in WITHOUT_CONTENT else size
    return Member(name, kind, first, start, size, start + _whole(content))


def _extension(stream: BinaryIO, size: int, kind: bytes) -> dict[str, str]:
    """What an extended header says of the next member."""
    if size > MAX_HEADER:
        raise BadTar(f"a header of {size} bytes; expected at most {MAX_HEADER}")
    content = stream.read(size)
    if len(content) < size:
        raise BadTar("it ends in the middle of a header")
    if kind == b"L":
        return {"path": _text(content)}
    return dict(_records(content)) if kind in b"xX" else {}


def _records(content: bytes) -> Iterator[tuple[str, str]]:
    """Records of a pax header, each ``length key=value`` and a line feed."""
    start = 0
    while start < len(content) and content[start]:
        length, space, _ = content[start : start + 20].partition(b" ")
        end = start + (int(length) if length.isdigit() else 0)
        key, equals, value = content[start + len(length) + 1 : end - 1].partition(b"=")
        if not space or not equals or end > len(content) or content[end - 1 : end] != b"\n":
            raise BadTar("a damaged extended header")
        yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        start = end


def _check_reaches(stream: BinaryIO, member: Member) -> None:
    """Whether the stream goes on to the end of the member's content."""
    if member.next > member.start:
        stream.seek(member.next - 1)
        if not stream.read(1):
            raise BadTar(f"it ends in the middle of {member.name}")


def _check_rest(stream: BinaryIO, last: str) -> None:
    while rest := stream.read(1 << 16):
        if rest.strip(b"\0"):
            raise BadTar(f"it goes on after its end mark, which follows {last} (two archives joined?)")


def _is_sound(header: bytes) -> bool:
    """Whether the checksum holds; old archives summed signed bytes."""
    try:
        wanted = _number(header[148:156])
    except BadTar:
        return False
    summed = header[:148] + b" " * 8 + header[156:]
    unsigned = sum(summed)
    return wanted in (unsigned, unsigned - 256 * sum(byte > 127 for byte in summed))


def _number(field: bytes) -> int:
    """Octal digits, or a positive number in base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip() or b"0"
    if digits.strip(b"01234567"):
        raise BadTar("a damaged number in a header")
    return int(digits, 8)


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadTar("a damaged size in an extended header")
    return int(text)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _whole(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
