"""`privimage status`: what is done is seen from files, what is running from heartbeats that only the owner reads."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from privimage import status
from privimage.errors import UserError
from privimage.privacy import accounting
from privimage.privacy.event import Event
from privimage.progress import progress

QUERY, TRAINING = Event("gaussian", 10.0), Event("poisson_gaussian", 6.0, 0.28, 30)


def beat(folder: Path, **changes) -> None:
    given = {
        "stage": "finetune", "loop": "finetune", "output": "results/digits/internal/privimage/seed0/eps1/training.csv",
        "total": 30, "start": 5, "done": 15, "images": 400.0, "pid": os.getpid(), "host": socket.gethostname(),
        "started": 1000.0, "updated": 1020.0,
    }  # fmt: skip
    (folder / "status").mkdir(exist_ok=True)
    name = f"beat{len(list((folder / 'status').iterdir()))}.json"
    (folder / "status" / name).write_text(json.dumps({**given, **changes}))


def test_a_running_stage_has_its_step_its_pace_its_epsilon_and_what_is_left(tmp_path):
    told = {"before": [QUERY.as_json()], "training": TRAINING.as_json(), "delta": 5e-5}
    beat(tmp_path, **told)
    (line,) = status.run(tmp_path / "results", tmp_path)
    spent = accounting.epsilon([QUERY, Event("poisson_gaussian", 6.0, 0.28, 16)], 5e-5)
    assert line.fields == (
        "digits/privimage/seed0/eps1", "finetune", "running", "15 of 30", "200", f"{spent:.3f}", "30 s",
    )  # fmt: skip


def test_who_says_nothing_any_more_has_stopped(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    beat(tmp_path, pid=gone.pid)
    beat(tmp_path, host="elsewhere")
    beat(tmp_path, host="elsewhere", updated=time.time() - 60)
    beat(tmp_path, total=None)
    lines = status.run(tmp_path / "results", tmp_path)
    assert [line.state for line in lines] == ["stopped", "stopped", "running", "running"]
    assert lines[0].left == "" and lines[3].step == "15"


def test_a_heartbeat_is_there_while_the_loop_is_and_for_its_owner_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PRIVIMAGE_STATUS", str(tmp_path / "state" / "status"))
    monkeypatch.setattr("sys.argv", ["privimage/sample.py", "--grid", "results/digits/scratch/seed0/eps1/samples.png"])
    monkeypatch.setattr("privimage.heartbeat.SECONDS", 0)
    seen = []
    for _ in progress(range(3), "sample", 3, images=50):
        (path,) = (tmp_path / "state" / "status").iterdir()
        seen.append(json.loads(path.read_text())["done"])
        assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
        assert path.parent.parent.stat().st_mode & 0o777 == 0o700
    assert seen == [0, 1, 2]
    assert list((tmp_path / "state" / "status").iterdir()) == []


def test_a_heartbeat_that_fails_stops_no_loop(tmp_path, monkeypatch, capsys):
    (tmp_path / "status").write_text("a file, not a folder")
    monkeypatch.setenv("PRIVIMAGE_STATUS", str(tmp_path / "status"))
    monkeypatch.setattr("privimage.heartbeat.SECONDS", 0)
    assert list(progress(range(3), "sample", 3)) == [0, 1, 2]
    assert capsys.readouterr().err.count("warning: `privimage status` will not see this stage") == 1


def test_without_the_workflow_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv("PRIVIMAGE_STATUS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert list(progress(range(3), "sample", 3)) == [0, 1, 2] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_a_folder_that_holds_no_results_is_one_sentence(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(UserError, match="holds no results and nothing is running"):
        status.run(tmp_path / "x", tmp_path / "state")


def told(chain: Path, *args: str) -> str:
    command = [sys.executable, "-c", "from privimage.cli import main; main()", "status", "results", *args]
    done = subprocess.run(command, cwd=chain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_finished_run_is_done(chain):
    table = told(chain)
    assert re.search(r"^what +stage +state +step +images/s +epsilon +time left$", table, re.M), table
    assert re.search(r"^public/glyphs8 +classifier +done$", table, re.M), table
    assert re.search(r"^digits +report +done$", table, re.M), table
    for method in ("privimage", "pdp"):
        assert re.search(rf"^digits/{method}/seed0/eps1 +release +done +1\.000$", table, re.M), table
    assert "running" not in table and "stopped" not in table


def test_a_stage_that_runs_is_seen_and_one_that_was_killed_has_stopped(chain, tmp_path):
    weights = "results/digits/pdp/seed0/eps1/finetuned.safetensors"
    settings = json.dumps({"num_images": 100_000, "batch_size": 1, "num_steps": 20})
    outputs = ["--images", str(tmp_path / "x.h5"), "--grid", str(tmp_path / "results/digits/pdp/seed0/eps1/x.png")]
    sample = ["-m", "privimage.sample", "--weights", weights, "--seed", "0", "--settings", settings, *outputs]
    state = tmp_path / "state"
    process = subprocess.Popen(
        [sys.executable, *sample],
        cwd=chain,
        env={**os.environ, "PRIVIMAGE_STATUS": str(state / "status"), "OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 60
        while not (lines := status_of(state)) or not lines[0].rate:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        (line,) = lines
        assert (line.what, line.stage, line.state) == ("digits/pdp/seed0/eps1", "sample", "running")
        assert line.step.endswith(" of 100,000") and line.left
    finally:
        process.kill()
        process.wait()
    assert [line.state for line in status_of(state)] == ["stopped"]


def status_of(state: Path) -> list[status.Line]:
    try:
        return status.run(state / "no-results", state)
    except UserError:
        return []
