"""CIFAR-10 and CIFAR-100, from the batches for Python as they were published: a folder of them, or the .tar.gz itself.

The batches are pickles. Each is held against its published checksum first, and then read by `unpickle`, which runs
nothing. One batch at a time is in memory (31 MB; the training images of CIFAR-100 are one of 155 MB); of an archive,
all batches as they are stored (186 MB) besides.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from privimage.data import batches, classes, unpickle
from privimage.data.forward import Capped, unzipped
from privimage.data.messages import reason, shown
from privimage.data.record import Collection, Record, Split
from privimage.errors import UserError
from privimage.settings import Source

MAX_FILE = 200_000_000  # bytes; the largest batch has 155 million
MAX_ARCHIVE = 400_000_000  # bytes, unpacked; both archives have 186 million


@dataclass(frozen=True)
class Published:
    """The files of one set: their names and MD5 sums, as its authors give them."""

    folder: str
    archive: str
    train: dict[str, str]
    test: dict[str, str]
    names: dict[str, str]
    names_key: str
    labels_key: str
    class_names: tuple[str, ...] = ()  # used where the file of the names is absent

    @property
    def sums(self) -> dict[str, str]:
        """All files."""
        return self.train | self.test | self.names


PUBLISHED = {
    "cifar10": Published(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        names={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
        names_key="label_names",
        labels_key="labels",
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": Published(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        names={"meta": "7973b15100ade9c7d40fb424638fde48"},
        names_key="fine_label_names",
        labels_key="fine_labels",
    ),
}


@dataclass(frozen=True)
class Files:
    """Where the files of a set lie: a folder, or an archive with the folder in it."""

    path: Path
    published: Published
    packed: bool

    def contents(self, wanted: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """The wanted files, in this order, each held against its checksum.

        Raises:
            UserError: if one is missing, or is not the published one.
        """
        unpacked = self._unpacked(wanted) if self.packed else {}
        for name in wanted:
            content = unpacked.pop(name) if self.packed else _content(self.path / name)
            got, expected = hashlib.md5(content, usedforsecurity=False).hexdigest(), self.published.sums[name]
            if got != expected:
                raise UserError(
                    f"{self.where(name)} has the MD5 sum {got}; expected {expected}, the published one: it is damaged "
                    "or altered, fetch it anew."
                )
            yield name, content
            del content

    def where(self, name: str) -> str:
        """What a message calls a file."""
        return f"{shown(self.path)}: {name}" if self.packed else shown(self.path / name)

    def present(self) -> set[str]:
        """The names of the published files that are there."""
        if self.packed:
            return set(self._unpacked(tuple(self.published.sums), keep=False))
        return {name for name in self.published.sums if (self.path / name).is_file()}

    def _unpacked(self, wanted: Sequence[str], keep: bool = True) -> dict[str, bytes]:
        """Files by exact name, in one pass over the archive: only the listed names, nothing is written to the disk."""
        inside = {f"{self.published.folder}/{name}": name for name in wanted}
        found: dict[str, bytes] = {}
        try:
            with unzipped(self.path) as file, tarfile.open(fileobj=Capped(file, MAX_ARCHIVE), mode="r|") as archive:
                for member in archive:
                    name = inside.get(member.name)
                    plain = member.isreg() and not member.issparse() and member.size <= MAX_FILE
                    if name is not None and name not in found and plain:
                        found[name] = archive.extractfile(member).read() if keep else b""
                    archive.members.clear()  # else it remembers every header
                    if len(found) == len(inside):
                        break
        except Exception as error:  # gzip, zlib and tarfile raise errors of many kinds; all mean a bad archive
            raise UserError(f"{shown(self.path)} cannot be unpacked ({reason(error)}); fetch it anew.") from error
        return found


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """The images in the published order, training images first; of CIFAR-100 with its fine labels.

    ``source.path`` (or ``data/<source>``) is the folder of the batches, the folder around it, or the archive.

    Raises:
        UserError: if a file is missing or is not the published one, or the classes are not the declared ones.
    """
    files = _files(Path(source.path or f"data/{source.source}"), PUBLISHED[source.source])
    names = _names(files)
    ordered = classes.in_declared_order(names, source, class_names, shown(files.path))
    for _ in _batches(files, len(names)):
        pass  # every file is as it should be before the first image is used
    order = [ordered.index(name) for name in names]  # published number -> label
    form = f"Python batches of {source.source.upper()}" + (" in a tar archive" if files.packed else "")
    return Collection(form, ordered, partial(_items, files, order))


@dataclass(frozen=True)
class Batch:
    """One batch: uint8 [N, 3 * S * S], and labels from 0, int64 [N]."""

    name: str
    split: Split
    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)


def _batches(files: Files, num_classes: int) -> Iterator[Batch]:
    published = files.published
    for name, content in files.contents([*published.train, *published.test]):
        where = files.where(name)
        batch = unpickle.load(io.BytesIO(content), where, len(content))
        del content
        images = batches.images(batch, where)
        labels = batches.labels(batch.get(published.labels_key), len(images), 0, num_classes - 1, where)
        yield Batch(name, "train" if name in published.train else "test", images, labels)
        del batch, images, labels


def _items(files: Files, order: Sequence[int]) -> Iterator[Record]:
    for batch in _batches(files, len(order)):
        side = batches.side(batch.images.shape, batch.images.dtype, batch.name)
        for index, label in enumerate(batch.labels):
            name, pixels = f"{batch.name}, image {index}", batch.images[index]
            yield Record(name, order[label], batch.split, partial(batches.square_rgb, pixels, side))
        batch = pixels = None  # before the next one is read


def _names(files: Files) -> tuple[str, ...]:
    present, published = files.present(), files.published
    missing = [name for name in published.sums if name not in present]
    if published.class_names and missing == list(published.names):
        return published.class_names
    if missing:
        raise UserError(
            f"{shown(files.path)} lacks {', '.join(missing)}; expected the files of {published.archive}, unpack it "
            "anew."
        )
    (names,) = published.names
    for _, content in files.contents([names]):
        found = unpickle.load(io.BytesIO(content), files.where(names), len(content))
    return batches.texts(found.get(published.names_key), files.where(names))


def _files(path: Path, published: Published) -> Files:
    if path.is_file():
        return Files(path, published, True)
    if not path.is_dir():
        raise UserError(
            f"{shown(path)} does not exist; `path` must name {published.archive}, or the folder it unpacks to."
        )
    for folder in (path, path / published.folder):
        if any((folder / name).is_file() for name in published.sums):
            return Files(folder, published, False)
    if (path / published.archive).is_file():
        return Files(path / published.archive, published, True)
    raise UserError(
        f"{shown(path)} holds neither {published.archive} nor its files ({', '.join(published.sums)}); copy them there."
    )


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return Capped(file, MAX_FILE).read()
    except OSError as error:
        raise UserError(f"{shown(path)} cannot be read ({error.strerror or error}); copy it anew.") from error
