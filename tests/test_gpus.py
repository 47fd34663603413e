"""Stages beside each other get different GPUs, or wait; a scheduler's choice is kept; none where none is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch

from privimage import gpus, stopping
from privimage.device import default_device
from privimage.errors import UserError

SMI = '#!/bin/sh\nfor n in 0 1 2; do echo "GPU $n: Some (UUID: GPU-$n$n)"; done\n'


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What a claim tells the programs to come is forgotten again."""
    before = dict(os.environ)
    for name in (gpus.VISIBLE, gpus.SHARED, gpus.REQUIRED):
        os.environ.pop(name, None)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with three GPUs, as its driver's program tells."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setattr(gpus, "LOCKS", tmp_path)
    return program


def holder(count):
    """A process that has claimed so many GPUs, has become another program, and ends once its input closes."""
    code = f"import os, pathlib; from privimage import gpus; gpus.LOCKS = pathlib.Path({str(gpus.LOCKS)!r})"
    code += f"; gpus.claim({count}); os.execvp('sh', ['sh', '-c', {HOLD!r}])"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


HOLD = "echo $CUDA_VISIBLE_DEVICES; cat"


def test_stages_side_by_side_get_different_gpus_and_the_next_waits_for_enough(machine, monkeypatch):
    monkeypatch.setenv(gpus.SHARED, "shared")
    first = holder(1)
    assert first.stdout.readline() == "0\n"
    second = holder(1)
    assert second.stdout.readline() == "1\n"
    third = holder(2)
    assert third.stderr.readline() == "waiting for 2 of 3 GPUs, which other stages use\n"
    small = holder(1)
    assert small.stdout.readline() == "2\n"  # what is not enough for one is not kept from another
    for done in (first, small):  # their programs end, and so do their locks
        done.communicate("")
    assert third.stdout.readline() == "0,2\n"
    for process in (second, third):
        process.communicate("")


def test_a_stage_that_waits_stops_when_it_is_told_to(machine, monkeypatch):
    monkeypatch.setenv(gpus.SHARED, "shared")
    first = holder(3)
    first.stdout.readline()
    monkeypatch.setattr(stopping, "_why", "by SIGTERM")
    monkeypatch.setattr(gpus, "PATIENCE", 0.0)
    with pytest.raises(stopping.Stopped):
        gpus.claim(1)
    first.communicate("")


def test_those_that_the_user_names_are_shared_among_stages(machine, monkeypatch):
    monkeypatch.setenv(gpus.SHARED, "shared")
    monkeypatch.setenv(gpus.VISIBLE, "2,GPU-22,GPU-11")
    first = holder(1)
    assert first.stdout.readline() == "2\n"
    second = holder(1)
    assert second.stdout.readline() == "GPU-11\n"  # GPU-22 is the first one's, by another name
    for process in (first, second):
        process.communicate("")


def test_what_a_scheduler_gave_is_kept_and_must_be_usable(machine, monkeypatch):
    monkeypatch.setenv(gpus.SHARED, "given")
    monkeypatch.setenv(gpus.VISIBLE, "0")  # in every job, where each sees its own alone
    for _ in range(2):
        start = time.monotonic()
        gpus.claim(1)
        assert os.environ[gpus.VISIBLE] == "0" and time.monotonic() - start < 1
    with pytest.raises(UserError, match="asks for 4 GPUs, and 1 can be seen on"):
        gpus.claim(4)


def test_a_gpu_that_was_given_and_cannot_be_used_is_no_reason_to_compute_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device().type == "cpu"
    monkeypatch.setenv(gpus.SHARED, "given")
    monkeypatch.setenv(gpus.VISIBLE, "3")
    gpus.claim(1)
    with pytest.raises(UserError, match=r"CUDA_VISIBLE_DEVICES=3\), and torch cannot use it.*set the resource `gpu`"):
        default_device()


@pytest.mark.parametrize("word", ["", "-1", "NoDevFiles"])
def test_a_scheduler_s_word_for_none_is_none(monkeypatch, word):
    monkeypatch.setenv(gpus.SHARED, "given")
    monkeypatch.setenv(gpus.VISIBLE, word)
    assert gpus.given() == []


def test_none_is_seen_where_none_is_asked_for(machine, monkeypatch):
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    gpus.claim(0)
    assert os.environ[gpus.VISIBLE] == ""


def test_one_is_done_without_where_there_is_none_and_several_are_not(machine, monkeypatch):
    machine.unlink()
    monkeypatch.setenv("PATH", str(machine.parent))
    gpus.claim(1)
    assert gpus.VISIBLE not in os.environ
    with pytest.raises(UserError, match="asks for 2 GPUs, and 0 can be seen"):
        gpus.claim(2)
