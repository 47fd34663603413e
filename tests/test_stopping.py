"""A stage that is told to stop ends soon, after its loop has saved, and asks for another try."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from privimage import stopping

STAGE = """
import sys, time
from privimage import cli, stopping

stopping.PATIENCE = 1.0

def main():
    if sys.argv[1] == "saving":
        with stopping.deferred():
            print(0, flush=True)
            while not stopping.asked():
                time.sleep(0.05)
            time.sleep(0.5)
            print("saved", flush=True)
            stopping.check()
    if sys.argv[1] == "loop":
        with stopping.deferred():
            for step in range(600):
                print(step, flush=True)
                time.sleep(0.05)
                if step and stopping.asked():
                    print("saved", flush=True)
                    stopping.check()
    if sys.argv[1] == "stubborn":
        with stopping.deferred():
            print(0, flush=True)
            for _ in range(600):
                time.sleep(0.05)
    print(0, flush=True)
    time.sleep(30)

cli.run(main)
"""


def start(kind: str, **environment: str) -> subprocess.Popen:
    """A stage that has begun to work."""
    stage = subprocess.Popen(
        [sys.executable, "-c", STAGE, kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert stage.stdout.readline() == "0\n"
    return stage


def end(stage: subprocess.Popen) -> tuple[int, str, str]:
    out, err = stage.communicate(timeout=20)
    return stage.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_loop_saves_first(number):
    stage = start("loop")
    stage.send_signal(number)
    code, out, err = end(stage)
    assert code == stopping.EXIT_CODE
    assert out.endswith("saved\n")
    assert err == (f"error: stopped by {number.name}; the same command, given again, goes on from what was saved.\n")


def test_elsewhere_it_ends_at_once():
    stage = start("idle")
    stage.terminate()
    began = time.monotonic()
    assert end(stage)[0] == stopping.EXIT_CODE
    assert time.monotonic() - began < 5


def test_it_is_not_disturbed_while_it_saves_though_the_whole_group_is_told_and_its_driver_ends():
    driver = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stage = start("saving", PRIVIMAGE_DRIVER=named(driver.pid))
    stage.terminate()
    driver.kill()
    driver.communicate()
    stage.send_signal(signal.SIGINT)
    stage.terminate()
    code, out, err = end(stage)
    assert (code, out) == (stopping.EXIT_CODE, "saved\n") and err.startswith("error: stopped")


def test_a_later_signal_ends_what_does_not_come_to_an_end():
    stage = start("stubborn")
    stage.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        stage.wait(1.2)
    stage.terminate()
    assert end(stage)[0] == -signal.SIGTERM


def test_it_ends_with_the_process_that_started_it_though_that_was_killed():
    driver = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stage = start("loop", PRIVIMAGE_DRIVER=named(driver.pid))
    driver.kill()  # and left as a zombie
    code, out, err = end(stage)
    driver.communicate()
    assert code == stopping.EXIT_CODE
    assert out.endswith("saved\n")
    assert "since the Snakemake that started it is gone" in err


def named(pid: int) -> str:
    """What a driver of that number would have named itself by."""
    return stopping.this_process().replace(str(os.getpid()), str(pid))


def test_it_ends_where_the_process_that_started_it_is_gone_already():
    driver = subprocess.Popen(["true"])
    driver.wait()
    stage = subprocess.run(
        [sys.executable, "-c", STAGE, "idle"],
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, "PRIVIMAGE_DRIVER": named(driver.pid)},
    )
    assert stage.returncode == stopping.EXIT_CODE and "Snakemake that started it is gone" in stage.stderr


@pytest.mark.parametrize("driver", ["elsewhere 1 1", f"{socket.gethostname()} 1 {2**22}", "nonsense", ""])
def test_a_driver_that_cannot_be_seen_from_here_is_not_watched(driver):
    stage = start("idle", PRIVIMAGE_DRIVER=driver)
    with pytest.raises(subprocess.TimeoutExpired):
        stage.wait(0.5)
    stage.kill()
    end(stage)


def test_nobody_reads_what_it_prints_while_it_is_stopped():
    """A scheduler signals the reader of a log along with the stage."""
    stage = start("loop")
    stage.stdout.close()
    stage.stderr.close()
    stage.terminate()
    assert stage.wait(20) in (stopping.EXIT_CODE, 141)
