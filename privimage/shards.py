"""The file that one of several readers of a source leaves for the one that joins them.

First the pixels, as they come; then everything else as one .npz; then its length. So neither the writer nor the reader
holds more than one image at once, beside 25 bytes and the name of each image of the shard.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from privimage.artifacts import ArtifactError, reading, write_file
from privimage.data.reading import BLOCK, Part, Square
from privimage.data.record import Problem
from privimage.data.survey import Seen, square_hash
from privimage.progress import progress

COLUMNS = {"positions": "q", "labels": "q", "is_test": "b", "hashes": "Q"}  # type codes of `array`
END = struct.Struct("<8sQ")  # a mark, and the length of what stands before it and behind the pixels
MARK = b"privshrd"


@dataclass(frozen=True)
class Shard:
    """What a shard's file holds; its pixels are mapped, not read.

    Shapes: ``pixels`` uint8 [n, S, S, C]; each other array [n], one entry an image, ``positions`` rising.
    """

    meta: dict[str, Any]  # settings, index, of, form, class_names, num_items, listing, notes
    pixels: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    is_test: np.ndarray
    hashes: np.ndarray
    name_lines: bytes  # one line an image
    problems: tuple[tuple[int, Problem], ...]
    seen: Seen

    @classmethod
    def read(cls, path: Path) -> Shard:
        """The shard.

        Raises:
            ArtifactError: if the file is absent, damaged or of another kind.
        """
        with reading(path), open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - END.size))
            mark, length = END.unpack(file.read(END.size).ljust(END.size, b"\0"))
            if mark != MARK or length + END.size > size:
                raise ArtifactError(f"{path} is no shard, or was cut off; delete it and rerun.")
            file.seek(-END.size - length, 2)
            with np.load(io.BytesIO(file.read(length)), allow_pickle=False) as rest:  # noqa: TID251 - no objects
                columns = {name: rest[name] for name in COLUMNS}
                told, name_lines = json.loads(rest["told"].tobytes()), rest["names"].tobytes()
        size, channels = (told["meta"]["settings"][name] for name in ("resolution", "channels"))
        pixels = np.zeros((0, size, size, channels), np.uint8)
        if len(columns["labels"]):
            pixels = np.memmap(path, np.uint8, "r", shape=(len(columns["labels"]), size, size, channels))
        if _digest(pixels) != told["sha256"]:
            raise ArtifactError(f"{path} is damaged: its images do not match their checksum; delete it and rerun.")
        problems = tuple((position, Problem(**problem)) for position, problem in told["problems"])
        columns["is_test"] = columns["is_test"].astype(bool)
        return cls(
            told["meta"], pixels, **columns, name_lines=name_lines, problems=problems, seen=Seen.of(told["seen"])
        )

    def names(self, rows: list[int]) -> list[str]:
        """What the images at ``rows`` are called."""
        lines = self.name_lines.split(b"\n")
        return [lines[row].decode() for row in rows]

    def stretches(self) -> Iterator[tuple[slice, np.ndarray]]:
        """The images, block by block of the collection's list: rows of this shard, uint8 [n, S, S, C]."""
        edges = np.flatnonzero(np.diff(self.positions // BLOCK)) + 1
        for start, stop in zip([0, *edges], [*edges, len(self.positions)]):
            if stop > start:
                yield slice(int(start), int(stop)), self.pixels[start:stop]


def write_shard(path: Path, part: Part, settings: dict[str, Any]) -> int:
    """The file holds what the part reads; returned is how many images that is."""
    counts = []

    def fill(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            counts.append(_fill(file, part, settings))

    write_file(path, fill)
    return counts[0]


def _fill(file: BinaryIO, part: Part, settings: dict[str, Any]) -> int:
    columns = {name: array(code) for name, code in COLUMNS.items()}
    names, problems, seen, digest = bytearray(), [], Seen(), hashlib.sha256()
    for item in progress(part, "shard", None, images=1):
        if not isinstance(item, Square):
            problems.append([item[0], asdict(item[1])])
            continue
        content = item.pixels.tobytes()  # [S, S, C]
        file.write(content)
        digest.update(content)
        seen.add(item)
        names += item.name.encode() + b"\n"
        values = (item.position, item.label, item.is_test, square_hash(content))
        for column, value in zip(columns.values(), values):
            column.append(value)
    meta = {
        "settings": settings,
        "index": part.index,
        "of": part.of,
        "form": part.collection.form,
        "class_names": part.collection.class_names,
        "num_items": part.num_items,
        "listing": part.listing,
        "notes": part.notes,
    }
    told = {"meta": meta, "problems": problems, "seen": seen.plain(), "sha256": digest.hexdigest()}
    buffer = io.BytesIO()
    texts = {"told": np.frombuffer(json.dumps(told).encode(), np.uint8), "names": np.frombuffer(names, np.uint8)}
    np.savez(buffer, **{name: np.array(column) for name, column in columns.items()}, **texts)
    file.write(buffer.getbuffer())
    file.write(END.pack(MARK, buffer.getbuffer().nbytes))
    return len(columns["labels"])


def _digest(pixels: np.ndarray) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(pixels), 4096):
        digest.update(np.ascontiguousarray(pixels[start : start + 4096]))
    return digest.hexdigest()
