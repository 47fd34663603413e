"""A program of its own that reads texts and image files out of HDF5, for `hdf5_heap`, which starts and asks it.

They lie in heaps; a damaged one keeps HDF5 in a loop for ever or ends its process. Here that costs nothing but this
process, which the system ends when an answer takes too long. It imports nothing of this package.

A request is a line of JSON: [seconds, path, name, start, stop], without rows for an attribute. The answer is a line of
JSON, the lengths of the values or a text that says what is wrong, and then the values.
"""

from __future__ import annotations

import json
import signal
import sys

import h5py
import numpy as np


def main() -> None:
    """Answer until there are no more requests."""
    for line in sys.stdin.buffer:
        seconds, *wanted = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, seconds)  # its default action ends a process in the midst of C, too
        try:
            values = _values(*wanted)
            told = json.dumps([len(value) for value in values])
        except Exception as error:  # of a damaged file, h5py raises errors of many kinds
            values, told = [], json.dumps(str(error) or type(error).__name__)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.buffer.write(told.encode() + b"\n" + b"".join(values))
        sys.stdout.buffer.flush()


def _values(path: str, name: str, start: int | None, stop: int | None) -> list[bytes]:
    """Closes the file each time, so that it may be replaced."""
    with h5py.File(path, "r", locking="best-effort") as file:
        found = file.attrs[name] if start is None else file[name][start:stop]
    return [_plain(value) for value in np.ravel(found).tolist()]


def _plain(value: str | bytes | np.ndarray) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return value if isinstance(value, bytes) else np.asarray(value, np.uint8).tobytes()


if __name__ == "__main__":
    main()
