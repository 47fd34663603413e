"""Copies of the project in which snakemake may run, and what a dry-run says of each job."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOY = ("--configfile", "tests/toy.yaml")
TARGETS = ("all", "ablations", "study", "paper", "picks", "hindsight")
SUBJECT = ("method", "seed", "epsilon")  # the wildcards that tell jobs of one rule apart


@dataclass(frozen=True)
class Job:
    """One job of a dry-run; ``command`` is empty without ``-p``, ``memory`` is in MB."""

    rule: str
    input: tuple[str, ...]
    output: tuple[str, ...]
    notes: tuple[str, ...]  # log and benchmark
    wildcards: dict[str, str]
    command: str
    memory: int

    @property
    def name(self) -> str:
        """The rule and its method, seed and epsilon, as in ``finetune pdp seed0 eps1``."""
        prefix = {"method": "", "seed": "seed", "epsilon": "eps"}
        return " ".join([self.rule, *(prefix[n] + self.wildcards[n] for n in SUBJECT if n in self.wildcards)])


def project_files() -> list[Path]:
    """Every file of the project, as paths within it: tracked, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


def copy_project(folder: Path) -> Path:
    """The folder holds the project as it stands, without what git ignores."""
    for path in project_files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path)
    return folder


def copy_run(run: Path, folder: Path) -> Path:
    """The folder is a copy of a project that ran, to the nanosecond of each file's time."""
    return shutil.copytree(run, folder / "run", symlinks=True)


def snakemake(folder: Path, *args: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """What snakemake did in the folder; the folder's own package is the one in use."""
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *args],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )


def dry_run(folder: Path, *args: str) -> list[Job]:
    """The jobs that snakemake would run, without the rules that are targets alone."""
    done = snakemake(folder, "--dry-run", *args)
    assert done.returncode == 0, done.stdout
    jobs = parse_jobs(done.stdout)
    assert bool(jobs) != ("Nothing to be done" in done.stdout), done.stdout  # the parser saw what there was to see
    return [job for job in jobs if job.rule not in TARGETS]


def parse_jobs(text: str) -> list[Job]:
    """The jobs in the output of a dry-run."""
    jobs = []
    for rule, body in re.findall(r"^(?:local)?rule (\w+):\n((?:    .+\n|Shell command: .*\n)+)", text, re.MULTILINE):
        field = dict(re.findall(r"^(?:    )?(input|output|log|benchmark|wildcards|Shell command): (.*)$", body, re.M))
        files = {key: tuple(field.get(key, "").split(", ")) if field.get(key) else () for key in field}
        wildcards = dict(pair.split("=", 1) for pair in files.get("wildcards", ()))
        notes = files.get("log", ()) + files.get("benchmark", ())
        command = field.get("Shell command", "")
        memory = int("".join(re.findall(r"^    resources: .*\bmem_mb=(\d+)", body, re.M)) or 0)  # `all` asks for none
        jobs.append(Job(rule, files.get("input", ()), files.get("output", ()), notes, wildcards, command, memory))
    return jobs
