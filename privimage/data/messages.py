"""Paths, and what libraries' errors say, as our own sentences show them: on one line, without control characters."""

from __future__ import annotations

from pathlib import Path

from privimage.data.record import printable


def shown(path: Path | str) -> str:
    """A path in characters that every file and terminal takes."""
    return printable(str(path))


def reason(error: BaseException) -> str:
    """What an error says, in at most 200 characters, or its type where it says nothing."""
    return printable(str(error) or type(error).__name__)[:200]
