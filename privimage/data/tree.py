"""A tree of files to read images from: a folder, or an archive that is read in place and never unpacked to disk.

Names are "/"-joined from the tree's root. Hidden files and what desktops leave behind are passed over. What must not be
read (links that lead nowhere, pipes, devices, unsafe members of archives) comes as a `Problem` where a name would be.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from privimage.data.files import unlisted
from privimage.data.messages import shown
from privimage.data.record import BadImage, Problem
from privimage.errors import UserError

MAX_FILE = 256_000_000  # bytes of one image file; larger ones are not read
READ = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0)  # a pipe would keep a reader waiting
MAX_DEPTH = 64  # folders in folders
CLUTTER = ("__macosx", "thumbs.db", "desktop.ini")
READABLE = {  # ending of an archive that is read in place -> what its first bytes say
    ".zip": "zip", ".tar": "tar", ".tar.gz": "gzip", ".tgz": "gzip", ".tar.bz2": "bzip2", ".tbz2": "bzip2",
    ".tar.xz": "xz", ".txz": "xz",
}  # fmt: skip
ARCHIVES = (*READABLE, ".rar", ".7z")
INSIDE = ("an archive inside", "unpack it")
ONLY_REGULAR = ("no regular file but a pipe, socket or device", "remove it")


class Tree(Protocol):
    """Files by name. ``where`` is the path, for messages; ``form`` says in words what it is."""

    where: str
    form: str

    def files(self) -> Iterator[str | Problem]:
        """Every visible regular file, always in the same order: sorted in folders, the archive's own in archives.

        Holds one folder's names at a time. The problems are those of the tree and of names that fit no folder.
        """

    def folders(self, name: str = "") -> list[str]:
        """The visible sub-folders of a folder, sorted; none if there is no such folder."""

    def has(self, name: str) -> bool:
        """Whether there is such a visible file."""

    def read(self, name: str) -> bytes:
        """A file's whole content. Raises: BadImage (also if it is larger than `MAX_FILE`), OSError."""

    def sub(self, name: str) -> Tree:
        """The same tree seen from one of its folders."""

    def called(self, name: str) -> str:
        """What messages call a file: ``cat/1.png`` or ``pets.zip: cat/1.png``, from the outermost root."""


def open_tree(path: Path) -> Tree:
    """The tree that lies there: a folder, or a zip or tar archive by the ending of its name.

    Raises:
        UserError: if there is nothing, or nothing that can be read as what it is named.
    """
    path, where = Path(path), shown(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            os.scandir(path).close()
            return Folder(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{where} cannot be read ({why}); `path` must name a folder or archive of images.") from None
    name = path.name.lower()
    if not stat.S_ISREG(mode) or not name.endswith(tuple(READABLE)):
        raise UserError(f"{where} is no folder; expected a folder, or an archive {', '.join(READABLE)}.")
    if name.endswith(".zip"):
        from privimage.data.zip_tree import open_zip as open_archive
    else:
        from privimage.data.tar_tree import open_tar as open_archive
    return open_archive(path)


class Folder:
    """A folder on the disk. Links in it are followed; one that leads back to a folder above it is a problem."""

    form = "folder"

    def __init__(self, root: Path, above: str = "") -> None:
        self.root, self.above, self.where = root, above, shown(root)

    def files(self) -> Iterator[str | Problem]:
        """Every visible regular file."""
        yield from self._walk("", ())

    def _walk(self, folder: str, way: tuple[tuple[int, int], ...]) -> Iterator[str | Problem]:
        """``folder`` is empty or ends with "/"; ``way`` identifies the folders above it."""
        try:
            here = os.stat(self.root / folder)
            names, odd = _listing(self.root / folder)
        except OSError as error:
            yield self._problem(folder, f"the folder cannot be listed ({error.strerror})", "mend its permissions")
            return
        identity = (here.st_dev, here.st_ino)
        if identity in way:
            yield self._problem(folder, "a link that leads back to a folder it lies in", "remove the link")
            return
        if len(way) > MAX_DEPTH:
            yield self._problem(folder, f"more than {MAX_DEPTH} folders deep", "move it up")
            return
        for name in names:
            path = folder + name
            kind = _kind(self.root / path) if name in odd else stat.S_IFREG
            if kind == stat.S_IFDIR:
                yield from self._walk(f"{path}/", (*way, identity))
            elif kind != stat.S_IFREG:
                yield self._problem(path, *(kind if isinstance(kind, tuple) else ONLY_REGULAR))
            elif is_archive(name):
                yield self._problem(path, *INSIDE)
            else:
                yield path

    def folders(self, name: str = "") -> list[str]:
        """The visible sub-folders of a folder, sorted.

        Raises:
            UserError: if the folder may not be read.
        """
        try:
            with os.scandir(self.root / name) as entries:
                return sorted(entry.name for entry in entries if not is_hidden(entry.name) and leads_to_folder(entry))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise unlisted(self.root / name, error) from None

    def has(self, name: str) -> bool:
        """Whether there is such a visible file."""
        parts = name.split("/")
        if "" in parts or "\0" in name or any(map(is_hidden, parts)):
            return False
        return os.path.isfile(self.root / name)

    def read(self, name: str) -> bytes:
        """A file's whole content; never waits for a pipe that took the file's place."""
        handle = os.open(os.path.join(self.root, name), READ)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise BadImage(*ONLY_REGULAR)
            if found.st_size > MAX_FILE:
                raise BadImage(*too_large(found.st_size))
            return os.read(handle, found.st_size)
        finally:
            os.close(handle)

    def sub(self, name: str) -> Folder:
        """The same tree seen from one of its folders."""
        return Folder(self.root / name, f"{self.above}{name}/")

    def called(self, name: str) -> str:
        """What messages call a file."""
        return self.above + name

    def _problem(self, name: str, what: str, fix: str) -> Problem:
        return Problem(self.called(name), what, fix)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over."""
    return name.startswith(".") or name.lower() in CLUTTER


def is_archive(name: str) -> bool:
    """Whether a file of this name is an archive, which would have to be unpacked first."""
    return name.lower().endswith(ARCHIVES)


def too_large(size: int) -> tuple[str, str]:
    """What is wrong with a file of so many bytes, and how to mend it."""
    return f"{size} bytes; expected an image of at most {MAX_FILE}", "make it smaller or remove it"


def _listing(folder: Path) -> tuple[list[str], set[str]]:
    """The visible names, sorted, and those of them that are not plainly files."""
    names, odd = [], set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_hidden(entry.name):
                names.append(entry.name)
                if not entry.is_file(follow_symlinks=False):
                    odd.add(entry.name)
    return sorted(names), odd


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; unlike ``is_dir``, takes links to themselves and to what is locked."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _kind(path: Path) -> int | tuple[str, str]:
    """What lies there in the end, or what is wrong with it and how to mend it."""
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        return "a link that leads nowhere", "mend or remove the link"
    except OSError as error:
        return f"cannot be reached ({error.strerror})", "mend its permissions, or the link"
