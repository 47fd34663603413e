"""How far a long loop is: a bar on a terminal, a line every half minute in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from privimage.heartbeat import beating
from privimage.ranks import leads

Item = TypeVar("Item")
SECONDS = 30.0


def progress(
    items: Iterable[Item], name: str, total: int | None, start: int = 0, images: float | None = None
) -> Iterator[Item]:
    """The items, while standard error says how many of ``total`` are done, counting from ``start``; None: unknown.

    So does a heartbeat for ``privimage status``, which counts ``images`` for each item. Of several processes that
    compute together, the leader speaks for all.
    """
    if not leads():
        yield from items
        return
    items = beating(items, name, total, start, images)
    if sys.stderr.isatty():
        yield from tqdm(items, desc=name, total=total, initial=start)
        return
    began = last = time.monotonic()
    done, of = start, f"/{total}" if total else ""
    for done, item in enumerate(items, start + 1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS:
            last = now
            pace = (now - began) / (done - start)
            left = f", about {pace * (total - done):.0f} s left" if total else f", {1 / pace:.0f} a second"
            _print(f"{name}: {done}{of}{left}")
    _print(f"{name}: {done}{of} in {time.monotonic() - began:.0f} s")


def _print(line: str) -> None:
    """The line stands in the log, if anybody still reads it: a scheduler stops a log's reader along with the stage."""
    with contextlib.suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)
