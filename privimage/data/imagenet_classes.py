"""The 1,000 classes of ImageNet's challenge (ILSVRC2012): WordNet ids, readable names, and the devkit's numbering.

Each line of ``imagenet_classes.txt`` says of one class: WordNet id, ILSVRC2012_ID of the development kit, name.
The devkit's numbers, 1 to 1000, label the validation images; they follow no order of the ids or names.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib.resources import files


def names_by_wnid() -> dict[str, str]:
    """Readable names by WordNet id, in the order of the ids; where two classes share a name, it ends in the id."""
    rows = _rows()
    count = Counter(name for _, _, name in rows)
    return {wnid: name if count[name] == 1 else f"{name} ({wnid})" for wnid, _, name in rows}


def wnid_of_devkit_id() -> tuple[str, ...]:
    """WordNet ids in the devkit's order: the class of ILSVRC2012_ID n is at index n - 1."""
    return tuple(wnid for wnid, _, _ in sorted(_rows(), key=lambda row: row[1]))


def by_devkit_id() -> tuple[str, ...]:
    """Readable names in the devkit's order: the class of ILSVRC2012_ID n is at index n - 1."""
    names = names_by_wnid()
    return tuple(names[wnid] for wnid in wnid_of_devkit_id())


@cache
def _rows() -> tuple[tuple[str, int, str], ...]:
    """(WordNet id, devkit id, name) of each class, in the order of the WordNet ids."""
    text = files("privimage.data").joinpath("imagenet_classes.txt").read_text("utf-8")
    rows = [line.split(" ", 2) for line in text.splitlines()]
    return tuple((wnid, int(number), name) for wnid, number, name in rows)
