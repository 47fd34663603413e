"""One folder in which a stage is started, killed and started again, and what must be true at each of these moments."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from server import NOTHING, Faults, Server, Start
from stages import PRIVATE, QUERY, STEPS, Stage, tuples

from privimage.artifacts import ArtifactError
from privimage.privacy.ledger import Ledger
from privimage.settings import Declared

SEED = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**6))
DIED = (-signal.SIGKILL, -signal.SIGXFSZ, -signal.SIGTERM)
TAKES_STEP = ("poisson", "diffusion", "gradient")  # purposes of draws of which the first index is a step


@dataclass
class Trial:
    """A stage in a folder of its own, and how often it was killed there."""

    server: Server
    stage: Stage
    folder: Path
    kills: list[str] = field(default_factory=list)
    every: int = 1
    place: Path | None = None  # where the stage writes, if not into the folder that holds what is noted of it

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.place = self.place or self.folder
        if self.stage.name == "finetune":  # which asks whether the query that it reads was paid for
            with self._ledger().open("query", "0" * 32, "the query") as release:
                release.reserve([QUERY])

    def start(self, faults: Faults = NOTHING, **changes: Any) -> int:
        """How one start ended; whatever happened in it, what must be true is."""
        return self.ended(self.begin(faults, **changes), f"{faults}")

    def killed_after(self, seconds: float) -> int:
        """How a start ended that was killed after so many seconds."""
        pid = self.begin(Faults(every=self.every))
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        return self.ended(pid, f"after {seconds:.3f} s")

    def finish(self, undisturbed: Mapping[str, bytes] | None = None) -> None:
        """A start that nobody disturbs gets through, to the same bytes as if nobody ever had, and it was paid once."""
        was_done = self.stage.left(self.place).keys() == self.stage.outputs.keys()
        assert self.start() == 0, self.context
        left = self.stage.left(self.place)
        assert left.keys() == self.stage.outputs.keys(), self.context
        if undisturbed is not None:
            assert [n for n in left if left[n] != undisturbed[n]] == [], f"other bytes; {self.context}"
        for name, read in self.stage.outputs.items():
            read(self.place / name)
        if not was_done or self.stage.name in PRIVATE:  # else it begins anew: its checkpoint goes with the result
            self.check_steps()
        if self.stage.name in PRIVATE:
            assert len(self.odometer()) == 1, f"charged {len(self.odometer())} times; {self.context}"
            self._check_nothing_secret_is_left()
            assert self.start() == 0 and self.stage.left(self.place) == left, f"not restored; {self.context}"
            assert len(self.odometer()) == 1, self.context

    @property
    def context(self) -> str:
        """What happened here, for whoever reads a failure."""
        told = self.told.read_text() if self.told.exists() else ""
        return f"{self.stage.name} in {self.folder}, FAULTS_SEED={SEED}, killed {self.kills}; it said:\n{told[-2000:]}"

    @property
    def told(self) -> Path:
        """What all starts printed."""
        return self.folder / "told"

    def odometer(self) -> list[dict[str, Any]]:
        """The charges of the stage."""
        state = self.place / "state"
        if not (state / "set").exists() or os.statvfs(state).f_flag & os.ST_RDONLY:  # asking makes the folder
            return []
        return [charge for charge in self._ledger().odometer() if charge["stage"] == self.stage.name]

    def notes(self) -> list[dict[str, Any]]:
        """What was drawn, stepped and published, as it was noted outside the ledger."""
        path = self.folder / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]  # a limit on files cuts notes too

    def points(self, torn: bool = False) -> list[int]:
        """The points at which this start might have died; ``torn``: those that a power cut makes worse."""
        counted = json.loads((self.folder / "count").read_text())
        return counted["tearing"] if torn else list(range(1, counted["points"] + 1))

    def begin(self, faults: Faults = NOTHING, environment: Mapping[str, str] | None = None, **changes: Any) -> int:
        """The process of a start; ``changes`` are other values of the stage's flags."""
        faults = replace(faults, draws=str(self.folder / "notes"), every=max(faults.every, self.every))
        words = self.stage.words(self.place, **changes)
        return self.server.start(
            Start(self.stage.name, words, str(self.folder), str(self.told), faults, environment or {})
        )

    def ended(self, pid: int, how: str) -> int:
        """How the start with that process ended; what must be true then is."""
        code = self.server.wait(pid)
        if code in DIED:
            self.kills.append(how)
        assert code is not None and code in (0, 2, 75, *DIED), f"exit code {code}; {self.context}"
        assert "Traceback" not in self.context, self.context
        self._check_outputs()
        if self.stage.name in PRIVATE:
            self._check_ledger()
        return code

    def _check_outputs(self) -> None:
        """Every file at its final place is whole; an HDF5 file may still lack its checksum, and is refused then."""
        for name, read in self.stage.outputs.items():
            path = self.place / name
            try:
                if path.exists():
                    read(path)
            except ArtifactError as error:
                lacks = path.suffix == ".h5" and not Path(f"{path}.sha256").exists()
                assert lacks and ".sha256 does not exist" in str(error), f"{name} is half-written; {self.context}"

    def _check_ledger(self) -> None:
        """The charges cover what was drawn; what was drawn twice came out the same; the steps were reserved."""
        notes, charges = self.notes(), self.odometer()
        drawn = {note["key"] for note in notes if "draw" in note}
        assert drawn <= {charge["key"] for charge in charges}, f"a draw that nobody paid for; {self.context}"
        values: dict[tuple[str, str], str] = {}
        for note in notes:
            if "value" in note:
                known = values.setdefault((note["key"], note["what"]), note["value"])
                assert known == note["value"], f"{note['what']} came out twice, differently; {self.context}"
        for charge in charges if self.stage.name == "finetune" else ():
            steps = [n["indices"][0] for n in notes if n.get("draw") in TAKES_STEP and n["key"] == charge["key"]]
            self._check_reserved(charge, max(steps, default=-1))

    def _check_reserved(self, charge: Mapping[str, Any], step: int) -> None:
        """The last step that was taken was reserved, and is one of those that were charged."""
        due = sum(event["num_steps"] for event in charge["events"])
        assert step < due, f"step {step} of {due}; {self.context}"
        release = self._ledger().open("finetune", charge["fingerprint"], "x")
        assert release.finished or release.reserved_steps > step, f"step {step} was not reserved; {self.context}"

    def _ledger(self) -> Ledger:
        return Ledger(self.place / "state", "set", Declared(**tuples(self.stage.flags["declared"])))

    def check_steps(self) -> None:
        """No more work was lost than lies between two checkpoints, at each kill; a step under way was not noted."""
        if self.stage.name in STEPS:
            took, due = sum("step" in note for note in self.notes()), STEPS[self.stage.name]
            assert due <= took <= due + self.every * len(self.kills), f"{took} steps for {due}; {self.context}"

    def _check_nothing_secret_is_left(self) -> None:
        left = {path.name for path in (self.place / "state/set" / self.stage.name).rglob("*") if path.is_file()}
        assert not {name for name in left if name.startswith((".", "key", "reserved", "checkpoint"))}, self.context


def undisturbed(server: Server, stage: Stage, folder: Path) -> tuple[Trial, dict[str, bytes], float]:
    """A trial in which nothing happened, what it left, and how long it took."""
    trial = Trial(server, stage, folder)
    began = time.monotonic()
    assert trial.start(Faults(count=str(folder / "count"))) == 0, trial.context
    seconds = time.monotonic() - began
    trial.check_steps()
    return trial, stage.left(folder), seconds
