"""A stage that is told to stop, or whose driver died, ends soon, with what it has saved and a code that says: again.

SIGTERM (a scheduler's notice), SIGINT (Ctrl-C) and the death of the driver come to the same. Where a loop saves its
state, the stage ends there, through ``check``, and the loop saves first; everywhere else at once, which loses nothing,
since files are whole or absent. A second signal ends it at once.

The driver is the Snakemake that started the stage; it names itself in ``PRIVIMAGE_DRIVER``. Killed, it leaves children
that would write on while the next one starts. On another host, or where the system has no handles for processes, it is
not watched.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command, given again, goes on
DRIVER = "PRIVIMAGE_DRIVER"  # "host:pid"

_why = ""  # the stage is to stop, once this says why
_gone = ""  # the driver is, once this says so
_deferred = 0  # blocks that are open


class Stopped(BaseException):
    """The stage was told to stop; its text says by what."""


def listen() -> None:
    """From here on, signals and the death of the driver stop this process as described above."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _told)
    host, _, pid = os.environ.get(DRIVER, "").rpartition(":")
    if host == socket.gethostname() and pid.isdigit() and hasattr(os, "pidfd_open"):
        try:
            handle = os.pidfd_open(int(pid))
        except OSError:  # it has a number of its own in another container
            return
        threading.Thread(target=_watch, args=(handle,), name="driver", daemon=True).start()


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


def _told(number: int, _: object) -> None:
    global _why
    again, _why = bool(_why), _why or _gone or f"by {signal.Signals(number).name}"
    if again or not _deferred:
        raise Stopped(_why)


def _watch(handle: int) -> None:
    """The main thread is told as soon as the process of the handle has ended."""
    global _gone
    waiting = select.poll()
    waiting.register(handle, select.POLLIN)
    waiting.poll()
    _gone = "since the Snakemake that started it is gone"
    os.kill(os.getpid(), signal.SIGTERM)
