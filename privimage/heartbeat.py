"""A small file that says how far a running stage is, for ``privimage status``. It is gone when the loop is.

The workflow names the folder (``PRIVIMAGE_STATUS``, in the state folder: the file is for its owner alone); without
that nothing is written. A heartbeat that fails stops no stage: a warning, and no more heartbeats.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from privimage.artifacts import ArtifactError, write_private
from privimage.config import canonical

Item = TypeVar("Item")
VARIABLE = "PRIVIMAGE_STATUS"
SECONDS = 2.0
_told: dict[str, Any] = {}


def tell(**facts: Any) -> None:
    """What else this process's heartbeats say: JSON-like data."""
    _told.update(facts)


def beating(items: Iterable[Item], name: str, total: int | None, start: int, images: float | None) -> Iterator[Item]:
    """The items, while the heartbeat's file says how many of ``total`` are done; each stands for so many ``images``."""
    path = _path()
    if path is None:
        yield from items
        return
    first = last = time.time()
    facts = {"stage": _stage(), "loop": name, "output": sys.argv[-1], "total": total, "start": start, "images": images}
    facts |= {"pid": os.getpid(), "host": socket.gethostname(), "started": first, **_told}
    alive = _write(path, {**facts, "done": start, "updated": first})
    try:
        for done, item in enumerate(items, start + 1):
            yield item
            now = time.time()
            if alive and now - last >= SECONDS:
                last, alive = now, _write(path, {**facts, "done": done, "updated": now})
    finally:
        with contextlib.suppress(OSError):  # it may never have been there
            path.unlink()


def _path() -> Path | None:
    """One file for each output, so that a stage that was killed and starts again takes its own place."""
    folder = os.environ.get(VARIABLE)
    output = re.sub(r"[^A-Za-z0-9.]+", "-", sys.argv[-1])[-150:]
    return Path(folder) / f"{_stage()}-{output}.json" if folder else None


def _stage() -> str:
    return Path(sys.argv[0]).stem


def _write(path: Path, facts: dict[str, Any]) -> bool:
    """Whether the file holds the facts."""
    try:
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        write_private(path, canonical(facts).encode())
        return True
    except (OSError, ArtifactError) as error:
        print(f"warning: `privimage status` will not see this stage ({error}).", file=sys.stderr)
        return False
