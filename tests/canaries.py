"""Looks into every byte of a folder, also where it is packed: for canaries that were planted where none may leave."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
from PIL import Image


def forms(canary: bytes | str | float) -> set[bytes]:
    """How a canary may be written: text as it is, bytes also as hexadecimal and base64, numbers as text and binary."""
    if isinstance(canary, str):
        return {canary.encode(), json.dumps(canary)[1:-1].encode(), canary.encode("utf-16-le")}
    if isinstance(canary, bytes):
        return {canary, canary.hex().encode(), base64.b64encode(canary).rstrip(b"=")}
    kinds = (np.int32, np.int64) if isinstance(canary, int) else (np.float32, np.float64)
    return {str(canary).encode(), *(kind(canary).tobytes() for kind in kinds)}


def search(folder: Path, canaries: Mapping[str, bytes | str | float]) -> set[tuple[str, str]]:
    """(file, canary's name) of every canary that stands anywhere under the folder."""
    wanted = {name: forms(canary) for name, canary in canaries.items()}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        (path.relative_to(folder).as_posix(), name)
        for path in files
        for content in layers(path.read_bytes())
        for name, written in wanted.items()
        if any(form in content for form in written)
    }


def layers(content: bytes) -> Iterator[bytes]:
    """The bytes, and what they hold once unpacked: members, columns, attributes, pixels, texts, base64."""
    yield content
    inner: Iterable[bytes] = ()
    if content.startswith(b"PK\x03\x04"):
        inner = _of_zip(content)
    elif content.startswith(b"PAR1"):
        inner = _of_parquet(content)
    elif content.startswith(b"\x89HDF"):
        inner = _of_hdf5(content)
    elif content.startswith(b"\x89PNG"):
        inner = _of_png(content)
    elif content[8:10] == b'{"' and int.from_bytes(content[:8], "little") < len(content):
        inner = _of_safetensors(content)
    elif content.lstrip()[:1] in (b"<", b"-", b"{", b"["):  # HTML, Markdown, JSON
        texts = (text for text in re.findall(rb"[A-Za-z0-9+/]{40,}", content) if len(text) % 4 != 1)
        inner = (base64.b64decode(text + b"==") for text in texts)
    for part in inner:
        yield from layers(part)


def _of_zip(content: bytes) -> Iterator[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        yield archive.comment
        for member in archive.infolist():
            yield member.filename.encode() + member.comment + member.extra
            yield archive.read(member)


def _of_parquet(content: bytes) -> Iterator[bytes]:
    with pq.ParquetFile(io.BytesIO(content)) as file:
        for key, value in (file.metadata.metadata or {}).items():
            yield key
            yield value
        for column in file.read().flatten().columns:
            yield column.to_numpy().tobytes() if str(column.type) in ("int64", "double") else b""
            yield from (str(v).encode() if not isinstance(v, bytes) else v for v in column.to_pylist())


def _of_hdf5(content: bytes) -> Iterator[bytes]:
    found: list[bytes] = []

    def visit(name: str, node: h5py.Dataset | h5py.Group) -> None:
        found.append(name.encode())
        found.extend(f"{key}={value}".encode() for key, value in node.attrs.items())
        if isinstance(node, h5py.Dataset):
            found.append(np.ascontiguousarray(node[()]).tobytes())

    with h5py.File(io.BytesIO(content), "r") as file:
        visit("/", file)
        file.visititems(visit)
    yield from found


def _of_png(content: bytes) -> Iterator[bytes]:
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        yield np.asarray(picture).tobytes()
        yield from (f"{key}={value}".encode() for key, value in picture.info.items())


def _of_safetensors(content: bytes) -> Iterator[bytes]:
    from safetensors.numpy import load

    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    yield from (f"{key}={value}".encode() for key, value in header.get("__metadata__", {}).items())
    yield from (array.tobytes() for array in load(content).values())
