"""Texts and image files out of HDF5's heaps, by way of a process that may hang or crash in our place."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

PROGRAM = Path(__file__).with_name("hdf5_child.py")
SECONDS = 30.0  # for one answer of some megabytes at most

_child: subprocess.Popen[bytes] | None = None
_lost: set[tuple[int, ...]] = set()  # files that ended a child; each question would take as long as the first


class DamagedHeap(Exception):
    """The heap keeps HDF5 in a loop, or ends its process."""


def values(path: Path, name: str, start: int | None = None, stop: int | None = None) -> list[bytes]:
    """The texts or image files in some rows of an array, or in an attribute, for which no rows are given.

    Raises:
        DamagedHeap: if HDF5 comes to no end with this file.
        OSError: if they cannot be read.
    """
    found = os.stat(path)
    file = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    if file in _lost:
        raise DamagedHeap("its heap of texts or image files is damaged")
    child = _started()
    try:
        child.stdin.write(json.dumps([SECONDS, os.fspath(path), name, start, stop]).encode() + b"\n")
        child.stdin.flush()
        told = json.loads(child.stdout.readline() or "null")
    except BrokenPipeError:
        told = None
    if isinstance(told, str):
        raise OSError(told)
    content = child.stdout.read(sum(told)) if told is not None else b""
    if told is None or len(content) < sum(told):
        _lost.add(file)
        late = child.wait() == -signal.SIGALRM
        raise DamagedHeap(f"HDF5 {f'does not end within {SECONDS:g} seconds' if late else 'crashes'} at {name}")
    return [content[end - length : end] for end, length in zip(accumulate(told), told)]


def _started() -> subprocess.Popen[bytes]:
    global _child
    if _child is None or _child.poll() is not None:
        # -P: the modules beside the program are no libraries.
        command = [sys.executable, "-P", os.fspath(PROGRAM)]
        _child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return _child


@atexit.register
def _end() -> None:
    if _child is not None:
        _child.stdin.close()
        _child.wait()
