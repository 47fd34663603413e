"""Every kind of file that a stage reads, and what can happen to one on a disk."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sets import collection_of, record
from test_artifacts import ALL, MADE_BY
from test_artifacts import read as read_artifact

from privimage.artifacts import Contents, EpochChoice
from privimage.checkpoints import Checkpoint
from privimage.data.reading import Part
from privimage.errors import UserError
from privimage.measurements import Curve
from privimage.privacy.event import Event, noisy_votes
from privimage.privacy.ledger import Ledger
from privimage.settings import Declared, Source
from privimage.shards import Shard, write_shard

FINGERPRINT = "0123456789abcdef" * 2
EVENTS = [Event("poisson_gaussian", 40.0, 0.1, 5)]
DECLARED = Declared(num_images=1000, class_names=("a",), delta=1e-5)
TENSORS = {"model.w": torch.arange(12.0).reshape(4, 3), "optimizer.0.step": torch.tensor(3.0)}
MORE = {
    "contents": Contents("folder", {"a": 3}, {"a": 1}, [8, 8], [8, 8], {"8-bit grey": 4}, [], ["dark"], MADE_BY),
    "epochs": EpochChoice({"cnn": 3}, MADE_BY),
    "curve": Curve(("step", "loss", "images"), ((0.0, 0.5, 12.0), (1.0, 0.25, 9.0))),
}
ARTIFACTS = {**ALL, **MORE}


@dataclass(frozen=True)
class Kind:
    """One kind of file: how it comes to be in a folder, its name there, and what a stage gets from reading it."""

    write: Callable[[Path], Any]
    file: str
    read: Callable[[Path], Any]


def flipped(good: bytes, draw: random.Random) -> bytes:
    """One bit is another."""
    bad = bytearray(good)
    bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
    return bytes(bad)


def truncated(good: bytes, draw: random.Random) -> bytes:
    """The end is missing."""
    return good[: draw.randrange(len(good))]


def zeroed(good: bytes, draw: random.Random) -> bytes:
    """From somewhere on, up to a sector is zeros, as after a power cut."""
    start = draw.randrange(len(good))
    stop = min(len(good), start + draw.randrange(1, 513))
    return good[:start] + bytes(stop - start) + good[stop:]


def overwritten(good: bytes, draw: random.Random) -> bytes:
    """Up to eight bytes in a row are others."""
    start = draw.randrange(len(good))
    return (good[:start] + draw.randbytes(draw.randrange(1, 9)) + good[start + 8 :])[: len(good)]


DAMAGES = (flipped, truncated, zeroed, overwritten)


def kinds() -> dict[str, Kind]:
    """By name."""
    found = {}
    for name, artifact in ARTIFACTS.items():
        found[name] = Kind(partial(_write, artifact), "file", partial(_read, artifact))
        if name in ("images", "features"):
            found[f"{name}' checksum"] = Kind(partial(_write, artifact), "file.sha256", partial(_read, artifact))
    found["shard"] = Kind(_write_shard, "x.shard", lambda folder: Shard.read(folder / "x.shard"))
    found["checkpoint"] = Kind(_write_checkpoint, "c/checkpoint-0.safetensors", _read_checkpoint)
    for file in ("key", "reserved_steps", "charged.json"):
        found[file] = Kind(_begin, f"state/set/finetune/{FINGERPRINT}/{file}", _read_begun)
    found["odometer"] = Kind(_begin, "state/set/odometer.jsonl", _read_odometer)
    found["begun.json"] = Kind(_begin, f"state/set/finetune/{FINGERPRINT}/begun.json", _read_another)
    for file in ("finished.json", "w"):
        found[f"finished {file}"] = Kind(_finish, f"state/set/finetune/{FINGERPRINT}/{file}", _read_finished)
    return found


def outcome(kind: Kind, pristine: Path, folder: Path, damage: Callable[..., bytes], draw: random.Random) -> str:
    """What a reader makes of a damaged copy of the folder: ``refused``, ``same`` (it reads as if undamaged), or worse.

    Worse is: ``accepted`` (it reads as something else), ``traceback``, ``lost`` (with the file mended, what was there
    is no more).
    """
    wanted = kind.read(_copy(pristine, folder))
    good = (_copy(pristine, folder) / kind.file).read_bytes()
    while (bad := damage(good, draw)) == good:
        pass
    (folder / kind.file).write_bytes(bad)
    try:
        found = "same" if same(kind.read(folder), wanted) else "accepted"
    except UserError as error:
        found = "refused" if "\n" not in str(error).strip() else f"told on several lines: {error}"
    except Exception as error:
        found = f"traceback: {type(error).__name__}: {error}"
    if found == "refused":
        (folder / kind.file).write_bytes(good)
        found = "refused" if _is_whole(kind, folder, wanted) else "lost"
    return found


def _copy(pristine: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(pristine, folder)


def _is_whole(kind: Kind, folder: Path, wanted: Any) -> bool:
    try:
        return same(kind.read(folder), wanted)
    except UserError:
        return False


def same(one: Any, other: Any) -> bool:
    """Whether two things that were read are equal, arrays element by element."""
    if isinstance(one, np.ndarray | torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
    if is_dataclass(one):
        return type(one) is type(other) and all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def _write(artifact: Any, folder: Path) -> None:
    artifact.write(folder / "file")


def _read(artifact: Any, folder: Path) -> Any:
    return read_artifact(folder / "file", artifact)


def _write_shard(folder: Path) -> None:
    rng = np.random.default_rng(0)
    records = [record(rng.integers(0, 256, (4, 4), dtype=np.uint8), n % 2, name=str(n)) for n in range(20)]
    source = Source(source="folder", resolution=4, channels=1)
    write_shard(folder / "x.shard", Part(collection_of(*records), source), {"resolution": 4, "channels": 1})


def _write_checkpoint(folder: Path) -> None:
    checkpoint = Checkpoint(folder / "c", "name")
    checkpoint.save(TENSORS, {"step": 3, "curve": [[0, 0.5, 3.0]]})
    checkpoint._lock.close()


def _read_checkpoint(folder: Path) -> Any:
    checkpoint = Checkpoint(folder / "c", "name")
    try:
        return checkpoint.load()
    finally:
        checkpoint._lock.close()


def _ledger(folder: Path) -> Ledger:
    return Ledger(folder / "state", "set", DECLARED)


def _open(folder: Path) -> Any:
    return _ledger(folder).open("finetune", FINGERPRINT, "a label", {"seed": 1})


def _begin(folder: Path) -> None:
    """Two charges, and a release of which three steps may have been taken."""
    with _ledger(folder).open("query", FINGERPRINT, "another") as release:
        release.reserve([noisy_votes(5, 10.0)])
    with _open(folder) as release:
        release.reserve(EVENTS)
        for step in range(3):
            release.reserve_step(step)


def _read_begun(folder: Path) -> Any:
    with _open(folder) as release:
        release.reserve(EVENTS, continuing=True)
        return release.finished, release.key.identity, release.reserved_steps


def _read_another(folder: Path) -> Any:
    """Another release of the same label, which is compared with this one."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told), _ledger(folder).open("finetune", "f" * 32, "a label", {"seed": 2}):
        return told.getvalue()


def _read_odometer(folder: Path) -> Any:
    return _ledger(folder).odometer()


def _finish(folder: Path) -> None:
    _begin(folder)
    with _open(folder) as release:
        release.reserve(EVENTS)
        release.finish({"w": ARTIFACTS["weights"], "c": ARTIFACTS["curve"]})


def _read_finished(folder: Path) -> Any:
    with _open(folder) as release:
        return [path.read_bytes() if (path := release.restore(name)) else None for name in ("w", "c")]
