"""On a real Slurm a run leaves what it leaves on this machine, and what bad luck interrupts goes on where it was."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path

import pytest
import yaml
from checkout import copy_project, snakemake
from local_slurm import wait_for
from safetensors import safe_open
from slurm_workflow import CELL, CONFIG, STATEMENT, WITH_SLURM, Workflow

from privimage.measurements import Curve

pytestmark = pytest.mark.slurm

CURVE = "results/digits/internal/pdp/seed0/eps1/training.csv"
DIFFERENT = re.compile(  # they hold times, the last the outcome of coins that the system tossed
    r"/(logs|benchmarks)/|internal/(report\.html|summary\.csv)$|/audit\.json$"
)


def artifacts(folder: Path) -> dict[str, str]:
    """The hash of every file of the results that is meant to be the same."""
    files = [path for path in (folder / "results").rglob("*") if path.is_file()]
    named = {str(path.relative_to(folder)): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in named.items()
        if not DIFFERENT.search(name)
    }


def ledger(folder: Path) -> list[dict]:
    """What was charged, without when and under which key, in an order of its own."""
    lines = (folder / "state/digits/odometer.jsonl").read_text().splitlines()
    charges = [{k: v for k, v in json.loads(line).items() if k not in ("time", "key", "seal")} for line in lines]
    return sorted(charges, key=lambda charge: charge["label"])


def steps(folder: Path) -> list[int]:
    """The steps of the fine-tuning, in order."""
    return [int(row[0]) for row in Curve.read(folder / CURVE).rows]


def longer(workflow: Workflow, num_steps: int) -> tuple[str, ...]:
    """The words that ask for a fine-tuning of so many steps."""
    settings = {"datasets": {"digits": {"finetune": {"num_steps": num_steps}}}}
    (workflow.folder / "longer.yaml").write_text(yaml.safe_dump(settings))
    return (*WITH_SLURM, *CONFIG, "longer.yaml", "--", STATEMENT)


def reserved(folder: Path) -> int:
    """How many steps of the fine-tuning were reserved so far."""
    for path in (folder / "state/digits/finetune").glob("*/reserved_steps"):
        return int(json.loads(path.read_text())["number"])
    return 0


def finetuning(workflow: Workflow, since: int = 0) -> dict[str, str]:
    """The fine-tuning's job, newer than the one of that number, once some of its steps are done."""
    found: list[dict[str, str]] = []

    def far_enough() -> bool:
        running = workflow.slurm.jobs("running")
        found[:] = [job for job in running if "rule_finetune" in job["comment"] and int(job["id"]) > since]
        return bool(found) and reserved(workflow.folder) > 5

    wait_for(far_enough, 90, f"fine-tuning does not begin:\n{workflow.told()[-3000:]}")
    return found[0]


def kept(folder: Path) -> int:
    """How many steps the checkpoint of the fine-tuning holds."""
    (path,) = (folder / "state/digits/finetune").glob("*/checkpoint/checkpoint-0.safetensors")
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["privimage"])["state"]["step"]


def stopped(workflow: Workflow, job: dict[str, str]) -> int:
    """The job has ended; the number of steps that it saved, of those that it had begun."""
    wait_for(lambda: job["id"] not in {j["id"] for j in workflow.slurm.jobs("running,completing")}, 60, "it stays")
    assert 5 <= reserved(workflow.folder) - 1 <= kept(workflow.folder)  # within its first minute only a stop saves
    return kept(workflow.folder)


def finished(workflow: Workflow, driver, num_steps: int, timeout: float = 240) -> None:
    """The driver succeeds, no step was left out or taken twice, and the release was charged once."""
    assert driver.wait(timeout) == 0, workflow.told()[-5000:]
    assert steps(workflow.folder) == list(range(num_steps))
    assert [charge["stage"] for charge in ledger(workflow.folder)] == ["finetune"]


def test_one_release_on_slurm_is_the_same_as_here(here, fresh_workflow):
    code, told = fresh_workflow.run(*WITH_SLURM, *CONFIG, "--", STATEMENT)
    assert code == 0, told[-5000:]
    assert len([job for job in fresh_workflow.slurm.jobs() if "rule_" in job["comment"]]) >= 7
    assert artifacts(fresh_workflow.folder) == artifacts(here) and f"{CELL}/finetuned.safetensors" in artifacts(here)
    assert ledger(fresh_workflow.folder) == ledger(here) != []
    private = fresh_workflow.folder / ".snakemake"
    assert private.stat().st_mode & 0o077 == 0  # Slurm's logs lie in it


def test_a_cancelled_job_saves_and_its_next_attempt_goes_on(pretrained):
    words = longer(pretrained, 40)
    driver = pretrained.begin(*words, seconds_a_step=0.3)
    job = finetuning(pretrained)
    pretrained.slurm.run("scancel", job["id"])
    assert stopped(pretrained, job) < 40
    finished(pretrained, driver, 40)
    assert "SLURM status is: 'CANCELLED'" in pretrained.told()


@pytest.mark.slow
def test_the_whole_chain_on_slurm_is_the_same_as_here(tmp_path, fresh_workflow):
    both = ("run: {methods: [privimage, pdp]}\n", "both.yaml")
    here = copy_project(tmp_path / "here")
    for folder in (here, fresh_workflow.folder):
        (folder / both[1]).write_text(both[0])
    done = snakemake(here, "--cores", "2", *CONFIG, both[1], timeout=600)
    assert done.returncode == 0, done.stdout[-3000:]
    began = time.monotonic()
    code, told = fresh_workflow.run(*WITH_SLURM, *CONFIG, both[1], timeout=900)
    print(f"the chain took {time.monotonic() - began:.0f} s on Slurm")
    assert code == 0, told[-5000:]
    ours, theirs = artifacts(fresh_workflow.folder), artifacts(here)
    assert {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)} == set()
    assert ledger(fresh_workflow.folder) == ledger(here) and len(ledger(here)) == 3


@pytest.mark.slow
def test_a_job_that_its_time_limit_ends_goes_on_from_what_it_saved(pretrained):
    """Slurm looks at limits every half minute, so that a minute may last for one and a half."""
    words = longer(pretrained, 150)
    driver = pretrained.begin(*words[:-2], "--set-resources", "finetune:runtime=1", *words[-2:], seconds_a_step=0.3)
    first = finetuning(pretrained)
    wait_for(lambda: first["id"] not in {job["id"] for job in pretrained.slurm.jobs("running")}, 150, "no time limit")
    wait_for(lambda: first["id"] not in {j["id"] for j in pretrained.slurm.jobs("completing")}, 60, "it stays")
    assert (
        5 <= reserved(pretrained.folder) - 1 <= kept(pretrained.folder) < 150
    )  # of a minute before at most: Slurm may kill what had no time to save
    second = finetuning(pretrained, since=int(first["id"]))
    finished(pretrained, driver, 150, timeout=400)
    ended = {job["id"]: job["state"] for job in pretrained.slurm.jobs()}
    assert ended[first["id"]] == "TIMEOUT" and ended[second["id"]] in ("COMPLETED", "TIMEOUT")
    assert "SLURM status is: 'TIMEOUT'" in pretrained.told()


@pytest.mark.slow
def test_a_job_whose_node_dies_goes_on_at_another_node(pretrained):
    slurm, words = pretrained.slurm, longer(pretrained, 60)
    driver = pretrained.begin(*words, seconds_a_step=0.4)
    job = finetuning(pretrained)
    slurm.crash_node(job["node"])
    try:
        finished(pretrained, driver, 60, timeout=400)
        after = [j for j in slurm.jobs() if "rule_finetune" in j["comment"] and int(j["id"]) >= int(job["id"])]
        assert after[-1]["state"] == "COMPLETED" and after[-1]["node"] != job["node"], after
    finally:
        slurm.start_node(job["node"])
        wait_for(lambda: set(slurm.states().values()) == {"idle"}, 60, "the node does not come back")


@pytest.mark.slow
def test_a_drained_node_ends_its_job_in_peace_and_gets_no_other(pretrained):
    slurm, words = pretrained.slurm, longer(pretrained, 40)
    driver = pretrained.begin(*words[:-1], CELL + "/images.h5", seconds_a_step=0.3)
    job = finetuning(pretrained)
    slurm.run("scontrol", "update", f"nodename={job['node']}", "state=drain", "reason=trial")
    try:
        finished(pretrained, driver, 40)
        nodes = {j["comment"].split("_")[1]: j["node"] for j in slurm.jobs() if int(j["id"]) >= int(job["id"])}
        assert nodes["finetune"] == job["node"] != nodes["sample"]
    finally:
        slurm.run("scontrol", "update", f"nodename={job['node']}", "state=resume")


@pytest.mark.slow
def test_a_stopped_driver_cancels_its_jobs_and_its_next_start_goes_on(pretrained):
    words = longer(pretrained, 60)
    driver = pretrained.begin(*words, seconds_a_step=0.3)
    finetuning(pretrained)
    driver.send_signal(2)  # Ctrl-C
    assert driver.wait(120) != 0
    wait_for(lambda: not pretrained.slurm.jobs("pending,running,completing"), 60, "its jobs stay")
    assert 5 <= reserved(pretrained.folder) - 1 <= kept(pretrained.folder) < 60
    finished(pretrained, pretrained.begin(*words), 60)


@pytest.mark.slow
def test_a_sweep_runs_in_arrays(fresh_workflow):
    seeds = "run: {seeds: [0, 1, 2]}\n"
    (fresh_workflow.folder / "seeds.yaml").write_text(seeds)
    arrays = ("--slurm-array-jobs", "select,pretrain")
    targets = [STATEMENT.replace("seed0/eps1/privacy.json", f"seed{seed}/pretrained.safetensors") for seed in (0, 1, 2)]
    code, told = fresh_workflow.run(*WITH_SLURM, *arrays, *CONFIG, "seeds.yaml", "--", *targets)
    assert code == 0, told[-5000:]
    assert told.count("Submitted array job") == 2
    assert all((fresh_workflow.folder / target).exists() for target in targets)


@pytest.mark.slow
def test_the_generic_profile_runs_the_same(here, fresh_workflow):
    code, told = fresh_workflow.run("--workflow-profile", "profiles/generic", *CONFIG, "--", STATEMENT)
    assert code == 0, told[-5000:]
    assert artifacts(fresh_workflow.folder) == artifacts(here)
    assert ledger(fresh_workflow.folder) == ledger(here)
