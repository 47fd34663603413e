"""What a stage makes batch after batch is kept as it is made: the next start goes on behind what was kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor

from privimage import stopping
from privimage.checkpoints import Checkpoint, Every
from privimage.distributed import ALONE, Group

SAVE_SECONDS, SAVE_BYTES = 60.0, 2**24  # after so much, rows are kept
ROWS = "images"  # in the checkpoint, one row an image


def kept_and_made(
    checkpoint: Checkpoint | None, make: Callable[[int], Iterator[Tensor]], group: Group = ALONE
) -> Iterator[Tensor]:
    """Rows [n, ...] that the checkpoint kept, then those that ``make`` makes from the n-th on, kept in turn.

    Of several processes, the leader has the checkpoint and gets the rows; the others help to make them, for as long as
    this runs in them too, and get none.
    """
    part, first, fresh, every = 0, 0, [], Every(SAVE_SECONDS)
    while checkpoint and (saved := checkpoint.load(part)):
        rows = saved[0][ROWS]
        yield rows
        part, first = part + 1, first + len(rows)
    (first,) = group.numbers([first])
    with stopping.deferred() if group.leads else nullcontext():
        try:
            for rows in make(first):
                yield rows
                fresh.append(rows)
                if every.due() or sum(kept.nbytes for kept in fresh) >= SAVE_BYTES:
                    checkpoint.save({ROWS: torch.cat(fresh)}, {}, part)
                    part, fresh = part + 1, []
                    stopping.check()
        except stopping.Stopped:  # by the end of another process
            if fresh:
                checkpoint.save({ROWS: torch.cat(fresh)}, {}, part)
            raise
