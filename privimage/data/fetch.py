"""Fetching a published file: resumed where it stopped, checked, and in place only when it is whole.

What has arrived lies in ``<name>.part``; where it came from stands in ``<name>.part.json``, so that what a server
changed meanwhile is not glued to it. The file gets its name only after its checksum was found right.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from privimage.artifacts import make_folder, sync_folder, write_text
from privimage.data.messages import shown
from privimage.data.placed import difference, placed
from privimage.data.published import File
from privimage.data.record import printable
from privimage.data.web import OUT_OF_RANGE, REST, Answer, Trouble, ask
from privimage.errors import UserError
from privimage.progress import progress

TRIES = 3  # in a row without any gain, at each address
PAUSE = 2.0  # seconds before the second try; twice as long before the third
MIB = 2**20  # bytes
LOCK = ".download.lock"


class Unreachable(UserError):
    """No address gave the file, and none gave something else in its place."""


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The folder exists, and no other download works in it meanwhile.

    Raises:
        UserError: if another does, or the folder cannot be written.
    """
    with _writing(folder):
        make_folder(folder)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another download into {shown(folder)} is running; wait until it is done, or end it, and start again."
            ) from None
        except OSError:  # a file system without locks; the checksum still finds two writers out
            pass
        yield
    finally:
        os.close(handle)


def obtain(file: File, folder: Path) -> list[Path]:
    """What serves as the file, in place and checked; the network is used only for what is not there.

    Raises:
        UserError: if something else lies in its place, or it cannot be had.
    """
    found = placed(file, folder)
    if not found:
        fetch(file, folder)
        found = [folder / file.name]
    return found + unpack(found[0], file.unpack) if found[0].name == file.name else found


def fetch(file: File, folder: Path) -> None:
    """The file lies in the folder, whole and with its published checksum.

    Raises:
        Unreachable: if no address gives it; what has arrived is kept for the next start.
        UserError: if what an address gives is wrong; it is not kept.
    """
    part, error = folder / f"{file.name}.part", Unreachable
    whys: dict[str, list[str]] = {}  # reason -> addresses
    for url in file.urls:
        trouble = _fetch_from(url, file, part)
        if not trouble:
            with _writing(part):
                part.replace(folder / file.name)
                _note(part).unlink(missing_ok=True)
                sync_folder(folder)
            return
        whys.setdefault(trouble.why, []).append(url)
        error = UserError if trouble.wrong else error
    kept = f", which goes on from the {_size(part):,} bytes that have arrived," if _size(part) else ""
    told = "; ".join(f"{', '.join(urls)}: {why}" for why, urls in whys.items())
    raise error(
        f"{file.name} could not be fetched ({told}); start again later{kept} or fetch it by hand from "
        f"{file.urls[0]} and put it at {shown(folder / file.name)}."
    )


def _fetch_from(url: str, file: File, part: Path) -> Trouble | None:
    """Try one address, again while there is hope; why it gave no file, or nothing if it did."""
    print(f"fetching {url}", file=sys.stderr, flush=True)
    furthest, failed = _size(part), 0
    while True:
        try:
            _try(url, file, part)
            return None
        except Trouble as trouble:
            failed = 1 if _size(part) > furthest else failed + 1
            furthest = max(furthest, _size(part))
            if not trouble.again or failed >= TRIES:
                return trouble
            print(f"{url}: {trouble.why}; trying again", file=sys.stderr, flush=True)
        time.sleep(PAUSE * failed)


def _try(url: str, file: File, part: Path) -> None:
    """The part is the whole published file, or `Trouble` says why not and whether to go on with what is left of it."""
    had = _size(part)
    if file.size is not None and had > file.size:
        _forget(part)
        had = 0
    resumed = True
    if not had or had != file.size:
        with (answer := ask(url, had, _version_of(part, url))).response:
            resumed = _receive(answer, url, file, part)
    wrong = difference(file, part)
    if wrong:
        _forget(part)
        # What was there before may be to blame: then a try from the beginning may go better.
        raise Trouble(f"what arrived {wrong}, and was deleted", again=resumed, wrong=True)


def _receive(answer: Answer, url: str, file: File, part: Path) -> bool:
    """Write what comes; true if it goes on from what was there before."""
    had, known = _size(part), _version_of(part, url)
    if answer.status == OUT_OF_RANGE and had and answer.total == had:
        return True  # it was whole already
    changed = known and answer.version and answer.version != known
    if answer.status == OUT_OF_RANGE or (answer.status == REST and (not had or answer.start != had or changed)):
        _forget(part)
        raise Trouble("it sends another range, or of another file, than was asked for", again=True)
    if None not in (answer.total, file.size) and answer.total != file.size:
        raise Trouble(
            f"it offers {answer.total:,} bytes, and the published file has {file.size:,}", again=False, wrong=True
        )
    if answer.status != REST:
        _forget(part)
        with _writing(part):
            write_text(_note(part), json.dumps({"url": url, "version": answer.version}))
    total = file.size if answer.total is None else answer.total
    for _ in _told(_write(answer, part, total), file.name, total, _size(part)):
        pass
    return answer.status == REST


def _write(answer: Answer, part: Path, total: int | None) -> Iterator[None]:
    """Append the answer to the part, with a step for each MiB of the file, begun or whole, that is filled."""
    with _writing(part), open(part, "ab") as out:
        size = out.tell()
        for piece in answer.pieces():
            if total is not None and size + len(piece) > total:
                raise Trouble(f"it sends more than the {total:,} bytes of the file", again=False, wrong=True)
            out.write(piece)
            steps = (size + len(piece)) // MIB - size // MIB
            size += len(piece)
            for _ in range(steps):
                yield
        out.flush()
        os.fsync(out.fileno())
        if size % MIB:
            yield
    if total is not None and size < total:
        raise Trouble(f"the connection ended after {size:,} of {total:,} bytes", again=True)


def _told(steps: Iterator[None], name: str, total: int | None, start: int) -> Iterator[None]:
    """The steps, while standard error says how far they are."""
    return progress(steps, f"{name} (MiB)", math.ceil(total / MIB) if total else None, start // MIB)


def unpack(archive: Path, members: tuple[str, ...]) -> list[Path]:
    """The members of a zip archive, beside it; those that are there already are compared with it.

    Raises:
        UserError: if it cannot be unpacked, or a file beside it is not what it holds.
    """
    if not members:
        return []
    try:
        with zipfile.ZipFile(archive) as opened:
            return [_unpack_one(opened, member, archive.parent / Path(member).name) for member in members]
    except (KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{shown(archive)} cannot be unpacked ({printable(str(error))}); delete it and start again."
        ) from error


def _unpack_one(archive: zipfile.ZipFile, member: str, path: Path) -> Path:
    info = archive.getinfo(member)
    if os.path.lexists(path):
        if not path.is_file() or (path.stat().st_size, _crc(path)) != (info.file_size, info.CRC):
            held = shown(archive.filename)
            raise UserError(f"{shown(path)} is not what {held} holds; delete it and start again.")
        return path
    part = path.with_name(f"{path.name}.part")
    with _writing(path):
        with archive.open(member) as source, open(part, "wb") as out:
            while piece := source.read(MIB):
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
        sync_folder(path.parent)
    return path


def _crc(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while piece := file.read(MIB):
            crc = zlib.crc32(piece, crc)
    return crc


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """One sentence for whatever the disk refuses. The network's errors are `Trouble` before they come here."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{shown(path)} cannot be written ({error.strerror or error}); make room on the disk or mend the "
            "folder's permissions and start again: what has arrived is kept."
        ) from error


def _version_of(part: Path, url: str) -> str:
    """The version that a part was fetched of, if it was from this address."""
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
        version = note["version"] if note["url"] == url else ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return version if isinstance(version, str) and version.isascii() and version.isprintable() else ""


def _forget(part: Path) -> None:
    with _writing(part):
        part.unlink(missing_ok=True)
        _note(part).unlink(missing_ok=True)


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0
