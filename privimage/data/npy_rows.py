"""The rows of an .npy file, read one by one, also from within an archive: the array is never held whole."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from privimage.data.forward import Forward
from privimage.data.messages import reason
from privimage.data.record import printable
from privimage.errors import UserError

MAX_HEADER = 10_000  # bytes; an array of numbers needs a hundred
MAX_READ = 1 << 28  # bytes of one row, or of an array that is read whole
LENGTHS = {(1, 0): 2, (2, 0): 4, (3, 0): 4}  # format version -> bytes that hold the header's length
KINDS = "biufcSU"  # numbers and strings; never objects, records or void


def header(file: BinaryIO, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array; after it, the file stands at the first element.

    ``name`` is what an error calls the array.

    Raises:
        UserError: if the file is no .npy file, holds Python objects or records, or is stored column by column.
    """
    try:
        shape, by_column, dtype = _parsed(file)
    except Exception as error:  # zipfile, zlib and numpy raise errors of many kinds; all mean a bad file
        raise UserError(
            f"{name} is no array that can be read ({reason(error)}); expected a "
            "file that `numpy.save` or `numpy.savez` wrote, save it anew."
        ) from error
    if dtype.hasobject or dtype.kind not in KINDS or dtype.subdtype is not None:
        raise UserError(
            f"{name} is an array of type {printable(str(dtype))[:80]}; expected plain numbers or strings, never Python "
            "objects: save it with a fixed dtype."
        )
    if by_column and len(shape) > 1:
        raise UserError(
            f"{name} is stored column by column (Fortran order); expected row by row, save it with "
            "`numpy.ascontiguousarray`."
        )
    if any(length < 0 for length in shape):
        raise UserError(f"{name} has the shape {list(shape)}; expected no negative lengths, save it anew.")
    return shape, dtype


def _parsed(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version not in LENGTHS:
        raise ValueError(f"format version {version}")
    field = file.read(LENGTHS[version])
    if int.from_bytes(field, "little") > MAX_HEADER:  # numpy would read it before it looks at its length
        raise ValueError(f"a header of {int.from_bytes(field, 'little')} bytes")
    start = io.BytesIO(field + file.read(int.from_bytes(field, "little")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # headers of Python 2 are read with a warning
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(start)
        return np.lib.format.read_array_header_2_0(start)


class Rows:
    """An array of which single rows are read: onwards cheaply, backwards by opening the file anew.

    ``open_file`` opens the .npy file at its beginning; ``name`` is what errors call it. ``size`` is the length of the
    file in bytes, where it is known: then a file that is too short or too long is refused at once.
    """

    def __init__(self, open_file: Callable[[], BinaryIO], name: str, size: int | None = None) -> None:
        """Read the header.

        Raises:
            UserError: as `header`; also for an array without rows, for rows of more than 256 MiB, or a wrong ``size``.
        """
        try:
            file = open_file()
        except Exception as error:
            raise UserError(f"{name} cannot be opened ({reason(error)}); copy it anew.") from error
        with file:
            self.shape, self.dtype = header(file, name)
            self._start = file.tell()
        self.name = name
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._check(size)
        self._bytes = Forward(open_file)

    def _check(self, size: int | None) -> None:
        if not self.shape:
            raise UserError(f"{self.name} is a single number; expected an array with one row an image.")
        if self._row_bytes > MAX_READ:
            raise UserError(
                f"{self.name} has rows of {self._row_bytes} bytes; expected at most {MAX_READ}, store smaller images."
            )
        wanted = self._start + self.shape[0] * self._row_bytes
        if size is not None and size != wanted:
            raise UserError(
                f"{self.name} is {size} bytes long; expected {wanted}, as its shape {list(self.shape)} says: it is "
                "damaged, copy it anew."
            )

    def row(self, index: int) -> np.ndarray:
        """Row ``index``; shape ``shape[1:]``.

        Raises:
            BadImage: if the file is damaged there.
        """
        if not 0 <= index < self.shape[0]:
            raise IndexError(f"row {index} of {self.shape[0]}")
        return self._array(self._start + index * self._row_bytes, self._row_bytes, self.shape[1:])

    def whole(self) -> np.ndarray:
        """All rows at once: for labels, not for images.

        Raises:
            UserError: if they are more than 256 MiB.
            BadImage: if the file is damaged.
        """
        length = self.shape[0] * self._row_bytes
        if length > MAX_READ:
            raise UserError(f"{self.name} has {length} bytes; expected at most {MAX_READ}.")
        return self._array(self._start, length, self.shape)

    def close(self) -> None:
        """Let go of the file; the next row opens it anew."""
        self._bytes.close()

    def _array(self, start: int, length: int, shape: tuple[int, ...]) -> np.ndarray:
        if not length:
            return np.zeros(shape, self.dtype)
        return np.frombuffer(self._bytes.read(start, length), self.dtype).reshape(shape)
