"""A stage that is told to stop, or whose driver died, ends soon, with what it has saved and a code that says: again.

SIGTERM (a scheduler's notice), SIGINT (Ctrl-C) and the death of the driver come to the same. Where a loop saves its
state, the stage ends there, through ``check``, and the loop saves first; everywhere else at once, which loses nothing,
since files are whole or absent. Further signals change nothing for a while, since whoever stops a whole group of
processes tells each of them several times; one that comes later kills it, as anything may: what is on the disk is fit
for that.

The driver is the Snakemake that started the stage; it names itself in ``PRIVIMAGE_DRIVER``. Killed, it leaves children
that would write on while the next one starts. On another host, in another container, or where the system has no handles
for processes, it is not watched.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 10.0  # seconds in which a stage is not told twice
EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command, given again, goes on
DRIVER = "PRIVIMAGE_DRIVER"  # host, namespace of process numbers, process number

_why = ""  # the stage is to stop, once this says why
_since = 0.0  # when it was told
_gone = ""  # the driver is, once this says so
_deferred = 0  # blocks that are open


class Stopped(BaseException):
    """The stage was told to stop; its text says by what."""


def listen() -> None:
    """From here on, signals and the death of the driver stop this process as described above."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _told)
    place, _, pid = os.environ.get(DRIVER, "").rpartition(" ")
    if place != _place() or not hasattr(os, "pidfd_open"):
        return
    try:
        handle = os.pidfd_open(int(pid))
    except ProcessLookupError:  # it died while this process was starting
        _end_with_driver()
        return
    threading.Thread(target=_watch, args=(handle,), name="driver", daemon=True).start()


def this_process() -> str:
    """What to name this process by in ``PRIVIMAGE_DRIVER``, so that the stages that it starts end with it."""
    return f"{_place()} {os.getpid()}"


def _place() -> str:
    """Where process numbers mean the same as here."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {namespace.stat().st_ino if namespace.exists() else ''}"


@contextmanager
def deferred() -> Iterator[None]:
    """Within the block, the stage stops only where it calls ``check``."""
    global _deferred
    _deferred += 1
    try:
        yield
    finally:
        _deferred -= 1


def asked() -> bool:
    """Whether the stage was told to stop."""
    return bool(_why)


def check() -> None:
    """Return if the stage may go on.

    Raises:
        Stopped: if it was told to stop.
    """
    if _why:
        raise Stopped(_why)


def reason(number: int) -> str:
    """What a signal of that number means now: that somebody sent it, or that the driver is gone."""
    return _gone or f"by {signal.Signals(number).name}"


def _told(number: int, _: object) -> None:
    global _why, _since
    if _why:
        if time.monotonic() - _since > PATIENCE:  # dead, rather than stopped in the midst of a change of the state
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        return
    _why, _since = reason(number), time.monotonic()
    if not _deferred:
        raise Stopped(_why)


def _watch(handle: int) -> None:
    """The main thread is told as soon as the process of the handle has ended."""
    waiting = select.poll()
    waiting.register(handle, select.POLLIN)
    waiting.poll()
    _end_with_driver()


def _end_with_driver() -> None:
    global _gone
    if _why:
        return
    _gone = "since the Snakemake that started it is gone"
    os.kill(os.getpid(), signal.SIGTERM)
