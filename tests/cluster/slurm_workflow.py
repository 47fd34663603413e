"""Copies of the project whose jobs go to a Slurm, and what to ask of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from checkout import TOY
from local_slurm import LocalSlurm

CONFIG = (*TOY, "tests/cluster/sweeps.yaml")
CELL = "results/digits/pdp/seed0/eps1"
STATEMENT = f"{CELL}/privacy.json"
WITH_SLURM = ("--workflow-profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "1")
SLOWED = """

_prompt_check = check


def check() -> None:
    time.sleep(float(os.environ.get("SECONDS_A_STEP", "0")))
    _prompt_check()
"""


class Workflow:
    """A copy of the project whose jobs go to the Slurm, if there is one."""

    def __init__(self, folder: Path, slurm: LocalSlurm | None = None) -> None:
        self.folder, self.slurm = folder, slurm
        self.environment = {**os.environ, **(slurm.environment if slurm else {}), "NO_COLOR": "1"}
        self.drivers: list[subprocess.Popen] = []

    def begin(self, *words: str, seconds_a_step: float = 0.0, told: str = "told") -> subprocess.Popen:
        """Snakemake, which writes what it says to the file; steps of training take so long at least."""
        environment = {**self.environment, "SECONDS_A_STEP": str(seconds_a_step)}
        with open(self.folder / told, "w") as file:
            driver = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", sys.executable, "-m", "snakemake", *words],  # ends with this
                cwd=self.folder, env=environment, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.drivers.append(driver)
        return driver

    def run(self, *words: str, timeout: float = 300) -> tuple[int, str]:
        """How Snakemake ended, and what it said."""
        return self.begin(*words).wait(timeout), self.told()

    def close(self) -> None:
        """Nothing of it runs any more, whatever became of the test."""
        for driver in self.drivers:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
        if self.slurm:
            self.slurm.cancel_all()

    def told(self, name: str = "told") -> str:
        """What Snakemake has said so far."""
        return (self.folder / name).read_text()
