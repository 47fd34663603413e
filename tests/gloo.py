"""Several real processes that compute together, as torch's launcher would start them, but in a tenth of a second."""

from __future__ import annotations

import multiprocessing
import os
import pickle  # noqa: TID251 - what processes of one test return
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from privimage import stopping
from privimage.distributed import Group, joined
from privimage.errors import UserError

CRASHED, REFUSED = 1, 2


@dataclass(frozen=True)
class End:
    """The end of one process: its exit code (minus the signal that killed it), and what it returned or raised."""

    code: int
    value: Any


def together(size: int, work: Callable[[], Any], folder: Path, timeout: float = 60.0) -> list[int]:
    """The exit codes of ``size`` forks of this process that run ``work``; what they print lies in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    fork, port = multiprocessing.get_context("fork"), free_port()
    ranks = [fork.Process(target=_rank, args=(rank, size, port, work, folder)) for rank in range(size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in ranks]


def forked(size: int, work: Callable[[Group], Any], folder: Path) -> list[End]:
    """The end of each of so many processes, which joined, did ``work(group)``, and are told to stop by signals."""
    codes = together(size, lambda: _work_in_group(work, folder), folder)
    files = [folder / f"returned{rank}" for rank in range(size)]
    values = [pickle.loads(file.read_bytes()) if file.exists() else None for file in files]  # noqa: S301
    return [End(code, value) for code, value in zip(codes, values)]


def in_processes(size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What ``function(group, *args)`` returns or raises in each of so many processes; None from one that was killed."""
    with tempfile.TemporaryDirectory() as folder:
        return [end.value for end in forked(size, lambda group: function(group, *args), Path(folder))]


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _rank(rank: int, size: int, port: int, work: Callable[[], Any], folder: Path) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in numbers.items()}, MASTER_ADDR="127.0.0.1")
    sys.stdout = sys.stderr = open(folder / f"rank{rank}", "w", buffering=1)  # noqa: SIM115 - until the process ends
    torch.set_num_threads(1)
    work()


def _work_in_group(work: Callable[[Group], Any], folder: Path) -> None:
    code, value = 0, None
    try:
        stopping.listen()
        with joined() as group:
            value = work(group)
    except BaseException as error:
        traceback.print_exc()
        value, code = error, CRASHED
        code = stopping.EXIT_CODE if isinstance(error, stopping.Stopped) else code
        code = REFUSED if isinstance(error, UserError) else code
    (folder / f"returned{os.environ['RANK']}").write_bytes(pickle.dumps(value))
    os._exit(code)
