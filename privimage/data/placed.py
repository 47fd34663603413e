"""Which files of a published set lie in a folder already, and whether they are the published ones."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from privimage.data.messages import shown
from privimage.data.published import File
from privimage.errors import UserError


def placed(file: File, folder: Path) -> list[Path]:
    """The file itself, or what serves in its place; an empty list if there is neither.

    Raises:
        UserError: if something else than the published file has its name.
    """
    path = folder / file.name
    if os.path.lexists(path):
        wrong = difference(file, path)
        if wrong:
            raise UserError(
                f"{shown(path)} {wrong}; delete it, and it will be fetched anew, or put the published file "
                "in its place."
            )
        return [path]
    unpacked = [_unpacked(folder, member) for member in file.unpack]
    if unpacked and None not in unpacked:
        return [path for path in unpacked if path]
    for name in file.instead:
        other = folder / name
        if other.is_file() or (other.is_dir() and any(other.iterdir())):
            return [other]
    return []


def difference(file: File, path: Path) -> str:
    """What makes a file on the disk another than the published one, in words; empty if nothing does."""
    if not path.is_file():
        return "is not a file that can be read"
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"has {size:,} bytes, and the published file has {file.size:,}"
    kind, _, expected = file.checksum.partition(":")
    try:
        with open(path, "rb") as opened:
            got = hashlib.file_digest(opened, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if got == expected else f"has the {kind} checksum {got}, and the published file has {expected}"


def _unpacked(folder: Path, member: str) -> Path | None:
    """A member of an archive, taken out as `download` does it or with its folder, still gzipped or not."""
    there = (folder / name.removesuffix(end) for name in (Path(member).name, member) for end in ("", ".gz"))
    return next((path for path in there if path.is_file()), None)
