"""What makes one start of a stage die, and what notes what it drew: set up in the process that runs the stage.

Every call through which the package changes the disk is a point at which the process may die: flush, rename, unlink,
make and remove a folder, open for writing, change a mode, and HDF5's and safetensors' writing. Since the disk is the
same before a call as after the one before it, dying before each of them is dying everywhere between them. Inside a
write the process dies by its limit on the size of files.

The notes are written without Python's buffers, at the moment of the draw, into a file that no fault touches: they are
what the ledger is compared with.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import io
import json
import os
import random
import resource
import signal
import stat
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import safetensors.torch
import sklearn.linear_model  # noqa: F401 - imported before the fork, as what follows
import sklearn.neural_network  # noqa: F401
import torch
from stages import warm
from torch.optim.optimizer import register_optimizer_step_post_hook

from privimage import artifacts, checkpoints, private_training
from privimage.diffusion import training  # noqa: F401
from privimage.diffusion.sampler import SAMPLERS
from privimage.privacy import ledger
from privimage.privacy.randomness import SecretKey
from privimage.reporting import grid  # noqa: F401

if TYPE_CHECKING:
    from server import Faults

OS_CALLS = ("fsync", "replace", "rename", "unlink", "remove", "rmdir", "mkdir", "chmod", "truncate", "posix_fallocate")
WRITING = set("wax+")
NOTHING_MORE = 1 << 62

warm()


def install(faults: Faults) -> Callable[[], None]:
    """The faults will happen in this process; to be called when the stage has ended: it writes the count of points."""
    torch.set_num_threads(faults.threads)
    points = Points(faults)
    if faults.draws:
        Notes(faults).install()
    due, asked = checkpoints.Every.due, iter(range(1, NOTHING_MORE))
    checkpoints.Every.due = lambda self: due(self) or next(asked) % faults.every == 0
    if faults.backwards:
        now, looks = time.time(), iter(range(NOTHING_MORE))
        time.time = lambda: now - 60.0 * next(looks)
        ledger.datetime = SimpleNamespace(now=lambda zone: datetime.fromtimestamp(time.time(), zone))
    if faults.at or faults.count:
        points.install()
    if faults.file_bytes:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (faults.file_bytes, resource.RLIM_INFINITY))
    return points.tell


class Points:
    """The calls that change the disk, counted; at the one that was asked for, the process dies."""

    def __init__(self, faults: Faults) -> None:
        self.faults, self.calls, self.began = faults, 0, time.time_ns()
        self.flushed: dict[tuple[int, int], int] = {}  # file -> bytes that are on the disk for certain
        self.tearing: list[int] = []  # points at which something was not yet flushed that a power cut would tear
        self.draw = random.Random(faults.seed)

    def install(self) -> None:
        """Every such call passes here first."""
        self.replace = os.replace
        for name in OS_CALLS:
            setattr(os, name, self.counted(getattr(os, name), name))
        opened, os_open = io.open, os.open
        io.open = builtins.open = lambda file, mode="r", *args, **kwargs: (
            self.passed("open", file) if WRITING & set(mode) else None,
            opened(file, mode, *args, **kwargs),
        )[1]
        os.open = lambda path, flags, *args, **kwargs: (
            self.passed("open", path) if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else None,
            os_open(path, flags, *args, **kwargs),
        )[1]
        for owner, name in ((h5py.File, "__init__"), (h5py.File, "close"), (h5py.Group, "create_dataset"),
                            (h5py.Dataset, "__setitem__")):  # fmt: skip
            setattr(owner, name, self.counted(getattr(owner, name), name))
        for module in (safetensors.torch, checkpoints):
            module.save_file = self.counted(module.save_file, "save_file")

    def counted(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, at whose call the process may die."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.passed(name, *args, **kwargs)
            return function(*args, **kwargs)

        return call

    def passed(self, name: str, what: Any = None, target: Any = None, /, *_: Any, **options: Any) -> None:
        """One more point; returns if it is not the last."""
        self.calls += 1
        last = self.calls == self.faults.at
        if name == "open":
            self._found(what)
        elif name == "fsync":
            self._flush(what, last and self.faults.torn)
        elif name in ("replace", "rename"):
            self._tear(what, target, last and self.faults.torn)
            self._gone(target)
        elif name in ("unlink", "remove", "rmdir"):
            self._gone(what, options.get("dir_fd"))
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    def tell(self) -> None:
        """How many points there were is written down, and which of them a power cut makes worse, if that is asked."""
        if self.faults.count:
            told = json.dumps({"points": self.calls, "tearing": self.tearing})  # writing it down makes more
            Path(self.faults.count).write_text(told, encoding="utf-8")

    def _found(self, file: Any) -> None:
        """What was there before this process began counts as flushed."""
        if not isinstance(file, int) and os.path.exists(file):
            facts = os.stat(file)
            if facts.st_mtime_ns < self.began:
                self.flushed.setdefault((facts.st_dev, facts.st_ino), facts.st_size)

    def _gone(self, file: Any, folder: int | None = None) -> None:
        """What is about to be deleted or replaced leaves its inode to the next file, of which nothing is flushed."""
        with contextlib.suppress(FileNotFoundError):
            facts = os.stat(file, dir_fd=folder, follow_symlinks=False)
            if facts.st_nlink == 1 or stat.S_ISDIR(facts.st_mode):
                self.flushed.pop((facts.st_dev, facts.st_ino), None)

    def _flush(self, handle: int, torn: bool) -> None:
        """What is about to be flushed may be cut where a power cut might cut it; else it counts as flushed."""
        facts = os.fstat(handle)
        before = self._at_risk(facts)
        if before is not None and torn:
            os.ftruncate(handle, self.draw.randrange(before, facts.st_size))
        self.flushed[facts.st_dev, facts.st_ino] = facts.st_size

    def _tear(self, path: Any, target: Any, torn: bool) -> None:
        """A file that is renamed before it was flushed may come out shorter under its new name."""
        facts = os.stat(path)
        before = self._at_risk(facts)
        if before is not None and torn:
            os.truncate(path, self.draw.randrange(before, facts.st_size))
            self.replace(path, target)

    def _at_risk(self, facts: os.stat_result) -> int | None:
        """From which byte on the file is not on the disk; None if it is."""
        before = self.flushed.get((facts.st_dev, facts.st_ino), 0)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size <= before:
            return None
        self.tearing.append(self.calls)
        return before


class Notes:
    """A line for each secret draw, each step of an optimiser and each value that leaves a mechanism."""

    def __init__(self, faults: Faults) -> None:
        self.faults, self.number, self.steps = faults, 0, 0
        self.handle = os.open(faults.draws, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(self.handle, b"\n")  # the start before may have died within a line
        self.names: dict[bytes, str] = {}

    def install(self) -> None:
        """From here on they are written."""
        cipher, noisy_mean = SecretKey._cipher, private_training.noisy_mean
        write = artifacts.JsonArtifact.write

        def noted_cipher(key: SecretKey, kind: str, purpose: str, indices: tuple, *rest: Any) -> Any:
            if kind != "identity":
                self.note(draw=purpose, key=self.name(key), indices=[int(i) for i in indices])
            return cipher(key, kind, purpose, indices, *rest)

        def noted_mean(total: Any, **how: Any) -> Any:
            made = noisy_mean(total, **how)
            value = hashlib.sha256(b"".join(np.ascontiguousarray(v.numpy()).tobytes() for v in made.values()))
            self.note(value=value.hexdigest(), key=self.name(how["key"]), what=f"step {how['step']}")
            return made

        def noted_write(artifact: Any, path: Any) -> None:
            if type(artifact).__name__ in ("QueryResult", "EpochChoice"):
                body = json.dumps([vars(artifact)[name] for name in ("histogram", "epochs") if name in vars(artifact)])
                self.note(value=hashlib.sha256(body.encode()).hexdigest(), key=Path(path).parent.name, what="all")
            write(artifact, path)

        SecretKey._cipher, private_training.noisy_mean = noted_cipher, noted_mean
        artifacts.JsonArtifact.write = noted_write
        register_optimizer_step_post_hook(lambda *_: self.note(step=1))
        for name, solve in SAMPLERS.items():  # of a batch of images
            SAMPLERS[name] = lambda *args, solve=solve: (solve(*args), self.note(step=1))[0]

    def name(self, key: SecretKey) -> str:
        """The key's name in the odometer."""
        if key.secret not in self.names:
            self.names[key.secret] = ""  # asking for it draws
            self.names[key.secret] = key.identity
        return self.names[key.secret]

    def note(self, **facts: Any) -> None:
        """It is written down, whole, whatever happens next; at some notes the stage is told to stop, or dies."""
        os.write(self.handle, f"{json.dumps(facts)}\n".encode())
        self.number += 1
        is_step = "step" in facts or facts.get("draw") == "query"
        self.steps += is_step
        if is_step and self.steps == self.faults.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.number in self.faults.stops:
            os.kill(os.getpid(), signal.SIGTERM)
        if is_step:
            time.sleep(self.faults.slow)
