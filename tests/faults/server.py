"""A process that imported everything once and forks for each start of a stage: a start costs a tenth of a second.

A start is what `python -m privimage.<stage>` is: the stage's module runs as ``__main__`` under its own ``sys.argv``, in
a process of its own that can be killed. What goes wrong in it is told in the request (``Faults``), set up by the module
``crashing`` after the fork.

Requests and answers are lines of JSON: ``{"start": {...}}`` gives ``{"pid": n}``, ``{"wait": n, "seconds": s}`` gives
``{"code": exit code, or minus the signal, or null while it runs}``, ``{"mount": folder, "options": "size=40k"}`` gives
``{}``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import privimage


@dataclass(frozen=True)
class Faults:
    """What happens to one start of a stage. The default is nothing."""

    at: int = 0  # dies at this call that touches the disk, counted from 1
    torn: bool = False  # ... and what was not flushed by then is lost from a random byte on, as by a power cut
    file_bytes: int = 0  # dies inside the write that makes a file larger than this
    count: str = ""  # file that says which calls touched the disk, when it ended by itself
    draws: str = ""  # file that gets a line for each secret draw, each step and each noisy value, as they happen
    dies: int = 0  # dies at this step, or draw of a query, counted from 1
    stops: Sequence[int] = ()  # SIGTERM arrives at these of those lines, counted from 1
    every: int = 1  # steps or epochs between checkpoints
    slow: float = 0.0  # seconds that a step, and the query's draw, take besides
    backwards: bool = False  # each look at the time of day finds it a minute earlier
    threads: int = 1  # of torch
    version: int = 0  # of the stage, if not its own
    seed: int = 0  # of the lengths to which files are torn


NOTHING = Faults()
APART = ("unshare", "--user", "--map-root-user", "--mount")  # a process whose mounts nobody else sees


@dataclass(frozen=True)
class Start:
    """One start of a stage: ``python -m privimage.<stage> <words>`` in ``folder``; ``told`` gets what it prints."""

    stage: str
    words: Sequence[str]
    folder: str
    told: str
    faults: Faults = NOTHING
    environment: Mapping[str, str] = field(default_factory=dict)


class Server:
    """The server, from the side of a test."""

    def __init__(self) -> None:
        tried = shutil.which(APART[0]) and subprocess.run(
            [*APART, "mount", "-t", "tmpfs", "none", "/tmp"], stderr=subprocess.DEVNULL
        )
        self.can_mount = bool(tried) and tried.returncode == 0
        paths = [str(Path(privimage.__file__).parents[1]), str(Path(__file__).parent)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        for name in ("PRIVIMAGE_STATUS", "PRIVIMAGE_DRIVER"):
            environment.pop(name, None)
        command = [*(APART if self.can_mount else ()), sys.executable, __file__]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._ask({"ready": True})

    def mount(self, folder: Path, options: str) -> Path:
        """The folder is a file system in memory, or one with other options if it was; returned is the way to it.

        Only its stages see it under the folder's own name. Where the system lets nobody mount, ``can_mount`` is false.
        """
        self._ask({"mount": str(folder), "options": options})
        return Path(f"/proc/{self._process.pid}/root{folder}")

    def start(self, start: Start) -> int:
        """The process that runs the stage."""
        return self._ask({"start": asdict(start)})["pid"]

    def wait(self, pid: int, seconds: float = 120.0) -> int | None:
        """How the process ended: its exit code, or minus a signal's number; None if it runs still."""
        return self._ask({"wait": pid, "seconds": seconds})["code"]

    def run(self, start: Start, seconds: float = 120.0) -> int | None:
        """How one start ended."""
        return self.wait(self.start(start), seconds)

    def kill(self, pid: int) -> int | None:
        """How the process ended, which is killed now."""
        os.kill(pid, signal.SIGKILL)
        return self.wait(pid)

    def close(self) -> None:
        """The server is gone."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def unmount(self, folder: Path) -> None:
        """The file system is gone, with all that it held."""
        self._ask({"unmount": str(folder)})

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _fork(start: Mapping[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        os.chdir(start["folder"])
        told = os.open(start["told"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(told, 1), os.dup2(told, 2)
        for name, number in (("stdout", 1), ("stderr", 2)):
            setattr(sys, name, open(number, "w", buffering=1, closefd=False))  # noqa: SIM115
        os.environ.update(start["environment"])
        code = _stage(start)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _stage(start: Mapping[str, Any]) -> int:
    """The exit code of the stage, run as Python runs a module."""
    import crashing

    sys.argv = [start["stage"], *start["words"]]
    counted = crashing.install(Faults(**start["faults"]))
    try:
        _module(f"privimage.{start['stage']}", start["faults"]["version"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.stdout.flush()
    counted()
    return code


def _module(name: str, version: int) -> None:
    if not version:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        return
    source = Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")
    other = re.sub(r"^VERSION = \d+$", f"VERSION = {version}", source, flags=re.MULTILINE)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(other, name, "exec"), vars(module))


def _wait(pid: int, seconds: float) -> int | None:
    until = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.002)


def main() -> None:
    """Answer requests until there are none."""
    import crashing  # noqa: F401 - it imports all that stages import, before the first fork

    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        if "ready" in request:  # answered once all is imported
            answer = {}
        elif "start" in request:
            answer = {"pid": _fork(request["start"])}
        elif "mount" in request:
            subprocess.run(["mount", "-t", "tmpfs", "-o", request["options"], "none", request["mount"]], check=True)
            answer = {}
        elif "unmount" in request:
            subprocess.run(["umount", "--lazy", request["unmount"]], check=True)
            answer = {}
        else:
            answer = {"code": _wait(request["wait"], request["seconds"])}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
