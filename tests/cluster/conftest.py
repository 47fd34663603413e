"""What tests on a real Slurm share: the Slurm, copies of the project in which it may run, and runs through it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import copy_project, snakemake
from local_slurm import LocalSlurm, missing, own_slurm
from slurm_workflow import CELL, CONFIG, SLOWED, STATEMENT, Workflow


@pytest.fixture(scope="session")
def slurm() -> Iterator[LocalSlurm]:
    """Two nodes. Leave them idle."""
    reason = missing()
    if reason:
        pytest.skip(f"no Slurm here: {reason}")
    with own_slurm() as running:
        yield running


@pytest.fixture(scope="session")
def here(tmp_path_factory) -> Path:
    """A copy of the project that ran on this machine, without Slurm, as far as one release. Leave it as it is."""
    folder = copy_project(tmp_path_factory.mktemp("here"))
    done = snakemake(folder, "--cores", "2", *CONFIG, "--", STATEMENT)
    assert done.returncode == 0, done.stdout[-3000:]
    return folder


@pytest.fixture
def fresh_workflow(tmp_path, slurm) -> Iterator[Workflow]:
    """Nothing ran in it."""
    workflow = Workflow(copy_project(tmp_path / "run"), slurm)
    yield workflow
    workflow.close()


@pytest.fixture
def pretrained(here, tmp_path, slurm) -> Iterator[Workflow]:
    """All but the fine-tuning ran in it; and it can be slowed."""
    folder = shutil.copytree(here, tmp_path / "run", symlinks=True)
    shutil.rmtree(folder / CELL)
    shutil.rmtree(folder / "state/digits")
    with open(folder / "privimage/stopping.py", "a") as file:
        file.write(SLOWED)
    workflow = Workflow(folder, slurm)
    yield workflow
    workflow.close()
