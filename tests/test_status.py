"""`privimage status`: what is done is seen from files, what is running from heartbeats that only the owner reads."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import privimage
from privimage import status
from privimage.errors import UserError
from privimage.privacy import accounting
from privimage.privacy.event import Event, noisy_votes
from privimage.progress import progress

ROOT = Path(privimage.__file__).parent
WITHOUT_IMAGES = {"check_data.py", "data/fetch.py", "data/glyphs.py"}  # whose loops are not over images
QUERY, TRAINING = noisy_votes(1, 10.0), Event("poisson_gaussian", 6.0, 0.28, 30)


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
    for method, count in (("privimage", 10), ("pdp", 9)):  # pdp selects no classes, whose meaning could be compared
        row = rf"^digits/{method}/seed0/eps1 +release +done +{count} of {count} stages +1\.000$"
        assert re.search(row, table, re.M), table
    assert "running" not in table and "stopped" not in table


def test_every_stage_of_a_release_is_looked_for(chain):
    """Those whose times the workflow wrote down under the release's method; an audit is of a data set, once."""
    times = chain / "results/digits/internal/benchmarks"
    ran = {path.relative_to(times).parts[0] for path in times.rglob("privimage-seed0*.tsv")} - {"audit"}
    assert "quality" in ran and {stage for stage, _ in status.DONE} == ran


@pytest.mark.parametrize("stage, pattern", status.DONE)
def test_a_stage_whose_file_is_absent_is_not_done(chain, tmp_path, stage, pattern):
    shutil.copytree(chain / "results", tmp_path / "results")
    at = {"shared": "privimage/seed0", "cell": "privimage/seed0/eps1"}
    (path,) = (tmp_path / "results/digits").glob(pattern.format(**at))
    path.unlink()
    lines = {line.what: line for line in status.run(tmp_path / "results", tmp_path / "state")}
    line = lines["digits/privimage/seed0/eps1"]
    assert line.step == ("9 stages" if stage == "select" else "9 of 10 stages")
    assert line.epsilon == ("" if stage == "finetune" else "1.000")
    assert line.stage == ("membership" if stage == "release" else "release")
    assert lines["digits/pdp/seed0/eps1"].step == "9 of 9 stages"


OUTPUTS = {
    "results/public/glyphs8/shards/0-of-1.shard": "public/glyphs8",
    "results/public/glyphs8/classifier.safetensors": "public/glyphs8",
    "results/digits/internal/shards/0-of-1.shard": "digits",
    "results/digits/internal/contact-sheet.png": "digits",
    "results/digits/query/default.json": "digits",
    "results/digits/internal/features/classifier/test.h5": "digits",
    "results/digits/internal/real/seed0/accuracy.json": "digits/real/seed0",
    "results/digits/privimage/seed0/pretrained.safetensors": "digits/privimage/seed0",
    "results/digits/internal/privimage/seed0/semantics.json": "digits/privimage/seed0",
    "results/digits/internal/privimage/seed0/eps0.5/quality/classifier.json": "digits/privimage/seed0/eps0.5",
    "results/digits/internal/privimage/seed0/eps1/audit.json": "digits/privimage/seed0/eps1",
    "results/digits/internal/privimage/seed0/eps1/training.csv": "digits/privimage/seed0/eps1",
    "results/digits/privimage/seed0/eps1/release": "digits/privimage/seed0/eps1",
    "data/mnist/complete.json": "data/mnist",
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_what_runs_is_told_under_its_set_or_release(tmp_path, output):
    beat(tmp_path, output=output)
    assert [line.what for line in status.run(tmp_path / "results", tmp_path)] == [OUTPUTS[output]]


def test_a_measurement_that_runs_takes_the_row_of_its_release(chain, tmp_path):
    output = "results/digits/internal/pdp/seed0/eps1/quality/classifier.json"
    beat(tmp_path, stage="quality", loop="synthetic images", output=output)
    lines = [line for line in status.run(chain / "results", tmp_path) if line.what == "digits/pdp/seed0/eps1"]
    assert [(line.stage, line.state, line.epsilon) for line in lines] == [
        ("quality: synthetic images", "running", "1.000")
    ]


def test_releases_are_in_the_order_of_their_numbers(tmp_path):
    for epsilon in ("10", "0.5", "2"):
        beat(tmp_path, output=f"results/digits/privimage/seed0/eps{epsilon}/images.h5")
    told = [line.what.rpartition("eps")[2] for line in status.run(tmp_path / "results", tmp_path)]
    assert told == ["0.5", "2", "10"]


def test_every_loop_over_images_says_how_many_each_of_its_items_stands_for():
    without = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            told = isinstance(node, ast.Call) and {*range(len(node.args)), *(word.arg for word in node.keywords)}
            if told and ast.unparse(node.func) == "progress" and not told & {4, "images"}:
                without.add(path.relative_to(ROOT).as_posix())
    assert without == WITHOUT_IMAGES


def test_a_stage_that_runs_is_seen_and_one_that_was_killed_has_stopped(chain, tmp_path):
    weights = "results/digits/pdp/seed0/eps1/finetuned.safetensors"
    settings = json.dumps({"num_images": 100_000, "batch_size": 1, "num_steps": 20})
    outputs = ["--checkpoints", str(tmp_path / "kept"), "--images", str(tmp_path / "x.h5")]
    outputs += ["--grid", str(tmp_path / "results/digits/pdp/seed0/eps1/x.png")]
    sample = [
        "-m",
        "privimage.sample",
        "--weights",
        weights,
        "--seed",
        "0",
        "--settings",
        settings,
        "--checkpoints",
        str(tmp_path / "checkpoints"),
        *outputs,
    ]
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
