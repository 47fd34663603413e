"""The files that stages hand to each other: one frozen dataclass a file, each with ``read`` and ``write``.

Writing goes to a temporary name in the same folder, is flushed, and renamed: a file is whole or absent. Reading
checks format, keys, shapes and a checksum (a flipped bit would otherwise load in silence). What stands under a
folder named ``internal`` is readable by its owner alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from privimage import __version__
from privimage.errors import UserError
from privimage.privacy.event import Event

SYNTHETIC = "synthetic"  # the source of images that a private model drew
STRETCH = 4096  # images that are written at once


class ArtifactError(UserError):
    """A file is absent, damaged, or not what it should be."""


@dataclass(frozen=True)
class Provenance:
    """Which code and settings made an artifact, and from which public or released files (by SHA-256)."""

    stage: str
    stage_version: int
    settings: dict[str, Any] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    privimage: str = __version__


@dataclass(frozen=True)
class ImageSet:
    """Labelled images (HDF5, contiguous). ``<file>.sha256`` beside it holds the checksum.

    Shapes: ``images`` uint8 [N, H, W, C]; ``labels`` int64 [N], indices into ``class_names``.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        good = images.dtype == np.uint8 and images.ndim == 4 and labels.dtype == np.int64
        good = good and labels.shape == images.shape[:1] and images.shape[1] == images.shape[2]
        if not good or images.shape[3] not in (1, 3):
            raise ArtifactError(
                f"an image set got images {images.dtype}{list(images.shape)} and labels {labels.dtype}"
                f"{list(labels.shape)}; expected uint8 [N, S, S, 1 or 3] and int64 [N]."
            )
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(self.class_names)):
            raise ArtifactError(f"an image set has labels outside its {len(self.class_names)} classes.")

    @property
    def is_synthetic(self) -> bool:
        """Whether a private model drew the images; else they are real ones."""
        return self.source == SYNTHETIC

    @property
    def counts(self) -> list[int]:
        """Images of each class."""
        return np.bincount(self.labels, minlength=len(self.class_names)).tolist()

    @property
    def identity(self) -> str:
        """A hash of what the set holds, whichever version wrote it. Of sensitive images: for the state folder alone."""
        digest = hashlib.sha256(f"{self.images.shape}{self.class_names}".encode())
        digest.update(np.ascontiguousarray(self.images))
        digest.update(np.ascontiguousarray(self.labels))
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        """The file and its checksum exist."""
        starts = range(0, len(self.labels), STRETCH)
        self.write_stretches(path, ((start, self.images[start : start + STRETCH]) for start in starts))

    def write_stretches(self, path: Path, stretches: Iterable[tuple[int, np.ndarray]]) -> None:
        """The file and its checksum exist, its images those of ``stretches``: (first index, uint8 [n, H, W, C]).

        All that ``images`` gives is the shape, so that a set may be written that does not fit into memory.
        """
        import h5py

        def fill(temporary: Path) -> None:
            reserve(temporary, self.images.size + 2 * self.labels.nbytes + 1_000_000)  # h5py is bad at a full disk
            with h5py.File(temporary, "w") as file:
                images = file.create_dataset("images", self.images.shape, np.uint8)
                for start, pixels in stretches:
                    images[start : start + len(pixels)] = pixels
                file.create_dataset("labels", data=self.labels)
                made_by = asdict(self.provenance) if self.provenance else None
                meta = {"class_names": self.class_names, "source": self.source, "counts": self.counts}
                meta["provenance"] = made_by
                file.attrs["metadata"] = json.dumps(meta)

        write_file(path, fill)
        write_text(Path(f"{path}.sha256"), f"{sha256(path)}  {path.name}\n")

    @classmethod
    def read(cls, path: Path) -> ImageSet:
        """The images, memory-mapped.

        Raises:
            ArtifactError: if the file is absent, damaged or of another kind.
        """
        import h5py

        from privimage.hdf5_arrays import array

        check_sha256(path)
        with reading(path), h5py.File(path, "r") as file:
            meta = json.loads(file.attrs["metadata"])
            images, labels = array(file, "images"), array(file, "labels")[:]
            shape, offset, empty = images.shape, images.id.get_offset(), images.size == 0
        if empty:
            pixels = np.zeros(shape, np.uint8)
        else:
            pixels = np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=shape)  # [N, H, W, C]
        made_by = Provenance(**meta["provenance"]) if meta["provenance"] else None
        return cls(pixels, labels, tuple(meta["class_names"]), meta["source"], made_by)


@dataclass(frozen=True)
class Weights:
    """Weights of a network (safetensors) with what rebuilds it.

    ``tensors`` maps ``<group>.<parameter>`` to arrays; the group is ``raw`` or ``ema``. ``kind`` is
    ``classifier`` or a generator's; ``network`` holds the settings that rebuild the network; ``facts`` what else
    a reader may want (class names, validation accuracy).
    """

    kind: str
    tensors: dict[str, Any]
    network: dict[str, Any]
    facts: dict[str, Any]
    provenance: Provenance

    @property
    def identity(self) -> str:
        """A hash of the network and its weights, whichever version wrote them."""
        names = self.facts.get("class_names")
        return _seal({"tensors": tensors_sha256(self.tensors), "network": self.network, "class_names": names})

    def group(self, name: str) -> dict[str, Any]:
        """The tensors of one group, without its prefix."""
        return {k.removeprefix(f"{name}."): v for k, v in self.tensors.items() if k.startswith(f"{name}.")}

    def write(self, path: Path) -> None:
        """The file exists; its metadata hold a checksum of the tensors and of themselves."""
        from safetensors.torch import save_file

        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in self.tensors.items()}  # groups may share memory
        body = {"kind": self.kind, "network": self.network, "facts": self.facts, "provenance": asdict(self.provenance)}
        seal = _seal({**body, "tensors": tensors_sha256(tensors)})
        metadata = {"privimage": json.dumps({**body, "sha256": seal}, sort_keys=True)}
        write_file(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))

    @classmethod
    def read(cls, path: Path, *kinds: str) -> Weights:
        """The weights, of one of the ``kinds``.

        Raises:
            ArtifactError: if the file is absent, damaged or of another kind.
        """
        from safetensors import safe_open

        with reading(path), safe_open(path, framework="pt") as file:
            meta = json.loads(file.metadata()["privimage"])
            seal = meta.pop("sha256")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            weights = cls(tensors=tensors, **{**meta, "provenance": Provenance(**meta["provenance"])})
        if seal != _seal({**meta, "tensors": tensors_sha256(tensors)}):
            raise ArtifactError(f"{path} is damaged: its content does not match its checksum; delete it and rerun.")
        if weights.kind not in kinds:
            raise ArtifactError(f"{path} holds weights of kind `{weights.kind}`; expected `{'` or `'.join(kinds)}`.")
        return weights


@dataclass(frozen=True)
class JsonArtifact:
    """A JSON file whose keys are the dataclass's fields, with a checksum over them."""

    def write(self, path: Path) -> None:
        """The file exists."""
        body = asdict(self)
        write_text(path, json.dumps({**body, "sha256": _seal(body)}, indent=2, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Any:
        """The artifact.

        Raises:
            ArtifactError: if the file is absent, damaged or of another kind.
        """
        with reading(path):
            body = json.loads(Path(path).read_text(encoding="utf-8"))
            seal = body.pop("sha256")
            unsealed = cls._from_json(dict(body))
        if seal != _seal(body):
            raise ArtifactError(f"{path} is damaged: its content does not match its checksum; delete it and rerun.")
        return unsealed

    @classmethod
    def _from_json(cls, body: dict[str, Any]) -> Any:
        return cls(**{**body, "provenance": Provenance(**body["provenance"])})


@dataclass(frozen=True)
class Contents(JsonArtifact):
    """What a source held: images of each class, sizes, ways of storing, copies, and what was wrong with which."""

    form: str
    train: dict[str, int]
    test: dict[str, int]
    widths: list[int]
    heights: list[int]
    stored: dict[str, int]
    problems: list[str]
    warnings: list[str]
    provenance: Provenance


@dataclass(frozen=True)
class QueryResult(JsonArtifact):
    """The noisy histogram of one query and what it cost.

    Shapes: ``histogram`` float [sensitive classes, public classes].
    """

    histogram: list[list[float]]
    class_names: list[str]
    public_class_names: list[str]
    top_k: int
    sensitivity: float
    event: Event
    private: bool
    provenance: Provenance

    @property
    def identity(self) -> str:
        """A hash of the histogram and its cost, whichever version wrote them."""
        return _seal({**asdict(self), "provenance": None})

    @classmethod
    def _from_json(cls, body: dict[str, Any]) -> QueryResult:
        return super()._from_json({**body, "event": Event(**body["event"])})


@dataclass(frozen=True)
class Subset(JsonArtifact):
    """Public classes for each sensitive class, disjoint; empty lists where the policy gives none.

    ``policy`` ``whole`` means that the whole public set is used under its own labels.
    """

    policy: str
    classes: dict[str, list[str]]
    provenance: Provenance


@dataclass(frozen=True)
class EpochChoice(JsonArtifact):
    """Which epoch of each classifier counts, from 0, chosen with noise; it stays in the state folder."""

    epochs: dict[str, int]
    provenance: Provenance


@dataclass(frozen=True)
class Accountant:
    """One accountant's epsilon for the same events."""

    name: str
    version: str
    value: float


@dataclass(frozen=True)
class PrivacyStatement(JsonArtifact):
    """What a release costs if it is released alone, from which mechanisms, and what that does not cover."""

    epsilon: float
    delta: float
    target_epsilon: float
    neighboring_relation: str
    events: list[Event]
    epsilon_replace_one: float
    images_per_unit: int
    epsilon_per_unit: float
    num_images: int
    accountants: list[Accountant]
    private: bool
    not_covered: list[str]
    provenance: Provenance

    @classmethod
    def _from_json(cls, body: dict[str, Any]) -> PrivacyStatement:
        events = [Event(**event) for event in body["events"]]
        accountants = [Accountant(**accountant) for accountant in body["accountants"]]
        return super()._from_json({**body, "events": events, "accountants": accountants})


@dataclass(frozen=True)
class Stated:
    """One release of a sensitive set, by its own statement."""

    method: str
    seed: int
    statement: PrivacyStatement


@dataclass(frozen=True)
class Statements(JsonArtifact):
    """The statements of all that a run releases of one sensitive set."""

    releases: list[Stated]
    provenance: Provenance

    @classmethod
    def _from_json(cls, body: dict[str, Any]) -> Statements:
        releases = [
            Stated(row["method"], row["seed"], PrivacyStatement._from_json(row["statement"]))
            for row in body["releases"]
        ]
        return super()._from_json({**body, "releases": releases})


def write_text(path: Path, text: str) -> None:
    """The file holds the text, whole."""
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """The file holds the bytes, whole."""
    write_file(path, lambda temporary: temporary.write_bytes(content))


def write_private(path: Path, content: bytes) -> None:
    """The file holds the bytes, whole, for its owner alone, wherever it stands."""
    write_file(path, lambda temporary: temporary.write_bytes(content), private=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path) -> None:
    """Return if the file matches the checksum beside it.

    Raises:
        ArtifactError: if it does not, or either is absent.
    """
    beside = Path(f"{path}.sha256")
    with reading(beside):
        expected = beside.read_text(encoding="utf-8").split()[0]
    if sha256(path) != expected:
        raise ArtifactError(f"{path} is damaged: it does not match {beside.name}; delete both and rerun.")


def tensors_sha256(tensors: Mapping[str, Any]) -> str:
    """One checksum over named tensors: names, shapes, types and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{list(tensor.shape)};".encode())
        digest.update(memoryview(tensor.reshape(-1).numpy()).cast("B") if tensor.numel() else b"")
    return digest.hexdigest()


def make_folder(path: Path) -> None:
    """The folder exists; if it is or lies under one named ``internal``, only its owner may enter that one."""
    for folder in reversed((path, *path.parents)):
        if not folder.exists():
            folder.mkdir(mode=0o700 if folder.name == "internal" else 0o777, exist_ok=True)
        elif folder.name == "internal" and folder.stat().st_uid == os.getuid():
            folder.chmod(0o700)  # the workflow made it, for all to enter


def write_file(path: Path, fill: Callable[[Path], Any], *, private: bool = False, shown: Path | None = None) -> None:
    """The file is what ``fill`` wrote under the temporary name that it was given; if that fails, nothing is there.

    Messages name ``shown``, where the path itself must not be told.
    """
    path, temporary = Path(path), None
    try:
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        fill(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o600 if private or "internal" in path.absolute().parts else 0o644)
        temporary.replace(path)
        sync_folder(path.parent)
    except UserError:
        raise
    except Exception as error:  # h5py tells a full disk by a RuntimeError, safetensors by one of its own
        why = _system_error(error)
        if why is None:
            raise
        where = shown or path
        raise ArtifactError(f"{where} cannot be written ({why}); make room or choose another folder.") from None
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def reserve(path: Path, num_bytes: int) -> None:
    """There is room for so many bytes in the file.

    Raises:
        OSError: if there is not.
    """
    with open(path, "rb+") as file:
        os.posix_fallocate(file.fileno(), 0, num_bytes)


def _system_error(error: BaseException | None) -> str | None:
    """What the system said, where it was the system that failed."""
    while error is not None:
        if isinstance(error, OSError):
            return os.strerror(error.errno) if error.errno else str(error)
        if told := re.search(r"os error (\d+)", str(error)):  # of libraries written in Rust
            return os.strerror(int(told[1]))
        error = error.__context__
    return None


def sync_folder(folder: Path) -> None:
    """What was created, renamed or deleted in the folder survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _seal(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a bad file raises into one sentence about it."""
    try:
        yield
    except ArtifactError:
        raise
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist; run the stage that writes it.") from error
    except Exception as error:
        raise ArtifactError(f"{path} cannot be read as what it should be ({type(error).__name__}: {error}).") from error
