"""Told to stop, a stage saves and ends with the code that says: again; started again, it goes on where it was."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from itertools import count

import pytest
from kills import SEED, Trial
from server import Faults
from stages import LONG, quick

from privimage import stopping

STOPPED = 75
SENTENCE = re.compile(r"error: stopped [^\n]+ goes on from what was saved\.\n\Z")


def stopped(trial, *notes):
    """How a start ended that was told to stop at these of its notes; it must say so in its last line."""
    code = trial.start(Faults(stops=notes))
    assert code in (0, STOPPED), trial.context
    assert code == 0 or SENTENCE.search(trial.told.read_text()), trial.context
    return code


@pytest.mark.parametrize("name", quick(LONG, "pretrain", "finetune", "sample"))
def test_a_stop_at_some_moment_is_gone_on_from(server, calm, row, tmp_path, name):
    trial, left, _ = calm(name)
    moments = random.Random(f"{SEED} stops {name}").sample(range(1, len(trial.notes()) + 1), 1)
    for number in moments:
        again = Trial(server, trial.stage, tmp_path / str(number))
        stopped(again, number)
        again.finish(left)
    row(f"SIGTERM, {name}", len(moments), len(moments))


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_a_stop_at_any_moment_loses_no_step_that_was_taken(server, calm, row, tmp_path, name):
    trial, left, _ = calm(name)
    total = len(trial.notes())
    numbers = sorted({*range(1, total + 1, max(1, total // 60)), total})
    for number in numbers:
        again = Trial(server, trial.stage, tmp_path / str(number))
        assert stopped(again, number) == STOPPED or number == total, again.context
        again.finish(left)  # which counts steps: of those taken, none is taken again
    row(f"SIGTERM at any moment, {name}", len(numbers), len(numbers))


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_a_second_signal_at_any_moment_breaks_nothing(server, calm, row, tmp_path, name):
    """As when Ctrl-C is pressed twice, or a scheduler and Snakemake both say it."""
    trial, left, _ = calm(name)
    total = len(trial.notes())
    draw, done = random.Random(f"{SEED} twice {name}"), 0
    steps = [n for n, note in enumerate(trial.notes(), 1) if "step" in note or "value" in note]
    for second in sorted({*range(2, total + 1, max(1, total // 30)), *steps}):
        if second > 1:
            again = Trial(server, trial.stage, tmp_path / str(second))
            code = again.start(Faults(stops=(draw.randrange(max(1, second - 10), second), second)))
            assert code in (0, STOPPED, -signal.SIGTERM), again.context
            again.kills.append("a second signal")  # it may cost the step under way
            again.finish(left)
            done += 1
    row(f"two signals, {name}", done, done)


def test_a_stop_is_obeyed_where_nobody_reads_what_is_printed_any_more(server, all_stages, row, tmp_path):
    """`tee` gets the signal too, and is gone first."""
    trial = Trial(server, all_stages["finetune"], tmp_path / "trial")
    os.mkfifo(trial.told)
    reader = os.open(trial.told, os.O_RDONLY | os.O_NONBLOCK)
    pid = trial.begin(Faults(slow=0.5))
    wait_for(lambda: '"step"' in (trial.folder / "notes").read_text(), trial.folder / "notes")
    os.close(reader)
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    assert server.wait(pid, 30) == STOPPED
    assert time.monotonic() - began < 30 and list(trial.folder.rglob("checkpoint*.safetensors"))
    row("SIGTERM with `tee` gone", 1, 1)


def test_a_stage_whose_driver_was_killed_stops(server, all_stages, row, tmp_path):
    driver = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    trial = Trial(server, all_stages["finetune"], tmp_path / "trial")
    pid = trial.begin(Faults(slow=0.5), {"PRIVIMAGE_DRIVER": named(driver.pid)})
    wait_for(lambda: '"step"' in (trial.folder / "notes").read_text(), trial.folder / "notes")
    driver.kill()
    driver.wait()
    assert server.wait(pid, 30) == STOPPED, trial.context
    assert "since the Snakemake that started it is gone" in trial.told.read_text()
    trial.finish()
    row("driver killed", 1, 1)


def test_a_stage_whose_driver_was_killed_before_it_looked_stops_too(server, all_stages, row, tmp_path):
    """Python takes seconds to import what a stage needs, and drivers die in them as well."""
    driver = subprocess.Popen([sys.executable, "-c", ""])
    driver.wait()
    trial = Trial(server, all_stages["finetune"], tmp_path / "trial")
    pid = trial.begin(Faults(), {"PRIVIMAGE_DRIVER": named(driver.pid)})
    assert server.wait(pid, 30) == STOPPED, trial.context
    assert trial.stage.left(trial.folder) == {}
    row("driver killed before the stage looked", 1, 1)


def named(pid):
    """What a driver of that number would have named itself by."""
    return stopping.this_process().replace(str(os.getpid()), str(pid))


def wait_for(happened, path, seconds=60.0):
    """Return once it has happened, in a file that may not be there yet."""
    until = time.monotonic() + seconds
    for _ in count():
        if path.exists() and happened():
            return
        assert time.monotonic() < until, f"{path} does not say so"
        time.sleep(0.02)
