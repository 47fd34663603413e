"""On a full or read-only disk a stage ends with one sentence, breaks nothing, and goes on when there is room."""

from __future__ import annotations

import os
import re

import pytest
from kills import Trial
from stages import LONG, quick

PAGE = 4096
REFUSED = re.compile(r"error: [^\n]+\n\Z")
ROOM, PLENTY = "size=64m,nr_inodes=1000", 5000


@pytest.fixture
def rooms(server):
    """The server, if it can mount file systems of any size."""
    if not server.can_mount:
        pytest.skip("no file systems of one's own here: `unshare --user --map-root-user --mount` is not allowed")
    return server


def trial_in_a_room(rooms, stage, folder):
    """A trial whose stage writes into a file system of its own, in which there is room."""
    room = folder / "room"
    room.mkdir(parents=True)
    return Trial(rooms, stage, folder / "trial", place=rooms.mount(room, ROOM)), room


def full_then_not(rooms, stage, folder, left, pages=PLENTY, files=PLENTY):
    """Whether the disk became full with room for so many pages and files; then it must end well with more room."""
    trial, room = trial_in_a_room(rooms, stage, folder)
    used = os.statvfs(trial.place)
    pages, files = pages + used.f_blocks - used.f_bfree, files + used.f_files - used.f_ffree
    rooms.mount(room, f"remount,size={pages * PAGE},nr_inodes={files}")
    code = trial.start()
    assert code in (0, 2), trial.context
    if code == 2:
        assert REFUSED.search(trial.told.read_text()), trial.context
        assert len(re.findall("^error: ", trial.told.read_text(), re.MULTILINE)) == 1, trial.context
        assert not [p for p in trial.place.rglob(".*") if p.is_file()], trial.context  # no temporary file takes room
        rooms.mount(room, f"remount,{ROOM}")
        trial.kills.append(f"full at {pages} pages, {files} files")
        trial.finish(left)
    rooms.unmount(room)
    return code == 2


def sizes(trial, count):
    """Room for so many pages, up to what the stage needed when there was enough, and more than it keeps."""
    used = sum(-(-path.stat().st_size // PAGE) for path in trial.folder.rglob("*") if path.is_file())
    return sorted({round(used * 1.5 * share / count) for share in range(count)})


@pytest.mark.parametrize("name", quick(LONG, "finetune", "sample"))
def test_a_disk_that_is_full_at_some_write(rooms, calm, row, tmp_path, name):
    trial, left, _ = calm(name)
    some = sizes(trial, 4)[1:3]
    full = [full_then_not(rooms, trial.stage, tmp_path / f"{n}", left, pages=n) for n in some]
    row(f"disk full, {name}", sum(full), sum(full))
    assert any(full)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_a_disk_that_is_full_at_any_write(rooms, calm, row, tmp_path, name):
    trial, left, _ = calm(name)
    full = [full_then_not(rooms, trial.stage, tmp_path / f"{n}", left, pages=n) for n in sizes(trial, 40)]
    full += [full_then_not(rooms, trial.stage, tmp_path / f"f{n}", left, files=n) for n in range(24)]
    row(f"disk full at any write, {name}", sum(full), sum(full))
    assert sum(full) >= 10


@pytest.mark.parametrize("name", quick(LONG, "query", "pretrain"))
def test_a_folder_that_can_only_be_read(rooms, calm, row, tmp_path, name):
    trial, left, _ = calm(name)
    again, room = trial_in_a_room(rooms, trial.stage, tmp_path)
    rooms.mount(room, "remount,ro")
    assert again.start() == 2 and REFUSED.fullmatch(again.told.read_text()), again.context
    rooms.mount(room, "remount,rw")
    again.finish(left)
    row(f"read-only folder, {name}", 1, 1)
