"""What a scheduler would refuse, or cannot be asked, ends the start with one sentence, before anything is submitted."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from checkout import ROOT, copy_project, dry_run
from local_slurm import COMMANDS, own_slurm
from slurm_workflow import CONFIG, WITH_SLURM, Workflow

SUBSET = "results/digits/pdp/seed0/subset.json"
SHARD = "results/public/glyphs8/shards/0-of-1.shard"
on_slurm = pytest.mark.slurm


PLUGINS = pytest.mark.skipif(find_spec("snakemake_executor_plugin_slurm") is None, reason="needs the extra `cluster`")


@pytest.fixture(scope="module")
def workflow(tmp_path_factory, slurm) -> Iterator[Workflow]:
    """Nothing ran in it; what starts in it is refused."""
    workflow = Workflow(copy_project(tmp_path_factory.mktemp("refused")), slurm)
    yield workflow
    workflow.close()


def refused(workflow: Workflow, *words: str) -> str:
    """The one sentence with which Snakemake ended, having submitted nothing."""
    before = len(workflow.slurm.jobs())
    code, told = workflow.run(*WITH_SLURM, *CONFIG, *words, timeout=60)
    assert code == 1 and "Traceback" not in told, told
    assert len(workflow.slurm.jobs()) == before
    (sentence,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert told.rstrip().endswith(sentence) and sentence.endswith(".")
    return sentence


@on_slurm
@pytest.mark.parametrize(
    "asked, why",
    [
        ("slurm_partition=nowhere", "Invalid partition name specified"),
        ("gpu=2", "Requested node configuration is not available"),
        ("gres=tpu:1", "Invalid generic resource (gres) specification"),
        ("mem_mb=900000", "Requested node configuration is not available"),
        ("constraint=a100", "Invalid feature specification"),
    ],
)
def test_what_slurm_refuses_is_said_before_anything_is_submitted(workflow, asked, why):
    sentence = refused(workflow, "--set-resources", f"shard_public:{asked}", "--", SHARD)
    assert f"Slurm does not run jobs of the rule shard_public ({why_in(sentence)})" in sentence and why in sentence
    assert "change in the profile what they ask for" in sentence


def why_in(sentence: str) -> str:
    """What stands in the outer brackets."""
    return sentence.partition(" (")[2].rpartition("), which ask for")[0]


@on_slurm
def test_a_job_that_would_wait_for_ever_is_refused_too(workflow):
    asked = ["shard_public:slurm_partition=short", "shard_public:runtime=11"]
    sentence = refused(workflow, "--set-resources", *asked, "--", SHARD)
    assert "the partition short gives 10 minutes at most" in sentence
    assert "--partition=short --time=11" in sentence


@on_slurm
def test_a_slurm_that_does_not_answer_is_said(workflow, tmp_path):
    """As when the login node is cut off."""
    configuration = (workflow.slurm.folder / "slurm.conf").read_text().replace("SlurmctldPort", "# ").splitlines()
    (tmp_path / "slurm.conf").write_text("\n".join([*configuration, "SlurmctldPort=1", "MessageTimeout=2"]))
    for name in COMMANDS:
        text = f'#!/bin/sh\nexport SLURM_CONF={tmp_path}/slurm.conf\nexec {shutil.which(name)} "$@"\n'
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    cut_off = Workflow(workflow.folder, workflow.slurm)
    cut_off.environment = {**cut_off.environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert "Unable to contact slurm controller" in refused(cut_off, "--", SHARD)


@on_slurm
@pytest.mark.slow
def test_where_only_gres_is_known_the_anchor_of_the_profile_serves_every_stage(fresh_workflow, slurm):
    profile = fresh_workflow.folder / "profiles/slurm/config.yaml"
    profile.write_text(profile.read_text().replace("&gpu {}", '&gpu {gpu: 0, gres: "gpu:1"}'))
    code, told = fresh_workflow.run(*WITH_SLURM, *CONFIG, "--", "results/public/glyphs8/classifier.safetensors")
    assert code == 0, told[-3000:]
    assert "gres=gpu:1" in told and slurm.jobs()[-1]["state"] == "COMPLETED"


@on_slurm
@pytest.mark.slow
def test_a_site_without_gpus_says_so_and_the_anchor_serves_it_too(tmp_path):
    with own_slurm(gpus="none") as without:
        workflow = Workflow(copy_project(tmp_path / "run"), without)
        target = "results/public/glyphs8/classifier.safetensors"
        assert "Slurm does not run jobs of the rule classifier" in refused(workflow, "--", target)
        profile = workflow.folder / "profiles/slurm/config.yaml"
        profile.write_text(profile.read_text().replace("&gpu {}", "&gpu {gpu: 0}"))
        code, told = workflow.run(*WITH_SLURM, *CONFIG, "--", target)
        assert code == 0, told[-3000:]


@on_slurm
@pytest.mark.slow
def test_a_second_start_in_one_folder_is_told_of_the_first(workflow):
    first = workflow.begin(*WITH_SLURM, *CONFIG, "--", SUBSET, told="first")
    try:
        while "Execute" not in workflow.told("first"):
            assert first.poll() is None, workflow.told("first")
        code, told = workflow.run(*WITH_SLURM, *CONFIG, "--", SUBSET, timeout=60)
        assert code == 1 and "Directory cannot be locked" in told and "Traceback" not in told
        assert first.wait(200) == 0, workflow.told("first")
    finally:
        first.kill()


@PLUGINS
@pytest.mark.parametrize("profile, command", [("slurm", "sbatch"), ("generic", "sbatch")])
def test_without_the_command_that_submits_one_sentence_says_so(tmp_path, profile, command):
    """On a laptop, or where a module is not loaded."""
    folder, bin = copy_project(tmp_path / "run"), tmp_path / "bin"
    bin.mkdir()
    for path in (path for place in ("/usr/bin", "/bin") for path in Path(place).iterdir()):
        if path.name not in COMMANDS and not (bin / path.name).exists():
            (bin / path.name).symlink_to(path)
    workflow = Workflow(folder)
    workflow.environment["PATH"] = str(bin)
    code, told = workflow.run("--workflow-profile", f"profiles/{profile}", *CONFIG, "--", SHARD, timeout=60)
    assert code == 1 and "Traceback" not in told, told
    assert told.splitlines()[-1].startswith("error: `--executor ")
    assert f"submits jobs by {command}, which is not on this machine's PATH" in told.splitlines()[-1]


def test_the_profile_for_slurm_has_a_line_for_every_rule_that_asks_for_a_gpu(fresh):
    rules = (ROOT / "workflow/rules").glob("*.smk")
    bodies = [part for path in rules for part in re.split(r"^(?=(?:use )?rule )", path.read_text(), flags=re.M)]
    asking = {re.search(r"rule (\w+)", body)[1] for body in bodies if re.search(r"^        gpu=[1-9]", body, re.M)}
    asking |= {m[2] for body in bodies if (m := re.match(r"use rule (\w+) as (\w+)", body)) and m[1] in asking}
    listed = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())["set-resources"]
    assert asking == set(listed) and len(asking) > 10


@PLUGINS
@pytest.mark.parametrize("name", ["slurm", "generic"])
def test_profiles_say_how_to_run_and_never_what(fresh, name):
    profile = yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text())
    assert profile.items() >= yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text()).items()
    assert not {"config", "configfile", "keep" + "-incomplete", "forceall"} & set(profile)
    jobs = dry_run(fresh, "--workflow-profile", f"profiles/{name}", *CONFIG)
    assert {job.rule for job in jobs} == {job.rule for job in dry_run(fresh, "--cores", "1", *CONFIG)}
