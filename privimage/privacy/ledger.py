"""What was drawn from a set of sensitive images, written down before it is drawn, and kept so that it is drawn once.

    state_dir/<dataset>/odometer.jsonl                    every charge ever made, one JSON object a line
    state_dir/<dataset>/<stage>/<fingerprint>/            one release; ``<fingerprint>-not-private`` if so
        key  reserved_steps  <checkpoints>                while it is drawn
        finished.json  <artifacts>                        afterwards
        begun.json  charged.json                          always: what the draw depends on; the seals of its charges

Folders are 0700 and files 0600. The fingerprint names the sensitive data exactly, so it stays in here: no released
file and no message holds it.

A release goes through these states, each on the disk (flushed) before the next begins; a crash leaves it in one:

    new        nothing.                              Next time: as now.
    keyed      ``key`` exists, no charge under it.   Next time: the key is kept, and charged when reserved.
    reserved   the odometer holds a charge that      Next time: replayed with the same key, which gives the same draws
               names this key; data may have been    and costs nothing.
               used, up to ``reserved_steps`` steps.
    finished   artifacts and their checksums exist;  Next time: restored, nothing is drawn.
               then the key is destroyed.

So: key before reservation, reservation before data. Formal guarantee: at every moment the odometer's charges cover
every draw made so far. If a key is lost (its folder deleted), the next draw has a new key and is charged anew, since
two draws with different noise are two releases.

Each file here is sealed by a checksum, so that a flipped bit stops the ledger instead of making a charge smaller or a
step count as not taken. What is not noticed: a folder put back as it was before, as from a backup; and a whole state
folder that is gone, or another one used by a second checkout, whose charges then nobody adds up.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

from privimage.artifacts import sha256, sync_folder, write_bytes, write_file
from privimage.config import canonical
from privimage.errors import UserError
from privimage.privacy import odometer
from privimage.privacy.accounting import epsilon
from privimage.privacy.event import Event
from privimage.privacy.odometer import Record
from privimage.privacy.randomness import SecretKey
from privimage.settings import NAME, Declared


class Writable(Protocol):
    """Anything that can be written to a file, whole: every artifact."""

    def write(self, path: Path) -> None:
        """The file exists."""


class Ledger:
    """The odometer and the releases of one set of sensitive images; ``budget`` bounds what it may cost in all."""

    def __init__(self, state_dir: Path, dataset: str, declared: Declared, budget: float | None = None) -> None:
        if not re.fullmatch(NAME, dataset):
            raise UserError(f"the data set is named {dataset!r}; use letters, digits, '_', '.', '-'.")
        self.dataset, self.declared, self.budget = dataset, declared, budget
        self.folder = Path(state_dir) / dataset
        try:
            if not Path(state_dir).exists():
                _make_private(Path(state_dir))
            _make_private(self.folder)
        except OSError as error:
            raise UserError(f"the state folder {state_dir} cannot be used ({error}); give one that you own.") from error

    def open(self, stage: str, fingerprint: str, label: str, facts: Mapping[str, Any] | None = None) -> Release:
        """The release of that stage and fingerprint, to be entered with ``with``; ``label`` names it to people.

        ``facts`` are what the fingerprint is of. Where another release has that label, it is said which of them differ.
        """
        return Release(self, stage, fingerprint, label, facts or {})

    def has_begun(self, stage: str, fingerprint: str) -> bool:
        """Whether the release of that stage and fingerprint is finished or under way."""
        return self.folder_of(stage, fingerprint).exists()

    def folder_of(self, stage: str, fingerprint: str) -> Path:
        """Where that release is kept; one whose noise is reproducible lies apart."""
        return self.folder / stage / (f"{fingerprint}-not-private" if self.declared.reproducible_noise else fingerprint)

    def odometer(self) -> list[Record]:
        """Every charge, oldest first: time, dataset, stage, label, fingerprint, attempt, key, private, events.

        Raises:
            UserError: if it is damaged, or lacks a charge that a release has the seal of.
        """
        known = self._known_seals()  # before the file is read: another process may append meanwhile
        path = self._odometer_path
        return self._records(path.read_bytes() if path.exists() else b"", known)[0]

    def total_epsilon(self) -> float:
        """Epsilon at the declared delta of everything charged so far, under add/remove-one.

        Infinite as soon as one draw is not private: whoever knows its noise can subtract it.
        """
        return self._cost(self.odometer())

    def charge(self, record: Record) -> str:
        """The record of a new charge is on the disk; returned is its seal.

        Raises:
            UserError: if the budget would be exceeded (nothing is charged), or the file cannot be written.
        """
        try:
            with self._locked_odometer() as file:
                known, content = self._known_seals(), file.read()
                records, whole = self._records(content, known)
                self._check_budget(records, record)
                file.truncate(whole)  # drop a torn line
                start = b"\n" if whole and content[whole - 1 : whole] != b"\n" else b""
                line, seal = odometer.sealed_line(records, record)
                file.write(start + line)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self.folder)
            return seal
        except OSError as error:
            raise UserError(f"{self._odometer_path} cannot be written ({error}); nothing was drawn.") from error

    @property
    def _odometer_path(self) -> Path:
        return self.folder / "odometer.jsonl"

    @contextmanager
    def _locked_odometer(self) -> Iterator[IO[bytes]]:
        """The odometer, open at its start; budget and append see the same lines, whoever else is waiting."""
        handle = os.open(self._odometer_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with open(handle, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            yield file

    def _records(self, content: bytes, known: set[str]) -> tuple[list[Record], int]:
        """As ``odometer.parse``; refused if a seal of ``known`` is missing."""
        records, whole = odometer.parse(content, self._odometer_path)
        if missing := known - {record["seal"] for record in records}:
            raise UserError(
                f"{self._odometer_path} lacks {len(missing)} charges that releases beside it were drawn under; restore "
                "it from a backup. Without it nobody knows what was spent."
            )
        return records, whole

    def _known_seals(self) -> set[str]:
        """The seals of all charges that the releases in the state folder were drawn under."""
        return {seal for path in self.folder.glob("*/*/charged.json") for seal in _read_sealed(path)["seals"]}

    def _cost(self, records: Sequence[Record]) -> float:
        if not all(record["private"] for record in records):
            return math.inf
        return epsilon([Event(**event) for record in records for event in record["events"]], self.declared.delta)

    def _check_budget(self, records: Sequence[Record], new: Record) -> None:
        if self.budget is None:
            return
        before, after = self._cost(records), self._cost([*records, new])
        if after > self.budget:
            known = " (reproducible noise has no finite epsilon)" if math.isinf(after) else ""
            raise UserError(
                f"`{new['label']}` would bring what was drawn from `{self.dataset}` from epsilon {before:.4g} to "
                f"{after:.4g}{known} at delta {self.declared.delta:g}, above its budget of {self.budget:g}; nothing "
                f"was drawn. Raise `datasets.{self.dataset}.budget` or ask for less."
            )


class Release:
    """One release, locked for this process as long as it lives. See the module's text for its states.

    Raises:
        UserError: when entered, if another process has it open.
    """

    def __init__(self, ledger: Ledger, stage: str, fingerprint: str, label: str, facts: Mapping[str, Any]) -> None:
        self._facts = dict(facts)
        self._ledger, self._private = ledger, not ledger.declared.reproducible_noise
        self._stage, self.fingerprint, self._label = stage, fingerprint, label
        self.folder = ledger.folder_of(stage, fingerprint)
        self.replayable = False  # the key was already there
        self._lock: IO[bytes] | None = None
        self._key: SecretKey | None = None
        self._num_steps: int | None = None

    def __enter__(self) -> Release:
        try:
            _make_private(self.folder.parent)
            _make_private(self.folder)
            handle = os.open(self.folder / "release.lock", os.O_RDWR | os.O_CREAT, 0o600)
            self._lock = open(handle, "r+b")  # noqa: SIM115 - held until the process ends or leaves
            # A finished release is held by who restores it, for a moment; one that is drawn, for hours.
            fcntl.flock(self._lock, fcntl.LOCK_EX | (0 if self.finished else fcntl.LOCK_NB))
            self._load()
        except BlockingIOError:
            self.__exit__()
            raise UserError(f"`{self._label}` is being drawn by another process; wait for it or stop it.") from None
        except OSError as error:
            self.__exit__()
            raise UserError(
                f"the state folder {self.folder.parent} cannot be written ({error.strerror}); make room or mend its "
                "permissions. Nothing was drawn."
            ) from None
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            self._lock.close()

    @property
    def key(self) -> SecretKey:
        """The secret key; it is on the disk. Draw from it only after ``reserve``."""
        if self._key is None:
            raise ValueError("a finished release has no key; restore its artifacts")
        return self._key

    @property
    def finished(self) -> bool:
        """Whether everything was drawn: there are artifacts to restore, and no key."""
        return self._finished_path.exists()

    def restore(self, name: str) -> Path | None:
        """The artifact of that name if the release is finished, else None.

        Raises:
            UserError: if it is finished and the artifact is gone or damaged.
        """
        if not self.finished:
            return None
        path, known = self.folder / name, self._artifacts()
        if name not in known or not path.exists() or sha256(path) != known[name]:
            raise UserError(
                f"`{self._label}` is finished, but its {name} in {self.folder.parent} is gone or damaged. Restore it "
                "from a backup, or delete its folder (the odometer names it) to draw anew, which is charged again."
            )
        return path

    def copy_out(self, paths: Mapping[str, Path]) -> None:
        """The artifacts of a finished release stand at the given paths, byte for byte.

        Raises:
            UserError: if one is gone or damaged.
        """
        for name, path in paths.items():
            write_bytes(path, self.restore(name).read_bytes())

    def reserve(self, events: Sequence[Event], continuing: bool = False) -> None:
        """The events are charged, on the disk; from here on sensitive data may be used.

        Nothing new is charged if these events were charged under the same key (a replay), or, when ``continuing``,
        under any key of this release: then only steps from ``reserved_steps`` on may be executed.

        Raises:
            UserError: if the budget would be exceeded, or the key was reserved for other events.
        """
        wanted = [event.as_json() for event in events]
        mine = [record for record in self._ledger.odometer() if self._is_mine(record)]
        same_key = [record for record in mine if record["key"] == self.key.identity]
        if any(record["events"] != wanted for record in same_key):
            raise UserError(
                f"`{self._label}` was begun with other noise or steps; one key serves one mechanism. Delete its folder "
                f"in {self.folder.parent} (the odometer names it) to draw anew, which is charged again."
            )
        if not (same_key or (continuing and any(record["events"] == wanted for record in mine))):
            self._write_reserved_steps(0)
            mine.append({"seal": self._ledger.charge(self._record(wanted, attempt=len(mine) + 1))})
        _write_sealed(self.folder / "charged.json", {"seals": [record["seal"] for record in mine]})
        self._num_steps = sum(event.num_steps for event in events)

    @property
    def charged(self) -> list[Event]:
        """The events of this release, as the odometer has them: those of its last charge.

        Raises:
            UserError: if the odometer has none, or cannot be read.
        """
        mine = [record for record in self._ledger.odometer() if self._is_mine(record)]
        if not mine:
            raise UserError(
                f"`{self._label}` was drawn, and {self._ledger.folder} has no charge for it; restore the odometer from "
                "a backup. Without it nothing can be said of its cost."
            )
        return [Event(**event) for event in mine[-1]["events"]]

    @property
    def reserved_steps(self) -> int:
        """How many steps may have been executed: step i, counted from 0, needs at least i + 1."""
        path = self.folder / "reserved_steps"
        was_there = (self.folder / "charged.json").exists() and not self.finished
        return int(_read_sealed(path)["number"]) if path.exists() or was_there else 0

    def reserve_step(self, step: int) -> None:
        """It is on the disk that ``step`` (counted from 0) may be executed; a step already reserved stays so."""
        if self._num_steps is None or not 0 <= step < self._num_steps:
            raise ValueError(f"step {step} of a release with {self._num_steps} reserved steps")
        if step >= self.reserved_steps:
            self._write_reserved_steps(step + 1)

    def finish(self, artifacts: Mapping[str, Writable]) -> None:
        """The artifacts are kept under their names, the key and everything else in the folder are gone."""
        if self._num_steps is None:
            raise ValueError("a release finished before anything was reserved; call reserve first")
        for name, artifact in artifacts.items():
            artifact.write(self.folder / name)
            (self.folder / name).chmod(0o600)
        marker = {"label": self._label, "time": _now(), "artifacts": {n: sha256(self.folder / n) for n in artifacts}}
        _write_sealed(self._finished_path, marker)
        self._load()

    @property
    def _finished_path(self) -> Path:
        return self.folder / "finished.json"

    def _artifacts(self) -> dict[str, str]:
        """The names and checksums of what the finished release holds."""
        with contextlib.suppress(ValueError, AttributeError):
            body = json.loads(self._finished_path.read_bytes())
            if body.keys() == {"label", "time", "artifacts"}:  # of a version that sealed nothing
                return body["artifacts"]
        return _read_sealed(self._finished_path)["artifacts"]

    def _load(self) -> None:
        """Keyed if not finished; else nothing but the artifacts is left."""
        path = self.folder / "key"
        if self.finished:
            self._key, self.replayable = None, False
            if path.exists():
                SecretKey.destroy(path)
            kept = self._artifacts()
            _remove_all_but({*kept, "finished.json", "begun.json", "charged.json", "release.lock"}, self.folder)
            return
        if not (self.folder / "begun.json").exists():
            self._tell_what_differs()
            _write_sealed(self.folder / "begun.json", {"label": self._label, "facts": self._facts})
        self.replayable = path.exists()
        if not self.replayable:
            key = SecretKey.generate() if self._private else SecretKey.from_seed(0)
            key.save(path)
        self._key = SecretKey.load(path)

    def _tell_what_differs(self) -> None:
        """Another release with this label is not continued: say so, and for which facts."""
        for path in sorted(self.folder.parent.glob("*/begun.json")):
            other = _read_sealed(path)
            if other["label"] == self._label and (path.parent.name.endswith("-not-private") is not self._private):
                done = "drawn" if (path.parent / "finished.json").exists() else "begun"
                differing = _differences(other["facts"], self._facts)
                print(
                    f"warning: `{self._label}` was {done} before with {differing}. This draw is another one, with its "
                    "own noise, and charged beside that.",
                    file=sys.stderr,
                )

    def _is_mine(self, record: Record) -> bool:
        named = record["stage"], record["fingerprint"], record["private"]
        return named == (self._stage, self.fingerprint, self._private)

    def _record(self, events: list[dict[str, Any]], attempt: int) -> Record:
        return {
            "time": _now(),
            "dataset": self._ledger.dataset,
            "stage": self._stage,
            "label": self._label,
            "fingerprint": self.fingerprint,
            "attempt": attempt,
            "key": self.key.identity,
            "private": self._private,
            "events": events,
        }

    def _write_reserved_steps(self, number: int) -> None:
        _write_sealed(self.folder / "reserved_steps", {"number": number})


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    sync_folder(folder.parent)


def _write_sealed(path: Path, body: Mapping[str, Any]) -> None:
    text = canonical({**body, "seal": _checksum(body)})
    write_file(path, lambda file: file.write_text(text, encoding="utf-8"), private=True, shown=path.parent.parent)


def _read_sealed(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_bytes())
        whole = body.pop("seal") == _checksum(body)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise UserError(
            f"{path.name} of a release in {path.parent.parent} is damaged; restore it from a backup, or delete that "
            "release's folder (the odometer names it) to draw anew, which is charged again."
        )
    return body


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two releases' facts, in words; of sensitive data only that it differs."""
    flat = [{**facts, **{f"settings.{k}": v for k, v in facts.get("settings", {}).items()}} for facts in (before, now)]
    words = []
    for name in sorted({*flat[0], *flat[1]} - {"settings"}):
        old, new = (facts.get(name) for facts in flat)
        if old != new:
            shown = isinstance(old, int | float) and isinstance(new, int | float)
            words.append(f"{name} {old} (now {new})" if shown else f"another value of {name}")
    return ", ".join(words) or "nothing else"


def _remove_all_but(names: set[str], folder: Path) -> None:
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
