"""Several real processes, forked from the test's, that compute together; what each returned, and how it ended."""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from privimage import stopping
from privimage.distributed import Group, joined
from privimage.errors import UserError

SECONDS = 60.0
CRASHED, REFUSED = 1, 2


@dataclass(frozen=True)
class End:
    """The end of one process: its exit code (minus the signal that killed it), the tensors it returned."""

    code: int
    tensors: Mapping[str, Tensor]


def forked(size: int, work: Callable[[Group], Mapping[str, Tensor]], folder: Path) -> list[End]:
    """The end of each of so many processes, which did ``work(group)``; all are gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    children = [_fork(rank, size, port, work, folder) for rank in range(size)]
    deadline, codes = time.monotonic() + SECONDS, {}
    while len(codes) < size:
        for rank, child in enumerate(children):
            if rank not in codes:
                if time.monotonic() > deadline:
                    os.kill(child, signal.SIGKILL)
                found, status = os.waitpid(child, os.WNOHANG)
                if found:
                    codes[rank] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    assert time.monotonic() < deadline, "some process did not end"
    return [End(codes[rank], _returned(folder, rank)) for rank in range(size)]


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _fork(rank: int, size: int, port: int, work: Callable, folder: Path) -> int:
    child = os.fork()
    if child:
        return child
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    code = CRASHED
    try:
        torch.set_num_threads(1)
        stopping.listen()
        with joined() as group:
            made = work(group)
        save_file({name: t.detach().contiguous().clone() for name, t in made.items()}, _file(folder, rank))
        code = 0
    except stopping.Stopped:
        code = stopping.EXIT_CODE
    except UserError as error:
        print(error)
        code = REFUSED
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _file(folder: Path, rank: int) -> Path:
    return folder / f"{rank}.safetensors"


def _returned(folder: Path, rank: int) -> Mapping[str, Tensor]:
    path = _file(folder, rank)
    return load_file(path) if path.exists() else {}
