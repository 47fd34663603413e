"""Arrays of images and labels in HDF5: one file, with groups for its parts or without, or a folder of files.

Keys are those of `privimage.data.arrays`. Links to elsewhere, virtual datasets and external storage would read other
files than the one that was named, so they are refused. An image may also be an encoded file, as variable-length uint8.
What has no fixed length, texts and encoded files, is read by way of `hdf5_heap`; the rest, here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from privimage.data.arrays import Entry, collection, merged
from privimage.data.classes import MAX_CLASSES
from privimage.data.files import files_in, path_of
from privimage.data.hdf5_heap import DamagedHeap, values
from privimage.data.messages import reason, shown
from privimage.data.parts import PARTS
from privimage.data.record import BadImage, Collection, Content, printable
from privimage.errors import UserError
from privimage.settings import Source

SUFFIXES = (".h5", ".hdf5")
MAX_KEYS = 10_000
BLOCK_BYTES = 2**16  # read at once from an array that is stored in one piece
ENCODED_ROWS = 16  # image files read at once, whatever the chunk: it holds only where they lie
MAX_BLOCK_BYTES = 2**28  # of an array stored in chunks, all chunks that hold one image are read at once


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """The images of an HDF5 file, or of a folder of such files whose names say ``train``, ``valid`` or ``test``.

    Raises:
        UserError: if the path is absent, a file is damaged or refers to other files, its arrays are not images and
            labels, or the classes are not the declared ones.
    """
    path = path_of(source)
    where = shown(path)
    if path.is_file():
        entries, names = _entries(path)
        return collection("HDF5 file", where, entries, source, class_names, names)
    if not (files := files_in(path, SUFFIXES)):
        raise UserError(f"{where} holds no HDF5 file; expected names that end in {' or '.join(SUFFIXES)}.")
    read_files = [(file.name, *_entries(file)) for file in files]
    told = {tuple(names) for _, _, names in read_files if names is not None}
    if len(told) > 1:
        raise UserError(f"{where} holds files with different class names; expected the same in all of them.")
    entries = merged([(name, arrays) for name, arrays, _ in read_files], where)
    return collection("folder of HDF5 files", where, entries, source, class_names, list(*told) if told else None)


class _Dataset:
    """One array of a file, read in blocks of whole rows; the file stays open as long as this lives.

    ``encoded`` says that a row is the content of an image file.
    """

    def __init__(self, path: Path, key: str, name: str) -> None:
        try:
            self._path, self._key = path, key
            self._file = _opened(path)
            self._dataset = self._found(key, name)
            self.shape = tuple(self._dataset.shape or ())
            self.encoded = h5py.check_vlen_dtype(self._dataset.dtype) == np.uint8
            text = h5py.check_string_dtype(self._dataset.dtype)
            self._in_heap = self.encoded or text is not None and text.length is None
            self.dtype, self._block_rows = self._type(name), self._rows_at_once(name)
        except UserError:
            raise
        except Exception as error:  # of a damaged file, h5py raises errors of many kinds
            raise UserError(f"{name} cannot be read ({reason(error)}); copy the file anew.") from None
        self._start, self._block = 0, []

    def row(self, index: int) -> Content:
        """Row ``index``: pixels, or the bytes of an encoded image.

        Raises:
            BadImage: if the file is damaged there.
        """
        if not self._start <= index < self._start + len(self._block):
            self._start = index - index % self._block_rows
            try:
                self._block = self._rows(self._start, min(self._start + self._block_rows, self.shape[0]))
            except Exception as error:  # as above; filters add errors of their own
                self._block = []
                # Which of the images in a damaged heap are lost depends on the order in which they are asked for.
                alone = not isinstance(error, DamagedHeap)
                raise BadImage(f"cannot be read ({reason(error)})", "copy the file anew", skippable=alone) from None
        content = self._block[index - self._start]
        return content if self.encoded else np.asarray(content)

    def _rows(self, start: int, stop: int) -> Sequence[Any]:
        if not self._in_heap:
            return self._dataset[start:stop]
        rows = values(self._path, self._key, start, stop)
        if len(rows) != stop - start:
            raise ValueError(f"{len(rows)} values in {stop - start} rows")
        return rows

    def _found(self, key: str, name: str) -> h5py.Dataset:
        parent: Any = self._file
        for step in key.split("/"):
            if not isinstance(parent.get(step, getlink=True), h5py.HardLink):
                raise UserError(f"{name} is a link to elsewhere; expected the array itself, copy it into the file.")
            parent = parent[step]
        if not isinstance(parent, h5py.Dataset):
            raise UserError(f"{name} is a group; expected an array of images or labels.")
        if parent.is_virtual or parent.external:
            raise UserError(f"{name} lies in other files; expected the array itself, copy it into the file.")
        return parent

    def _type(self, name: str) -> np.dtype:
        dtype = self._dataset.dtype
        if h5py.check_string_dtype(dtype) is not None:
            return np.dtype("S")  # texts come as bytes, of whatever length
        if dtype.kind not in "biufc" and not self.encoded:
            raise UserError(
                f"{name} holds elements of type {printable(str(dtype))[:80]}; expected plain numbers, texts, or image "
                "files as variable-length uint8."
            )
        return dtype

    def _rows_at_once(self, name: str) -> int:
        if not self.shape:
            raise UserError(f"{name} is a single value; expected an array with one row an image.")
        row_bytes = math.prod(self.shape[1:]) * self._dataset.dtype.itemsize
        if self.encoded and len(self.shape) > 1:
            raise UserError(f"{name} has the shape {list(self.shape)}; expected [N], one encoded image a row.")
        if self.encoded and not self._dataset.chunks:
            return 1
        rows = max(1, BLOCK_BYTES // max(1, row_bytes))
        if self._dataset.chunks:
            _check_filters(self._dataset, name)
            rows = min(self._dataset.chunks[0], ENCODED_ROWS if self.encoded else self._dataset.chunks[0])
        size = max(rows * row_bytes, math.prod(self._dataset.chunks or ()) * self._dataset.dtype.itemsize)
        if size > MAX_BLOCK_BYTES:
            raise UserError(
                f"{name} must be read {size} bytes at a time; expected at most {MAX_BLOCK_BYTES}: store it with fewer "
                "images in a chunk."
            )
        return rows


def _check_filters(dataset: h5py.Dataset, name: str) -> None:
    made = dataset.id.get_create_plist()
    for index in range(made.get_nfilters()):
        code, *_, filter_name = made.get_filter(index)
        if not h5py.h5z.filter_avail(code):
            told = printable(filter_name.decode("utf-8", "replace"))[:80]
            raise UserError(f"{name} is packed with filter {code} ({told}); expected gzip, lzf or none: store it anew.")


def _opened(path: Path) -> h5py.File:
    return h5py.File(path, "r", locking="best-effort", rdcc_nbytes=2**20)


def _entries(path: Path) -> tuple[dict[str, Entry], list[str] | None]:
    """What a file holds, without opening any array; and the class names of its attributes."""
    try:
        with _opened(path) as file:
            keys = [key for name in _keys(file, path) for key in _of_group(file, name, path)]
            return {key: _entry(path, key) for key in keys}, _class_names(file, path)
    except UserError:
        raise
    except Exception as error:  # of a damaged file, h5py raises errors of many kinds
        raise UserError(f"{shown(path)} is no HDF5 file that can be read ({reason(error)}); copy it anew.") from None


def _entry(path: Path, key: str) -> Entry:
    return Entry(key, lambda: _Dataset(path, key, printable(f"{path.name}: {key}")))


def _keys(group: h5py.Group, path: Path) -> list[str]:
    if len(group) > MAX_KEYS:
        raise UserError(
            f"{shown(path)} holds {len(group)} entries; expected one array of all images, and one of labels."
        )
    return list(group)


def _of_group(file: h5py.File, name: str, path: Path) -> list[str]:
    """The arrays of a group that is named as a part; else the name itself, whatever it is."""
    own = isinstance(file.get(name, getlink=True), h5py.HardLink)
    if name in PARTS and own and isinstance(group := file[name], h5py.Group):
        return [f"{name}/{key}" for key in _keys(group, path)]
    return [name]


def _class_names(file: h5py.File, path: Path) -> list[str] | None:
    """From the attribute ``class_names``, or from ``metadata`` as this package writes it."""
    if "class_names" in file.attrs:
        names = _texts(file, "class_names", path)
        if names is None:
            raise UserError(f"{shown(path)} has an attribute `class_names` that holds no texts; write it anew.")
        return names
    metadata = _texts(file, "metadata", path) if "metadata" in file.attrs else None
    try:
        names = json.loads(metadata[0])["class_names"] if metadata else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None  # somebody else's metadata
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if is_list else None


def _texts(file: h5py.File, name: str, path: Path) -> list[str] | None:
    """An attribute, if it is of texts. Of other types, reading a damaged one can end the whole process."""
    attribute = h5py.h5a.open(file.id, name.encode())
    kind = attribute.get_type()
    if kind.get_class() != h5py.h5t.STRING or math.prod(attribute.shape) > MAX_CLASSES:
        return None
    texts = values(path, name) if kind.is_variable_str() else np.ravel(file.attrs[name]).tolist()
    return [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in texts]
