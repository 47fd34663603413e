"""Several processes that run one function together, as torch's launcher would start them, in a tenth of a second."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def together(size: int, work: Callable[[], Any], folder: Path, timeout: float = 60.0) -> list[int]:
    """The exit codes of ``size`` forks of this process that run ``work``; what they print lies in ``folder``."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=_rank, args=(rank, size, port, work, folder)) for rank in range(size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in ranks]


def _rank(rank: int, size: int, port: int, work: Callable[[], Any], folder: Path) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in numbers.items()}, MASTER_ADDR="127.0.0.1")
    sys.stdout = sys.stderr = open(folder / f"rank{rank}", "w", buffering=1)  # noqa: SIM115 - until the process ends
    torch.set_num_threads(1)
    work()
