"""What the workflow's graph and commands let out of ``internal/``, found from the jobs of a dry-run alone."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from checkout import Job

PRIVATE = {"query", "finetune"}  # the only rules that lead out of internal/
PUBLIC = {"download", "download_inception", "shard_public", "preprocess_public", "classifier"}
MAY_WRITE_OUTSIDE = {*PRIVATE, *PUBLIC, "select", "pretrain", "sample_part", "sample", "statements",
                     "release", "report"}  # fmt: skip
TAIL = re.compile(r" 2>&1 \| tee (\S+)( \|\| \{ rm -f [^;&|$`<>]*; exit 1; \})?$")  # of every command
RELEASED = {"query": {"--histogram"}, "finetune": {"--weights", "--privacy"}}  # flags by which something comes out


def is_internal(path: str) -> bool:
    """Whether the path leads through a folder named ``internal``."""
    return "internal" in Path(path).parts


def leaks(jobs: list[Job]) -> set[str]:
    """Files outside internal/ that can be reached from a file inside it other than through a private job."""
    reached = {path for job in jobs for path in (*job.input, *job.output) if is_internal(path)}
    while True:
        new = {p for j in jobs if j.rule not in PRIVATE and reached & {*j.input} for p in (*j.output, *j.notes)}
        new |= {path for job in jobs if reached & {*job.input, *job.output} for path in job.notes}  # private ones' too
        if new <= reached:
            return {path for path in reached if not is_internal(path)}
        reached |= new


def crossings(jobs: list[Job]) -> set[str]:
    """The rules at which something internal gets out: what `leaks` finds begins at one of them."""
    inside = {path for job in jobs for path in (*job.input, *job.output) if is_internal(path)}
    return {
        job.rule
        for job in jobs
        for path in (*(job.output if job.rule not in PRIVATE and inside & {*job.input} else ()), *_told(job, inside))
        if not is_internal(path)
    }


def _told(job: Job, inside: set[str]) -> tuple[str, ...]:
    return job.notes if inside & {*job.input, *job.output} else ()


START = re.compile(  # how the stage is started: by itself, or by what gives it GPUs and processes
    r"python -m privimage\.(?:launch --gpus \d+ (?:--nodes \d+ --processes \d+ )?-- )?"
)


def loose(jobs: list[Job]) -> set[tuple[str, str]]:
    """(rule, why) of the commands that could carry something past the graph, which knows inputs and outputs alone.

    Each command is one program of ours. What may leave is written by commands that name nothing internal and no state
    folder, but for the private ones, whose only outputs outside are those that the ledger covers. What is internal is
    written by commands that name no file outside which is not an input.
    """
    return {(job.rule, why) for job in jobs for why in _why(job)}


def _why(job: Job) -> Iterator[str]:
    command = TAIL.sub("", job.command)
    if command == job.command:
        yield "its output does not go to a log in the usual way"
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    stage = job.rule.split("_")[0]
    if START.sub("", command).split(maxsplit=1)[0:1] != [stage]:
        yield "is no stage"
    if re.search(r"[;&|<>`]|\$\(|\$\{", re.sub(r"'[^']*'", "", command)):
        yield "is more than one program"
    if job.rule not in MAY_WRITE_OUTSIDE and not all(map(is_internal, job.output)):
        yield "is not known to write what may leave"
    named = {path for word in words[3:] for path in _paths(word)}
    if job.rule in PRIVATE:
        out = {word for flag, word in zip(words, words[1:]) if flag in RELEASED[job.rule]}
        out |= {path for path in job.output if is_internal(path)}
        if set(job.output) != out:
            yield "declares another output than the ledger covers"
    elif not all(map(is_internal, job.output)):
        if any(map(is_internal, named)) or "internal/" in command or "--state-dir" in words:
            yield "writes what may leave and names what may not"
        if re.search(r"odometer|(^|[ /=\"'])state/", command.replace(" state/checkpoints/", " ")):
            yield "writes what may leave and names the state folder"
    known = {*job.input, *job.output, *(str(Path(path).parent) for path in job.output)}
    known |= {path for path in named if "/benchmarks/" in path}  # read where they are there
    strange = {path for path in named - known if path.startswith(("results/", "/", "../", "~"))}
    if strange:
        yield "names a file that is neither its input nor its output"


def _paths(word: str) -> Iterator[str]:
    """The paths of an argument: itself, or those of its JSON."""
    try:
        value = json.loads(word)
    except ValueError:
        value = word
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, list):
            stack += item
        elif isinstance(item, str) and "/" in item:
            yield item
