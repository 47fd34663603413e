"""A CPU's cores, each with work of its own: faster than all of them on one small operation after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """The function of every item, in order, ``workers`` at once.

    With several workers each call computes on one thread, so that their number changes no result.
    """
    if workers == 1:
        yield from map(function, items)
        return
    pool, items = _pool(workers), iter(items)
    waiting = [pool.submit(function, item) for item in islice(items, workers)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(function, item) for item in islice(items, 1)]


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads in each of which torch computes on one thread; everywhere else it goes on with as many as before."""
    before, started = torch.get_num_threads(), Barrier(workers)
    pool = ThreadPoolExecutor(workers, initializer=_alone)
    list(pool.map(lambda _: started.wait(), range(workers)))
    torch.set_num_threads(before)  # a thread's call sets its own number, and that of threads to come
    return pool


def _alone() -> None:
    """Torch computes on one thread in this one. Asked first for its number, it will not set it again itself."""
    torch.get_num_threads()
    torch.set_num_threads(1)
