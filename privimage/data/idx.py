"""IDX files, plain or compressed by gzip: the format of MNIST and of the sets that follow it.

A header (two zero bytes, the type of the values, the number of dimensions, the sizes), then the values row by row.
Before anything is used, a file is held against its header: it must be neither shorter nor longer. A compressed one is
unpacked once for this, in pieces, and its checksum is verified on the way.
"""

from __future__ import annotations

import gzip
import math
from functools import partial
from pathlib import Path

import numpy as np

from privimage.data.forward import CHUNK, Forward, unzipped
from privimage.data.messages import reason, shown
from privimage.errors import UserError

UNSIGNED_BYTES = 8  # the only type that images and labels are published in
MAX_IMAGES = 10_000_000


class Images:
    """The images of one file: uint8 [count, height, width], read one by one."""

    def __init__(self, path: Path, max_pixels: int) -> None:
        """Check the file.

        Raises:
            UserError: if it is no IDX file of images, holds none or too large ones, or is not as long as it says.
        """
        self.path = path
        self.count, self.height, self.width = sizes = _sizes(path, 3)
        if not (0 < self.count <= MAX_IMAGES and 0 < self.height * self.width <= max_pixels):
            raise UserError(
                f"{shown(path)} says that it holds {self.count} images of {self.height} x {self.width} pixels; "
                f"expected 1 to {MAX_IMAGES} images of 1 to {max_pixels} pixels, copy it anew."
            )
        _check_length(path, sizes)

    def rows(self) -> Forward:
        """A fresh reader of the file, for `image`."""
        return Forward(partial(unzipped, self.path))

    def image(self, rows: Forward, index: int) -> np.ndarray:
        """Image ``index``, uint8 [height, width].

        Raises:
            BadImage: if it cannot be read.
        """
        size = self.height * self.width
        content = rows.read(_header_length(3) + index * size, size)
        return np.frombuffer(content, np.uint8).reshape(self.height, self.width)


def labels(path: Path, count: int) -> np.ndarray:
    """The labels of ``count`` images, uint8 [count].

    Raises:
        UserError: if the file is no IDX file of labels, has another number of them, or is not as long as it says.
    """
    sizes = _sizes(path, 1)
    if sizes[0] != count:
        raise UserError(
            f"{shown(path)} has {sizes[0]} labels; expected {count}, one for each image: the files do not belong "
            "together."
        )
    _check_length(path, sizes)
    with unzipped(path) as file:
        return np.frombuffer(file.read(_header_length(1) + count)[_header_length(1) :], np.uint8)


def _header_length(dimensions: int) -> int:
    return 4 + 4 * dimensions


def _sizes(path: Path, dimensions: int) -> tuple[int, ...]:
    try:
        with unzipped(path) as file:
            start = file.read(_header_length(dimensions))
    except Exception as error:  # gzip and zlib raise errors of several kinds; all mean a bad file
        raise _unreadable(path, error) from error
    magic = bytes([0, 0, UNSIGNED_BYTES, dimensions])
    if start[:4] != magic:
        raise UserError(
            f"{shown(path)} begins with the bytes {start[:4].hex(' ') or '(none)'}; expected {magic.hex(' ')}, an IDX "
            f"file of {'images' if dimensions == 3 else 'labels'}: copy it anew, or move it out of the way."
        )
    if len(start) < _header_length(dimensions):
        raise UserError(
            f"{shown(path)} ends within its header; expected {_header_length(dimensions)} bytes, copy it anew."
        )
    return tuple(int(size) for size in np.frombuffer(start[4:], ">u4"))


def _check_length(path: Path, sizes: tuple[int, ...]) -> None:
    wanted = _header_length(len(sizes)) + math.prod(sizes)
    try:
        got = _length(path, wanted)
    except Exception as error:
        raise _unreadable(path, error) from error
    if got != wanted:
        more = "at least " if got == wanted + 1 else ""
        raise UserError(
            f"{shown(path)} holds {more}{got} bytes; expected {wanted}, as its header says "
            f"({' x '.join(map(str, sizes))}): copy it anew."
        )


def _length(path: Path, wanted: int) -> int:
    """The length of what the file holds; of a compressed one, no more than one byte beyond ``wanted`` is looked at."""
    with unzipped(path) as file:
        if not isinstance(file, gzip.GzipFile):
            return path.stat().st_size
        got = 0
        while got <= wanted and (piece := file.read(min(CHUNK, wanted + 1 - got))):
            got += len(piece)
        return got


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{shown(path)} cannot be read ({reason(error)}); copy it anew.")
