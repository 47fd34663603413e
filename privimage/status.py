"""``privimage status``: what of a run is done, and how far what is running has come.

What is done is seen from the files in the results, what is running from the heartbeats in the state folder.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from privimage.artifacts import ArtifactError, PrivacyStatement, Subset
from privimage.data.record import printable
from privimage.errors import UserError
from privimage.privacy.event import Event

SILENT_SECONDS = 120.0  # without a heartbeat, on another machine: it is taken for stopped
COLUMNS = ("what", "stage", "state", "step", "images/s", "epsilon", "time left")
DONE = (  # of a release: (stage, file below the data set's folder); the last that is there is the last that is done
    ("select", "{shared}/subset.json"),
    ("pretrain", "{shared}/pretrained.safetensors"),
    ("finetune", "{cell}/privacy.json"),
    ("sample", "{cell}/images.h5"),
    ("semantics", "internal/{shared}/semantics.json"),
    ("quality", "internal/{cell}/quality/*.json"),
    ("accuracy", "internal/{cell}/accuracy.json"),
    ("memorisation", "internal/{cell}/memorisation.json"),
    ("membership", "internal/{cell}/membership.json"),
    ("release", "{cell}/release/SHA256SUMS"),
)
SHARED = (  # of a data set or public set: (stage, files)
    ("preprocess", "train.h5"),
    ("preprocess", "internal/train.h5"),
    ("classifier", "classifier.safetensors"),
    ("query", "query/*.json"),
    ("features", "internal/features/*/test.h5"),
    ("report", "report.html", "internal/report.html"),
)
SUBJECT = re.compile(r"(public/[^/]+|[^/]+)(?:/internal)?((?:/[^/]+/seed\d+(?:/eps[^/]+)?)?)/")


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    what: str
    stage: str
    state: str
    step: str = ""
    rate: str = ""
    epsilon: str = ""
    left: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """As the columns are."""
        return self.what, self.stage, self.state, self.step, self.rate, self.epsilon, self.left


def run(results: Path, state_dir: Path, now: float | None = None) -> list[Line]:
    """The table: each public set, data set and release with the last stage that is done, and all that is running.

    Raises:
        UserError: if the folder holds no results and nothing is running.
    """
    done = {line.what: line for line in _done(results)} if results.is_dir() else {}
    running = [
        replace(line, epsilon=done[line.what].epsilon) if line.what in done and not line.epsilon else line
        for line in _running(state_dir / "status", now or time.time())
    ]
    if not running and not done:
        raise UserError(
            f"{printable(str(results))} holds no results and nothing is running; give the folder `results` of a run."
        )
    lines = [line for what, line in done.items() if what not in {other.what for other in running}] + running
    return sorted(lines, key=lambda line: (not line.what.startswith("public/"), _in_order(line.what)))


def table(lines: Sequence[Line]) -> str:
    """The lines as aligned text."""
    rows = [COLUMNS, *(tuple(map(printable, line.fields)) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def _in_order(what: str) -> list[str | float]:
    """Text and numbers in turn, so that eps2 comes before eps10."""
    return [float(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+(?:\.\d+)?)", what))]


def _done(results: Path) -> Iterator[Line]:
    sets = [path for path in [*results.glob("public/*"), *results.iterdir()] if path.is_dir() and path.name != "public"]
    for folder in sets:
        found = [stage for stage, *patterns in SHARED if all(any(folder.glob(pattern)) for pattern in patterns)]
        if found:
            yield Line(folder.relative_to(results).as_posix(), found[-1], "done")
        for shared in sorted(folder.glob("*/seed*")):
            cells = sorted(shared.glob("eps*"))
            for cell in cells or [shared]:
                yield from _done_of_release(folder, shared, cell)


def _done_of_release(folder: Path, shared: Path, cell: Path) -> Iterator[Line]:
    at = {"shared": shared.relative_to(folder), "cell": cell.relative_to(folder)}
    found = [stage for stage, pattern in DONE if any(folder.glob(pattern.format(**at)))]
    if not found:
        return
    epsilon = _readable(lambda: f"{PrivacyStatement.read(cell / 'privacy.json').epsilon:.3f}", "finetune" in found)
    due = _readable(lambda: f" of {_num_due(Subset.read(shared / 'subset.json'))} stages", "select" in found)
    step = f"{len(found)}{due or ' stages'}"  # select and pretrain may be another method's
    yield Line(f"{folder.name}/{at['cell'].as_posix()}", found[-1], "done", step, epsilon=epsilon.lstrip(": "))


def _readable(told: Callable[[], str], there: bool) -> str:
    try:
        return told() if there else ""
    except ArtifactError:
        return ": unreadable"


def _num_due(chosen: Subset) -> int:
    """How many stages a release has: no accuracy of a single class, no semantics where no classes were selected."""
    absent = [len(chosen.classes) == 1, chosen.policy not in ("query", "random")]
    return len(DONE) - sum(absent)


def _running(folder: Path, now: float) -> Iterator[Line]:
    for path in sorted(folder.glob("*.json")):
        try:
            beat = json.loads(path.read_bytes())
            yield _line(beat, now)
        except FileNotFoundError:
            continue  # it has just ended
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise UserError(f"{path} is no heartbeat ({type(error).__name__}: {error}); delete it.") from error


def _line(beat: Mapping[str, Any], now: float) -> Line:
    done, total, seconds = beat["done"], beat["total"], beat["updated"] - beat["started"]
    pace = (done - beat["start"]) / seconds if seconds > 0 else 0.0
    alive = _is_alive(beat, now)
    return Line(
        what=_subject(beat["output"]),
        stage=beat["stage"] if beat["loop"] == beat["stage"] else f"{beat['stage']}: {beat['loop']}",
        state="running" if alive else "stopped",
        step=f"{done:,}" + (f" of {total:,}" if total else ""),
        rate=f"{pace * beat['images']:,.0f}" if pace and beat["images"] else "",
        epsilon=_spent(beat),
        left=_duration((total - done) / pace) if alive and pace and total else "",
    )


def _subject(output: str) -> str:
    """What a stage's output belongs to: ``public/glyphs8``, ``digits``, or ``digits/privimage/seed0/eps1``."""
    parts = Path(output).parts
    if "results" not in parts:
        return "/".join(parts[:-1])
    return "".join(SUBJECT.match("/".join(parts[parts.index("results") + 1 :])).groups())


def _is_alive(beat: Mapping[str, Any], now: float) -> bool:
    """Whether the process is there; of another machine's, whether it has said something lately."""
    if beat["host"] != socket.gethostname():
        return now - beat["updated"] < SILENT_SECONDS
    try:
        os.kill(beat["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _spent(beat: Mapping[str, Any]) -> str:
    """Epsilon of the release so far: what came before training, and the steps that may have been taken."""
    if "training" not in beat:
        return ""
    from privimage.privacy.accounting import epsilon  # here, since it takes a second

    steps = min(beat["done"] + 1, beat["total"])  # the one under way is reserved
    taken = Event(**{**beat["training"], "num_steps": steps})
    return f"{epsilon([*(Event(**event) for event in beat['before']), taken], beat['delta']):.3f}"


def _duration(seconds: float) -> str:
    """As 42 s, 3 min, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 0."""
    parser = argparse.ArgumentParser(prog="privimage status", description=__doc__.split("\n\n")[0])
    parser.add_argument("results", type=Path, help="the folder `results` of a run")
    parser.add_argument("--state-dir", type=Path, help="the run's state folder [`state` beside the results]")
    args = parser.parse_args(argv)
    print(table(run(args.results, args.state_dir or args.results.absolute().parent / "state")))
    return 0
