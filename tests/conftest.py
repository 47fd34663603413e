"""What several test modules share: a project that ran its whole chain on the toy configuration."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from checkout import ROOT, TOY, copy_project, snakemake
from hypothesis import settings as hypothesis_settings
from xdist.scheduler import LoadScopeScheduling

ON_CHAIN = {
    "tests/test_chain.py", "tests/test_status.py", "tests/test_workflow.py", "tests/security/test_chain_at_rest.py",
}  # fmt: skip


hypothesis_settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
hypothesis_settings.load_profile("untimed")


@pytest.fixture(scope="session")
def fresh(tmp_path_factory) -> Path:
    """A copy of the project in which nothing ran. Leave it so."""
    return copy_project(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="session")
def chain(tmp_path_factory) -> Path:
    """A copy of the project in which the whole chain ran on ``tests/toy.yaml``. Leave it as it is."""
    folder = copy_project(tmp_path_factory.mktemp("chain"))
    where = [sys.executable, "-c", "import privimage; print(privimage.__file__)"]
    used = subprocess.run(where, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    assert Path(used).parent == folder / "privimage"  # `python -m` in this folder runs this folder's package
    start = time.monotonic()
    done = snakemake(folder, "--cores", "2", *TOY, timeout=600)
    print(f"the chain took {time.monotonic() - start:.0f} s")
    if done.returncode:
        pytest.fail(f"the chain failed:\n{done.stdout[-8000:]}")
    return folder


def pytest_configure(config):
    """Where several processes share the cores, each keeps to one."""
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)


class Files(LoadScopeScheduling):
    """Each file goes to one process as a whole, those that need the finished chain to the same one, faults to one."""

    def _split_scope(self, nodeid):
        name = nodeid.partition("::")[0]
        return "chain" if name in ON_CHAIN else "faults" if name.startswith("tests/faults/") else name


def pytest_xdist_make_scheduler(config, log):
    """How tests are handed out."""
    return Files(config, log)


def pytest_collection_modifyitems(config, items):
    """Slow tests and those on Slurm run where ``-m`` asks for them, those for a GPU where there is one."""
    slow = "" if "slow" in config.option.markexpr else "slow; run with -m slow"
    gpu = "" if torch.cuda.is_available() else "no CUDA device"
    slurm = "" if "slurm" in config.option.markexpr else "brings up a Slurm; run with -m slurm"
    for item in items:
        for marker, reason in (("slow", slow), ("gpu", gpu), ("slurm", slurm)):
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def umask():
    """A stage that runs in this process closes what it writes to others; the next test begins as this one did."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets (PRIVIMAGE_DATA, or beside the checkout); without it, tests that need it skip."""
    folder = Path(os.environ.get("PRIVIMAGE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data sets in {folder}; set PRIVIMAGE_DATA")
    return folder
