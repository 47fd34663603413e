"""The processes that compute one stage together: who they are, and what they tell each other.

A stage calls ``joined`` once; started as a single process it gets ``ALONE``, with which everything below costs nothing.
Tensors on a GPU travel by NCCL, others by gloo. Where one process ends before its time, the others stop as if they had
been told to (``stopping.Stopped``), so that the leader saves. Nothing that travels is encrypted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from privimage import stopping
from privimage.device import default_device
from privimage.errors import UserError
from privimage.memory import is_full

Item = TypeVar("Item")
Result = TypeVar("Result")
STOPPED, FULL, DONE = range(3)  # how a piece of work ended, worst first


@dataclass(frozen=True)
class Group:
    """This process's number and how many there are. Methods are called by all processes, in the same order."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process reads and writes what the group shares."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """This process's share of ``count`` items: the shares follow each other and differ by one item at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def minimum(self, number: int) -> int:
        """The smallest of the processes' numbers."""
        told = torch.tensor([number])
        if self.size > 1:
            with unbroken():
                dist.all_reduce(told, dist.ReduceOp.MIN)
        return int(told)

    def any(self, said: bool) -> bool:
        """Whether any of the processes says so: the same answer for all."""
        return self.minimum(0 if said else 1) == 0

    def told_to_stop(self) -> bool:
        """Whether any of the processes was told to stop: the same answer for all, so that they stop at one place."""
        return self.any(stopping.asked())

    def check(self) -> None:
        """Return if all may go on.

        Raises:
            Stopped: in every process, if any was told to stop.
        """
        if self.told_to_stop():
            stopping.check()
            raise stopping.Stopped("as another of its processes was")

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Each tensor, of one shape everywhere, holds the leader's values."""
        if self.size > 1:
            _at_once(tensors, lambda flat: dist.broadcast(flat, 0))

    def numbers(self, numbers: Sequence[int]) -> list[int]:
        """The leader's whole numbers, of 64 bits; what the others give is ignored."""
        if self.size == 1:
            return list(numbers)
        told = torch.tensor([len(numbers)])
        self.spread([told])
        content = torch.tensor(list(numbers)) if self.leads else torch.empty(int(told), dtype=torch.int64)
        self.spread([content])
        return content.tolist()

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """The leader's tensors are the sums over all processes; the others' are of no use any more."""
        if self.size > 1:
            _at_once(tensors, lambda flat: dist.reduce(flat, 0))

    def total(self, tensor: Tensor) -> None:
        """The tensor is the sum over all processes, the same to the bit in each."""
        if self.size > 1:
            with unbroken():
                dist.all_reduce(tensor)

    def digest(self, text: str) -> str:
        """At the leader: a name for the texts of all processes together."""
        own = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")  # sums stay below 2^63
        told = torch.tensor([own % 2**50])
        self.add_up([told])
        return f"{int(told):x}"

    def together(self, work: Callable[[], Result]) -> Result:
        """What ``work`` returns, once it has returned in every process.

        Raises:
            Stopped: if any process was told to stop meanwhile.
            MemoryError: if any had too little memory, in every one of them.
        """
        if self.size == 1:
            return work()
        result, problem, end = None, None, DONE
        try:
            result = work()
        except stopping.Stopped as error:
            problem, end = error, STOPPED
        except (RuntimeError, MemoryError) as error:
            if not is_full(error):
                raise
            problem, end = error, FULL
        worst = self.minimum(end)
        if worst == DONE:
            return result
        if worst == STOPPED:
            raise problem if end == STOPPED else stopping.Stopped("as another of its processes was")
        raise MemoryError("one of the processes is out of memory") from problem

    def each(self, function: Callable[[Item], Tensor], items: Sequence[Item]) -> Iterator[Tensor]:
        """At the leader, the function's tensor (on the CPU) of every item, in order; at the others, nothing.

        Each process computes every ``size``-th item.
        """
        if self.size == 1:
            yield from map(function, items)
            return
        for first in range(0, len(items), self.size):
            mine = first + self.rank
            made = function(items[mine]) if mine < len(items) else None
            if not self.leads:
                if made is not None:
                    _send(made)
                continue
            yield made
            for rank in range(1, min(self.size, len(items) - first)):
                yield _received(rank)


ALONE = Group()


@contextmanager
def joined() -> Iterator[Group]:
    """The processes that were started with this one, which are left again at the end; alone, where there are none.

    Raises:
        UserError: if the processes do not find each other.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" or "LOCAL_RANK" not in os.environ:
        yield ALONE
        return
    local, beside = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if default_device().type == "cuda":
        torch.cuda.set_device(local)
        if not dist.is_nccl_available():
            raise UserError("this torch has no NCCL, by which GPUs talk; install one that has it, or set `gpu` to 1.")
        backend = "cpu:gloo,cuda:nccl"
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // beside))
        backend = "gloo"
    try:
        dist.init_process_group(backend)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the processes of the stage do not find each other ({reason}); check the network.") from error
    try:
        yield Group(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextmanager
def unbroken() -> Iterator[None]:
    """Within the block, a connection that breaks since another process is gone stops this one too."""
    try:
        yield
    except RuntimeError as error:
        if is_full(error) or not _is_broken(error):
            raise
        reason = str(error).strip().splitlines()[0]
        raise stopping.Stopped(f"since it no longer reaches another of its processes ({reason})") from error


@torch.no_grad()
def _at_once(tensors: Iterable[Tensor], travel: Callable[[Tensor], object]) -> None:
    """All tensors of one kind and device travel as one; each then holds what came back."""
    kinds: dict[tuple, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for same in kinds.values():
        try:
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
        except (RuntimeError, MemoryError) as error:  # not tried again: the others are elsewhere by then
            if not is_full(error):
                raise
            raise UserError(
                "a process is out of memory for what the processes tell each other; free memory and start again, which "
                "goes on from what was saved."
            ) from error
        with unbroken():
            travel(flat)
        for tensor, part in zip(same, flat.split([tensor.numel() for tensor in same])):
            tensor.copy_(part.view(tensor.shape))


def _is_broken(error: RuntimeError) -> bool:
    text = str(error).lower()
    words = ("connection", "gloo", "nccl", "socket", "timed out", "broken pipe")
    return isinstance(error, dist.DistError) or any(word in text for word in words)


def _send(tensor: Tensor) -> None:
    """To the leader: how many dimensions, the dimensions, the kind, the content."""
    with unbroken():
        dist.send(torch.tensor([tensor.dim(), KINDS.index(tensor.dtype)]), 0)
        dist.send(torch.tensor(tensor.shape), 0)
        dist.send(tensor.contiguous(), 0)


def _received(rank: int) -> Tensor:
    with unbroken():
        head = torch.empty(2, dtype=torch.int64)
        dist.recv(head, rank)
        shape = torch.empty(int(head[0]), dtype=torch.int64)
        dist.recv(shape, rank)
        tensor = torch.empty(shape.tolist(), dtype=KINDS[int(head[1])])
        dist.recv(tensor, rank)
        return tensor


KINDS = (torch.uint8, torch.float32, torch.float64, torch.int64)  # what travels
