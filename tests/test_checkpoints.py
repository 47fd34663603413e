"""Checkpoints: read back whole, or refused; one process at a time."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from privimage.checkpoints import Checkpoint, Every, fingerprint, flatten, group
from privimage.errors import UserError

TENSORS = {"raw.w": torch.randn(4, 3), "adam.step": torch.tensor(3.0), "rng": torch.arange(9, dtype=torch.uint8)}
STATE = {"step": 120, "loss": [0.5, 0.25]}


@pytest.fixture
def saved(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c", "name")
    checkpoint.save(TENSORS, STATE)
    return checkpoint


def test_the_last_save_is_loaded(saved):
    saved.save(TENSORS, {"step": 121})
    tensors, state = saved.load()
    assert state == {"step": 121}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0)


def test_there_is_none_at_first_and_none_after_removal(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c", "name")
    assert checkpoint.load() is None
    checkpoint.save(TENSORS, STATE)
    checkpoint.remove()
    assert not (tmp_path / "c").exists()
    assert Checkpoint(tmp_path / "c", "name").load() is None


def test_tensors_that_share_memory_are_saved_apart(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c", "name")
    whole = torch.arange(6.0)
    checkpoint.save({"a": whole[:4], "b": whole[2:], "c": whole}, {})
    assert checkpoint.load()[0]["b"].tolist() == [2, 3, 4, 5]


def test_another_name_is_refused(saved, tmp_path):
    saved._lock.close()
    with pytest.raises(UserError, match="other settings or inputs"):
        Checkpoint(tmp_path / "c", "other").load()


def test_damage_is_refused(saved):
    good = saved.path().read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        saved.path().write_bytes(bad)
        with pytest.raises(UserError):
            saved.load()
    for length in (0, 5, len(good) // 2, len(good) - 1):
        saved.path().write_bytes(good[:length])
        with pytest.raises(UserError, match="damaged"):
            saved.load()


def test_a_half_written_save_leaves_the_one_before(saved, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("privimage.checkpoints.save_file", fail)
    with pytest.raises(UserError, match="disk full"):
        saved.save(TENSORS, {"step": 999})
    assert saved.load()[1] == STATE


def test_its_folder_and_file_are_the_owners_alone(saved):
    assert saved.folder.stat().st_mode & 0o777 == 0o700
    assert saved.path().stat().st_mode & 0o777 == 0o600


def test_a_second_process_is_refused_until_the_first_lets_go(saved):
    # flock belongs to the open file, so another open of the lock is what another process does.
    program = (
        "import fcntl, sys\n"
        "try: fcntl.flock(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except BlockingIOError: sys.exit(7)\n"
    )
    command = [sys.executable, "-c", program, str(saved.folder / "lock")]
    assert subprocess.run(command).returncode == 7
    with pytest.raises(UserError, match="in use by another process"):
        Checkpoint(saved.folder, "name")
    saved._lock.close()
    assert subprocess.run(command).returncode == 0
    assert Checkpoint(saved.folder, "name").load()[1] == STATE


def test_a_killed_process_leaves_no_lock(tmp_path):
    program = (
        "import os, sys\n"
        "from privimage.checkpoints import Checkpoint\n"
        "held = Checkpoint(sys.argv[1], 'name')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "c")])
    assert done.returncode == -9
    Checkpoint(tmp_path / "c", "name")


def test_a_fingerprint_depends_on_facts_and_not_on_their_order():
    one = fingerprint({"a": 1, "b": {"c": [1.5, 2]}})
    assert one == fingerprint({"b": {"c": [1.5, 2]}, "a": 1})
    assert one != fingerprint({"a": 1, "b": {"c": [2, 1.5]}})
    assert one != fingerprint({"a": 2, "b": {"c": [1.5, 2]}})
    assert len(one) == 32 and int(one, 16) >= 0


def test_groups_come_back_from_the_flat_names():
    both = {**flatten("raw", {"x": torch.ones(1)}), **flatten("ema", {"x": torch.zeros(1)})}
    assert group("raw", both)["x"].item() == 1
    assert group("ema", both)["x"].item() == 0


def test_every_is_due_once_an_interval(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("privimage.checkpoints.time.monotonic", lambda: now[0])
    every = Every(60)
    assert not every.due()
    now[0] += 61
    assert every.due()
    assert not every.due()
