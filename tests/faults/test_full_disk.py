"""On a full or read-only disk a stage ends with one sentence, breaks nothing, and goes on when there is room."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from kills import Trial
from server import APART, Server
from stages import LONG

PAGE = 4096
REFUSED = re.compile(r"error: [^\n]+\n\Z")
ROOM = "size=64m,nr_inodes=1000"


@pytest.fixture(scope="module")
def rooms():
    """A server that mounts file systems of any size, where the system lets anybody do so."""
    if not shutil.which(APART[0]) or subprocess.run([*APART, "mount", "-t", "tmpfs", "none", "/tmp"]).returncode:
        pytest.skip("no file systems of one's own here (unshare --user --mount)")
    server = Server(own_mounts=True)
    yield server
    server.close()


def trial_in_a_room(rooms, stage, folder, options):
    """A trial whose stage writes into a file system of its own."""
    room = folder / "room"
    room.mkdir(parents=True)
    return Trial(rooms, stage, folder / "trial", place=rooms.mount(room, options)), room


def full_then_not(rooms, stage, folder, options, left):
    """Whether the disk was full under these options; then it must be as it should, and end well with more room."""
    trial, room = trial_in_a_room(rooms, stage, folder, options)
    code = trial.start()
    assert code in (0, 2), trial.context
    if code == 2:
        assert REFUSED.search(trial.told.read_text()), trial.context
        assert trial.told.read_text().count("error:") == 1, trial.context
        assert not [p for p in trial.place.rglob(".*") if p.is_file()], trial.context  # no temporary file takes room
        rooms.mount(room, f"remount,{ROOM}")
        trial.kills.append(f"full at {options}")
        trial.finish(left)
    rooms.unmount(room)
    return code == 2


def sizes(trial, count):
    """Sizes of a disk, up to what the stage needed when there was room: pages."""
    used = sum(-(-path.stat().st_size // PAGE) for path in trial.folder.rglob("*") if path.is_file())
    return sorted({1 + round(used * 1.5 * share / count) for share in range(count)})


@pytest.mark.parametrize("name", LONG)
def test_a_disk_that_is_full_at_some_write(rooms, calm, row, tmp_path, name):
    trial, left, _ = calm(name)
    some = sizes(trial, 4)[1:3]
    full = [full_then_not(rooms, trial.stage, tmp_path / f"{n}", f"size={4 * n}k", left) for n in some]
    row(f"disk full, {name}", sum(full), sum(full))
    assert any(full)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_a_disk_that_is_full_at_any_write(rooms, calm, row, tmp_path, name):
    trial, left, _ = calm(name)
    full = [full_then_not(rooms, trial.stage, tmp_path / f"{n}", f"size={4 * n}k", left) for n in sizes(trial, 40)]
    files = range(2, 30)  # no room for one more file or folder: the first is the root's
    full += [full_then_not(rooms, trial.stage, tmp_path / f"i{n}", f"size=64m,nr_inodes={n}", left) for n in files]
    row(f"disk full at any write, {name}", sum(full), sum(full))
    assert sum(full) >= 10


@pytest.mark.parametrize("name", LONG)
def test_a_folder_that_can_only_be_read(rooms, calm, row, tmp_path, name):
    trial, left, _ = calm(name)
    again, room = trial_in_a_room(rooms, trial.stage, tmp_path, ROOM)
    rooms.mount(room, "remount,ro")
    assert again.start() == 2 and REFUSED.fullmatch(again.told.read_text()), again.context
    rooms.mount(room, "remount,rw")
    again.finish(left)
    row(f"read-only folder, {name}", 1, 1)
