"""Reading a file onwards, so that a compressed one is never held whole."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from privimage.data.messages import reason
from privimage.data.record import BadImage

CHUNK = 1 << 20
GZIP = b"\x1f\x8b"  # how such a file begins


class Forward:
    """Pieces of a file by their place. Going on is cheap; going back opens the file anew."""

    def __init__(self, open_file: Callable[[], BinaryIO]) -> None:
        self._open, self._file, self._at = open_file, None, 0

    def read(self, start: int, length: int) -> bytes:
        """The ``length`` bytes from ``start``.

        Raises:
            BadImage: if the file cannot be read there, or ends before.
        """
        try:
            if self._file is None or start < self._at:
                self.close()
                self._file = self._open()
            self._skip_to(start)
            content = read_fully(self._file, length)
            self._at += len(content)
        except MemoryError:
            raise BadImage(f"{length} bytes do not fit into memory", "store smaller images") from None
        except Exception as error:  # gzip, zipfile and zlib raise errors of many kinds; all mean a bad file
            self.close()
            raise BadImage(f"cannot be read ({reason(error)})", "copy the file anew") from error
        if len(content) < length:
            raise BadImage(f"the file ends {length - len(content)} bytes too early", "copy the file anew")
        return content

    def close(self) -> None:
        """Let go of the file; the next `read` opens it anew."""
        if self._file is not None:
            self._file.close()
        self._file, self._at = None, 0

    def _skip_to(self, start: int) -> None:
        if start == self._at:
            return
        if self._file.seekable():
            self._at = self._file.seek(start)
            return
        while self._at < start:
            skipped = len(self._file.read(min(CHUNK, start - self._at)))
            if not skipped:
                return
            self._at += skipped


class Capped:
    """A file of which no more than ``limit`` bytes may be read: a bomb stops there."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._left = file, limit

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes.

        Raises:
            OSError: if the file is longer than the limit.
        """
        content = self._file.read(min(self._left + 1, self._left + 1 if size < 0 else size))
        return self._counted(content)

    def readline(self) -> bytes:
        """The rest of the line, under the same limit."""
        return self._counted(self._file.readline(self._left + 1))

    def _counted(self, content: bytes) -> bytes:
        self._left -= len(content)
        if self._left < 0:
            raise OSError("it unpacks to more than it may")
        return content


def read_fully(file: BinaryIO, length: int) -> bytes:
    """Up to ``length`` bytes, fewer only at the end of the file; no more is set aside than the file holds."""
    first = file.read(min(length, CHUNK))
    if len(first) == length or not first:
        return first
    parts, got = [first], len(first)
    while got < length and (part := file.read(min(length - got, 64 * CHUNK))):
        parts.append(part)
        got += len(part)
    return b"".join(parts)


def unzipped(path: Path) -> BinaryIO:
    """The open file, unpacked on the way if gzip compressed it, whatever its name."""
    file = path.open("rb")
    start = file.read(len(GZIP))
    file.seek(0)
    if start != GZIP:
        return file
    file.close()
    return gzip.open(path)
