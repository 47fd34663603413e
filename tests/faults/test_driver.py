"""Snakemake ended in the middle of fine-tuning: the stage saves, nothing writes on, the next start finishes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from checkout import TOY, copy_project, snakemake
from safetensors import safe_open

from privimage.measurements import Curve

STEPS = 150
CELL = "digits/pdp/seed0/eps1"
TARGET, CURVE = f"results/{CELL}/finetuned.safetensors", "results/digits/internal/pdp/seed0/eps1/training.csv"


def working_in(folder: Path) -> list[str]:
    """The command lines of processes that work in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder.resolve():
                found.append((process / "cmdline").read_text().replace("\0", " ")[:100])
        except OSError:
            continue
    return found


def reserved(folder: Path) -> int:
    """How many steps were reserved so far."""
    for path in (folder / "state/digits/finetune").glob("*/reserved_steps"):
        return int(json.loads(path.read_text())["number"])
    return 0


def kept(folder: Path) -> int:
    """How many steps the checkpoint holds."""
    (path,) = (folder / "state/digits/finetune").glob("*/checkpoint/checkpoint-0.safetensors")
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["privimage"])["state"]["step"]


def kill_the_driver(driver: subprocess.Popen) -> None:
    driver.kill()


def tell_all(driver: subprocess.Popen) -> None:
    """As schedulers and containers do: Snakemake, the shell, the stage and the reader of its log at once."""
    os.killpg(driver.pid, signal.SIGTERM)


def wait_until(happened, seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, what
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize("end", [kill_the_driver, tell_all])
def test_an_ended_snakemake_leaves_what_was_done_and_no_orphan_and_its_next_start_finishes(row, tmp_path, end):
    folder = copy_project(tmp_path / "run")
    settings = {"finetune": {"num_steps": STEPS, "sampling_probability": 0.05, "noise_levels_per_image": 2}}
    changed = {"run": {"methods": ["pdp"]}, "datasets": {"digits": settings}}
    (folder / "slow.yaml").write_text(yaml.safe_dump(changed))
    words = ["--cores", "2", *TOY, "slow.yaml", "--", TARGET]
    with open(folder / "told", "w") as told:
        driver = subprocess.Popen(
            [sys.executable, "-m", "snakemake", *words], cwd=folder, stdout=told, stderr=subprocess.STDOUT,
            env={**os.environ, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: reserved(folder) > 5 or driver.poll() is not None, 500, "fine-tuning does not begin")
        assert driver.poll() is None, (folder / "told").read_text()[-3000:]
    finally:
        end(driver)
        driver.wait()
    wait_until(lambda: not working_in(folder), 30, f"still at work: {working_in(folder)}")
    before = reserved(folder)
    assert 5 < before < STEPS, before
    assert kept(folder) >= before - 1  # a minute had not passed, so nothing else would have saved

    again = snakemake(folder, *words, timeout=600)
    if "unlock" in again.stdout:  # Snakemake's own lock; the state's went with the process
        assert snakemake(folder, "--unlock", *words).returncode == 0
        again = snakemake(folder, *words, timeout=600)
    if "rerun-incomplete" in again.stdout:
        again = snakemake(folder, "--rerun-incomplete", *words, timeout=600)
    assert again.returncode == 0, again.stdout[-3000:]
    assert [int(line[0]) for line in Curve.read(folder / CURVE).rows] == list(range(STEPS))  # none was skipped
    charges = [json.loads(line) for line in (folder / "state/digits/odometer.jsonl").read_text().splitlines()]
    assert [charge["stage"] for charge in charges] == ["finetune"]
    row(f"Snakemake ended: {end.__name__}", 1, 1)
