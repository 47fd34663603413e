"""The parts of a source: what they may be called, and which of them are held out for testing."""

from __future__ import annotations

import re
from collections.abc import Iterable

from privimage.data.record import Split, printable
from privimage.errors import UserError

PARTS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip


def part_of(name: str) -> str | None:
    """``train``, ``val`` or ``test`` where a file's name says so, in a word of its own (``latest`` does not say test).

    Raises:
        UserError: if it says two of them.
    """
    parts = {PARTS[word] for word in re.split("[^a-z]+", name.lower()) if word in PARTS}
    if len(parts) > 1:
        raise UserError(f"{printable(name)} names the parts {sorted(parts)}; expected one, rename it.")
    return parts.pop() if parts else None


def splits(parts: Iterable[str | None], where: str) -> dict[str | None, Split]:
    """What each part is for: validation images are held out where there is no test part, else they join training.

    A part that stands alone is no split: there each image's own content decides.

    Raises:
        UserError: if something is held out of nothing, or some files name no part.
    """
    found = set(parts)
    if len(found) == 1:
        return dict.fromkeys(found)
    if None in found or "train" not in found:
        told = ", ".join(sorted(part or "files that name no part" for part in found))
        raise UserError(f"{where} holds {told}; expected a train part beside test or validation, or no parts at all.")
    held_out = "test" if "test" in found else "val"
    return {part: "test" if part == held_out else "train" for part in found}
