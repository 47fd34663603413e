"""Arrays of the HDF5 files that this package writes: plain numbers in one piece, in the file itself.

HDF5 can also refer to other files (links, virtual and external arrays), or claim a size that it does not hold. Ours
never do, so whatever does was made by somebody else, and is not read.
"""

from __future__ import annotations

import h5py

NUMBERS = "iuf"


def array(file: h5py.File, name: str) -> h5py.Dataset:
    """The array of that name.

    Raises:
        ValueError: if it refers to another file, is no array of numbers, or is not stored whole and in one piece.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"`{name}` is missing, or a link to elsewhere")
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in NUMBERS:
        raise ValueError(f"`{name}` is no array of plain numbers")
    if found.is_virtual or found.external:
        raise ValueError(f"`{name}` lies in other files")
    if found.chunks or found.id.get_storage_size() != found.size * found.dtype.itemsize:
        raise ValueError(f"`{name}` is not stored whole and in one piece")
    return found
