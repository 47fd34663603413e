"""A stage starts as wide as its rule's resources say; several processes end together, with one sentence."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from privimage import cli, gpus, launch, stopping
from privimage.errors import UserError


class Became(Exception):
    """The process would now be another program."""


@pytest.fixture
def becomes(monkeypatch):
    """Calls the launcher; returned is the command line of what it becomes."""

    def refuse(program, words):
        assert program == words[0]
        raise Became(words)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["launch", *words])
        with pytest.raises(Became) as found:
            launch.main()
        return found.value.args[0]

    monkeypatch.setenv(gpus.VISIBLE, "")
    monkeypatch.setattr(os, "execv", refuse)
    return call


def test_a_single_process_is_the_stage_itself_with_its_flags_untouched(becomes):
    words = ["query", "--settings", '{"top_k": 1}', "--gpus", "9"]
    assert becomes("--gpus", "1", "--", *words) == [sys.executable, "-m", "privimage.query", *words[1:]]


def test_gpus_that_were_asked_for_in_the_scheduler_s_own_words_are_used(becomes, monkeypatch):
    monkeypatch.setenv(gpus.REQUIRED, "")
    monkeypatch.setenv(gpus.SHARED, "given")
    monkeypatch.setenv(gpus.VISIBLE, "5,6")
    assert becomes("--gpus", "0", "--", "query")[2] == "privimage.query" and os.environ[gpus.VISIBLE] == "5"
    monkeypatch.setenv(gpus.VISIBLE, "5,6")
    wide = []
    monkeypatch.setattr(launch, "_together", lambda program, stage, processes, *rest: wide.append(processes))
    monkeypatch.setattr(sys, "argv", ["launch", "--gpus", "0", "--", "finetune"])
    launch.main()
    assert wide == [2] and os.environ[gpus.VISIBLE] == "5,6"


def test_several_nodes_are_started_by_slurm_and_meet_at_one_address(becomes, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "srun").write_text("")
    (tmp_path / "srun").chmod(0o755)
    own = ["--gpus", "4", "--nodes", "2", "--", "pretrain", "--seed", "0"]
    srun, *words = becomes(*own)
    assert srun == str(tmp_path / "srun") and words[:3] == ["--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    meeting = words[words.index("--meeting") + 1]
    assert meeting.rpartition(":")[2].isdigit() and words[-len(own) :] == own


def test_processes_do_not_share_a_gpu(monkeypatch):
    monkeypatch.setenv(gpus.VISIBLE, "0")
    monkeypatch.delenv(gpus.SHARED, raising=False)
    monkeypatch.setattr(sys, "argv", ["launch", "--gpus", "1", "--processes", "2", "--", "finetune"])
    with pytest.raises(UserError, match="got gpu: 1 and processes: 2 where there is a GPU"):
        launch.main()


def test_what_another_launcher_left_in_the_environment_reaches_no_stage(becomes, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_ERROR_FILE"):
        monkeypatch.setenv(name, "1")
    becomes("--gpus", "1", "--", "pretrain")
    assert not {"RANK", "WORLD_SIZE", "TORCHELASTIC_ERROR_FILE"} & set(os.environ)


@pytest.mark.parametrize(
    "words, told",
    [
        (["--gpus", "2", "--", "query"], "`query` computes in one process, got gpu: 2"),
        (["--processes", "2", "--", "accuracy"], "`accuracy` computes in one process"),
        (["--gpus", "2", "--processes", "3", "--", "sample"], "there is one process for each"),
        (["--nodes", "2", "--", "sample"], "needs a job of Slurm"),
        (["--", "finetun"], "`finetun` is no stage; expected one of .*finetune"),
    ],
)
def test_what_cannot_be_started_is_refused_in_one_sentence(words, told, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(sys, "argv", ["launch", *words])
    with pytest.raises(UserError, match=told):
        launch.main()


def failure(exitcode, message="", said=False):
    return SimpleNamespace(exitcode=exitcode, error_file_data={"message": {"message": message}} if said else {})


@pytest.mark.parametrize(
    "failures, code, told",
    [
        ({0: failure(75, "stopped since", True), 1: failure(-9)}, 75, "process 1 of finetune was ended by SIGKILL"),
        ({0: failure(75, "stopped since", True), 1: failure(2, "no such file.", True)}, 2, "no such file."),
        ({0: failure(75, "stopped by SIGTERM.", True), 1: failure(-15)}, 75, "stopped by SIGTERM."),
        ({0: failure(1), 1: failure(75, "stopped since", True)}, 1, "process 0 of finetune failed with exit code 1"),
    ],
)
def test_the_sentence_is_of_the_process_that_ended_the_others(failures, code, told, capsys):
    assert launch._told(failures, "finetune") == code
    err = capsys.readouterr().err
    assert err.startswith(f"error: {told}") and err.count("\n") == 1


def started(*words, **more):
    words = [sys.executable, "-m", "privimage.launch", *words]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def test_what_is_wrong_for_all_processes_is_said_once(tmp_path):
    words = ["sample", "--weights", tmp_path / "nowhere", "--seed", "0", "--settings", "{}", "--checkpoints", tmp_path]
    words += ["--images", tmp_path / "images", "--grid", tmp_path / "grid"]
    process = started("--processes", "2", "--", *words)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 2 and out == "" and err.count("\n") == 1
    assert err == f"error: {tmp_path / 'nowhere'} does not exist; run the stage that writes it.\n"


def test_a_port_that_is_taken_is_said_at_once(monkeypatch):
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        with pytest.raises(UserError, match=r"cannot meet at .*:\d+ \(Address already in use\); start again"):
            launch._check_port(f"node:{taken.getsockname()[1]}")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["launcher told", "all told", "one killed", "launcher killed", "driver gone"])
def test_several_processes_end_together_and_the_same_command_goes_on(how, tmp_path):
    from several_stages import finetune_words, result

    words = finetune_words(tmp_path, num_steps=400)
    command = ["--gpus", "0", "--processes", "2", "--", "finetune", *words]
    driver = subprocess.Popen(["sleep", "1000"])
    place = stopping.this_process().rpartition(" ")[0]
    process = started(*command, start_new_session=True, env={**os.environ, stopping.DRIVER: f"{place} {driver.pid}"})
    at = tmp_path / "state" / "set" / "finetune"
    while not list(at.glob("*/checkpoint/checkpoint-0.safetensors")) or len(ranks_of(process.pid)) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    time.sleep(2)
    ranks = ranks_of(process.pid)
    if how == "launcher told":
        process.terminate()
    elif how == "all told":
        os.killpg(process.pid, signal.SIGTERM)
    elif how == "one killed":
        os.kill(ranks[1], signal.SIGKILL)
    elif how == "launcher killed":
        process.kill()
    else:
        driver.kill()
    _, err = process.communicate(timeout=100)
    driver.kill()
    deadline = time.monotonic() + 40
    while any(map(alive, ranks)):
        assert time.monotonic() < deadline, "a process outlived its launcher"
        time.sleep(0.2)
    if how != "launcher killed":
        assert process.returncode == stopping.EXIT_CODE and "Traceback" not in err, err
        told = {
            "one killed": "error: process 1 of finetune was ended by SIGKILL",
            "driver gone": "error: stopped since",
        }
        assert told.get(how, "error: stopped by SIGTERM; ") in err and err.count("error: ") == 1, err
        assert "terminate called" not in err, err
    again = started(*command)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0 and "skipped" not in err, err  # what was begun is replayed, not lost
    assert result(tmp_path)


def ranks_of(launcher: int) -> list[int]:
    children = subprocess.run(
        ["pgrep", "-P", str(launcher)], capture_output=True, text=True, check=False
    ).stdout.split()
    return sorted(map(int, children))


def alive(pid: int) -> bool:
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_stages_that_several_may_compute_are_stages():
    assert set(launch.TOGETHER) < set(cli.STAGES)
