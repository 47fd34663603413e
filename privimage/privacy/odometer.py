"""The lines of an odometer: one JSON object a charge, each sealed together with all before it.

A line's ``seal`` is the SHA-256 of the seal before it and of the line's other entries. So a line that was changed,
removed, inserted or moved is found; that lines were cut off at the end is found by the seals that the releases keep.

A crash while a line is appended leaves a torn last line, without its newline. It counts as nothing drawn: data is used
only after the whole line reached the disk. Anything else that cannot be read stops the ledger. Lines at the beginning
without a seal are those of a version that wrote none; the first seal is over them too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from privimage.config import canonical
from privimage.errors import UserError
from privimage.privacy.event import Event

Record = dict[str, Any]


def parse(content: bytes, path: Path) -> tuple[list[Record], int]:
    """The records, with their seals, and how many bytes hold them: all of them, or all before a torn last line.

    Raises:
        UserError: if a line other than a torn last one cannot be read, or was not sealed after those before it.
    """
    records: list[Record] = []
    position, sealed = 0, False
    for line in content.splitlines(keepends=True):
        try:
            record = json.loads(line)
            given = record.pop("seal", None)
            events = [Event(**event).as_json() for event in record["events"]]
            seal, sealed = _seal(records, record), sealed or given is not None
            if sealed and given != seal:
                raise ValueError("its seal does not match")
            records.append({**record, "events": events, "private": bool(record["private"]), "seal": seal})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if not line.endswith(b"\n") and not _is_json(line):
                return records, position
            raise UserError(
                f"{path} has a line {len(records) + 1} that cannot be read or was changed ({error}); restore the file "
                "from a backup. Without it nobody knows what was spent."
            ) from error
        position += len(line)
    return records, position


def sealed_line(before: Sequence[Record], record: Record) -> tuple[bytes, str]:
    """The line that appends ``record`` to those before it, and its seal."""
    seal = _seal(before, record)
    return f"{json.dumps({**record, 'seal': seal})}\n".encode(), seal


def _seal(before: Sequence[Record], record: Record) -> str:
    return hashlib.sha256(f"{before[-1]['seal'] if before else ''}{canonical(record)}".encode()).hexdigest()


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
