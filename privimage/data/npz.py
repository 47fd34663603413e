"""Arrays of images and labels in NumPy's files: an .npz, an .npy or a folder of them, with the keys of `arrays`."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from privimage.data.arrays import Entry, collection, merged
from privimage.data.files import files_in, path_of
from privimage.data.messages import reason, shown
from privimage.data.npy_rows import Rows
from privimage.data.record import Collection, printable
from privimage.errors import UserError
from privimage.settings import Source


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """The images of an .npz, an .npy, or a folder of such files.

    Raises:
        UserError: if the path is absent, its arrays are no images and labels, or the classes are not the declared ones.
    """
    path = path_of(source)
    if path.is_dir():
        form, entries = _folder(path)
    elif path.suffix.lower() == ".npy":
        form, entries = "npy file", {"images": _npy(path, path.stem)}
    else:
        form, entries = "npz file", _npz(path)
    return collection(form, shown(path), entries, source, class_names)


def _folder(folder: Path) -> tuple[str, dict[str, Entry]]:
    npy, npz = (files_in(folder, (ending,)) for ending in (".npy", ".npz"))
    if bool(npy) == bool(npz):
        raise UserError(f"{shown(folder)} holds {len(npy)} .npy and {len(npz)} .npz files; expected files of one kind.")
    if npy:
        return "folder of npy files", {file.stem: _npy(file, file.name) for file in npy}
    return "folder of npz files", merged([(file.name, _npz(file)) for file in npz], shown(folder))


def _npy(path: Path, name: str) -> Entry:
    return Entry(name, lambda: Rows(lambda: open(path, "rb"), printable(name), path.stat().st_size))


def _npz(path: Path) -> dict[str, Entry]:
    try:
        with zipfile.ZipFile(path) as file:
            members = [member for member in file.infolist() if member.filename.endswith(".npy")]
    except Exception as error:  # of a hostile archive, zipfile raises errors of many kinds
        raise UserError(f"{shown(path)} is no .npz file that can be read ({reason(error)}); copy it anew.") from None
    keys = [member.filename.removesuffix(".npy") for member in members]
    if len(set(keys)) < len(keys):
        raise UserError(f"{shown(path)} holds two arrays of one name; expected each once, save it anew.")
    return {key: _member(path, key, member) for key, member in zip(keys, members)}


def _member(path: Path, key: str, member: zipfile.ZipInfo) -> Entry:
    def open_member() -> BinaryIO:
        return zipfile.ZipFile(path).open(member.filename)  # type: ignore[return-value]

    return Entry(key, lambda: Rows(open_member, printable(key), member.file_size))
