"""Functions that run in several real processes at once, which talk by gloo as those of a stage do."""

from __future__ import annotations

import multiprocessing
import os
import pickle  # noqa: TID251 - between processes of one test
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

from privimage.distributed import joined

CONTEXT = multiprocessing.get_context("fork")  # so that each has what this process has read and imported
SECONDS = 120.0


def in_processes(size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What ``function(group, *args)`` returns in each of ``size`` processes, or the exception that it ends with."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    pipes, started = [], []
    for rank in range(size):
        receiver, sender = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=_one, args=(rank, size, port, list(sys.path), sender, function, args))
        process.start()
        sender.close()
        pipes.append(receiver)
        started.append(process)
    found = []
    for receiver in pipes:
        try:
            found.append(pickle.loads(receiver.recv_bytes()) if receiver.poll(SECONDS) else TimeoutError())  # noqa: S301
        except EOFError as error:  # it was killed
            found.append(error)
    for process in started:
        process.kill()
        process.join()
    return found


def _one(
    rank: int, size: int, port: int, path: list[str], sender: Any, function: Callable[..., Any], args: tuple
) -> None:
    sys.path[:] = path
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="localhost")
    try:
        with joined() as group:
            sender.send_bytes(pickle.dumps(function(group, *args)))  # torch's own way needs the process alive
    except BaseException as error:
        traceback.print_exc()
        sender.send_bytes(pickle.dumps(error))
