"""Several nodes compute one stage, several sweeps share one ledger, a GPU that nobody can use is said."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from checkout import copy_project
from local_slurm import own_slurm
from safetensors.torch import load_file
from slurm_workflow import CELL, CONFIG, STATEMENT, WITH_SLURM, Workflow

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

WIDE = {  # nodes of a wider fine-tuning, and what it asks for; `mpi` leaves it to the stage to start its processes
    "n1": ("processes=2",),
    "n[1-2]": ("gpu=0", "nodes=2", "mpi=srun", "tasks=2"),
}


@pytest.mark.parametrize("nodes", WIDE)
def test_several_processes_or_nodes_end_with_the_weights_of_one_process(here, pretrained, nodes):
    asked = [f"finetune:{resource}" for resource in WIDE[nodes]]
    code, told = pretrained.run(*WITH_SLURM, *CONFIG, "--set-resources", *asked, "--", STATEMENT)
    assert code == 0, told[-5000:]
    (job,) = [job for job in pretrained.slurm.jobs() if "rule_finetune" in job["comment"]][-1:]
    assert job["state"] == "COMPLETED" and (job["node"] == "n[1-2]") == (nodes == "n[1-2]")
    ours, theirs = (load_file(folder / CELL / "finetuned.safetensors") for folder in (pretrained.folder, here))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].allclose(theirs[name], rtol=1e-4, atol=1e-5) for name in ours)
    stated = [json.loads((folder / STATEMENT).read_text()) for folder in (pretrained.folder, here)]
    for statement in stated:
        del statement["sha256"], statement["provenance"]["parents"]["weights"]  # the same up to rounding
    assert stated[0] == stated[1]


def test_two_sweeps_in_two_folders_share_one_ledger(tmp_path, here, slurm):
    """One release in both, and one more in each; of the one, one start works and the other finds it done."""
    workflows = []
    for number, seeds in enumerate(([0, 1], [0, 2])):
        folder = shutil.copytree(here, tmp_path / str(number), symlinks=True)
        for made in ("results/digits/pdp", "state"):
            shutil.rmtree(folder / made)
        changed = {"state_dir": str(tmp_path / "state"), "run": {"seeds": seeds}}
        (folder / "shared.yaml").write_text(yaml.safe_dump(changed))
        workflows.append(Workflow(folder, slurm))
    try:
        drivers = []
        for workflow, seeds in zip(workflows, ([0, 1], [0, 2])):
            targets = [STATEMENT.replace("seed0", f"seed{seed}") for seed in seeds]
            drivers.append(workflow.begin(*WITH_SLURM, *CONFIG, "shared.yaml", "--", *targets))
        codes = [driver.wait(400) for driver in drivers]
        assert codes == [0, 0], [workflow.told()[-3000:] for workflow in workflows]
    finally:
        for workflow in workflows:
            workflow.close()
    lines = (tmp_path / "state/digits/odometer.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["label"] for line in lines) == [f"pdp epsilon 1 seed {seed}" for seed in (0, 1, 2)]
    first, second = ((workflow.folder / STATEMENT).read_bytes() for workflow in workflows)
    assert first == second


def test_a_gpu_that_was_given_and_cannot_be_used_is_said(tmp_path):
    with own_slurm(gpus="named") as slurm:
        workflow = Workflow(copy_project(tmp_path / "run"), slurm)
        target = "results/public/glyphs8/classifier.safetensors"
        code, _ = workflow.run(*WITH_SLURM, "--retries", "0", *CONFIG, "--", target)
        log = (workflow.folder / "results/public/glyphs8/logs/classifier.log").read_text()
        assert code == 1 and "Traceback" not in log
        assert log.splitlines()[-1].startswith("error: a GPU was asked for and given (CUDA_VISIBLE_DEVICES=0)")
