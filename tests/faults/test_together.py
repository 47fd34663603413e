"""Of several starts of one thing exactly one works and the others say why; starts of several things all work."""

from __future__ import annotations

import re
import time

import pytest
from kills import Trial
from server import Faults, Start
from stages import PRIVATE

SENTENCE = re.compile(r"error: [^\n]* another process[^\n]*\.\n")
LOCKED = ("query", "finetune", "pretrain", "classifier", "sample")


def starts(server, trial, count, seconds, **changes):
    """How so many starts at once ended, and what each printed."""
    faults = Faults(slow=seconds, draws=str(trial.folder / "notes"))
    words, folder = trial.stage.words(trial.place, **changes), str(trial.folder)
    told = [trial.folder / f"told{number}" for number in range(count)]
    pids = [server.start(Start(trial.stage.name, words, folder, str(path), faults)) for path in told]
    return [server.wait(pid) for pid in pids], [path.read_text() for path in told]


def one_works(server, calm, folder, name, count):
    trial, left, _ = calm(name)
    again = Trial(server, trial.stage, folder)
    codes, told = starts(server, again, count, 0.1 * count + 1)
    assert sorted(codes) == [0] + [2] * (count - 1), (codes, told)
    assert all(SENTENCE.fullmatch(text) for code, text in zip(codes, told) if code), told
    assert again.stage.left(again.place) == left
    again.finish(left if name in PRIVATE else None)


@pytest.mark.parametrize("name, count", [("query", 2), ("finetune", 3)])
def test_of_a_few_starts_at_once_one_works(server, calm, row, tmp_path, name, count):
    one_works(server, calm, tmp_path / "trial", name, count)
    row(f"{count} starts at once, {name}", 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 20])
@pytest.mark.parametrize("name", LOCKED)
def test_of_many_starts_at_once_one_works(server, calm, row, tmp_path, name, count):
    for attempt in range(3):
        one_works(server, calm, tmp_path / str(attempt), name, count)
    row(f"{count} starts at once, {name}", 3, 3)


def test_different_releases_at_once_are_all_charged(server, all_stages, row, tmp_path):
    """They wait for each other at the odometer, whose lines stay whole."""
    trial = Trial(server, all_stages["query"], tmp_path / "trial")
    pids = [trial.begin(settings={"noise_multiplier": noise}) for noise in (1.0, 2.0, 3.0, 4.0, 5.0)]
    assert [server.wait(pid) for pid in pids] == [0] * 5, trial.context
    charged = [record["events"][0]["noise_multiplier"] for record in trial.odometer()]
    assert sorted(charged) == [1.0, 2.0, 3.0, 4.0, 5.0]
    row("5 releases at once", 1, 1)


@pytest.mark.slow
def test_twenty_different_releases_at_once_again_and_again(server, all_stages, row, tmp_path):
    for attempt in range(5):
        trial = Trial(server, all_stages["query"], tmp_path / str(attempt))
        pids = [trial.begin(settings={"noise_multiplier": 1.0 + number}) for number in range(20)]
        assert [server.wait(pid) for pid in pids] == [0] * 20, trial.context
        assert len({record["fingerprint"] for record in trial.odometer()}) == 20
    row("20 releases at once", 5, 5)


def test_what_was_killed_leaves_no_lock(server, calm, row, tmp_path):
    trial, left, _ = calm("finetune")
    again = Trial(server, trial.stage, tmp_path / "trial")
    pid = again.begin(Faults(slow=5))
    time.sleep(0.5)
    assert starts(server, again, 1, 0)[0] == [2]
    again.server.kill(pid)
    again.kills.append("while another waited")
    again.finish(left)
    row("a lock whose owner was killed", 1, 1)
