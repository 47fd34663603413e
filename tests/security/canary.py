"""What a hostile file would do if it could, and whether it did: a marker made, an outside file opened or told."""

from __future__ import annotations

import ctypes
import os
import pickle  # noqa: TID251 - to write what must be refused
from pathlib import Path

SECRET = b"canary-8846-outside"
IN_ACCESS, IN_OPEN = 0x1, 0x20
_libc = ctypes.CDLL(None, use_errno=True)


class Outside:
    """A folder beside the one that a test works in: nothing in it may be opened, and nothing new may appear in it.

    ``marker`` is the file that a payload makes if it is executed.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.marker = folder, folder / "executed"
        self.file = folder / "secret.bin"
        self.file.write_bytes(SECRET * 64)
        self._before = self._names()
        self._watch = _libc.inotify_init1(os.O_NONBLOCK)
        if self._watch < 0:
            raise OSError(ctypes.get_errno(), "no inotify here")

    def arm(self) -> None:
        """From here on whoever opens the file or anything else in the folder is seen."""
        self._before = self._names()
        _libc.inotify_add_watch(self._watch, os.fsencode(self.folder), IN_OPEN | IN_ACCESS)

    def harmed(self) -> set[str]:
        """What happened out here since: names of files that were opened or made."""
        try:
            events = os.read(self._watch, 1 << 16)
        except BlockingIOError:
            events = b""
        opened = set()
        while events:
            length = int.from_bytes(events[12:16], "little")
            opened.add(events[16 : 16 + length].rstrip(b"\0").decode())
            events = events[16 + length :]
        return (opened - {""}) | (self._names() - self._before)

    def close(self) -> None:
        os.close(self._watch)

    def _names(self) -> set[str]:
        return set(os.listdir(self.folder))

    @property
    def shell(self) -> str:
        """A name that a shell would execute, in every way it may come to be read as a command."""
        return f"x'\"; touch {self.marker} #`touch {self.marker}`$(touch {self.marker})".replace("/", "${PWD%%[!/]*}")


class Payload:
    """Pickles as a call that makes the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def pickled(outside: Outside, protocol: int = 4) -> bytes:
    """A pickle that executes when it is loaded."""
    return pickle.dumps(Payload(outside.marker), protocol)
