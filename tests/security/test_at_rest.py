"""What private stages leave on a disk: nothing that others may read, nothing without noise, no memory of a crash."""

import contextlib
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from private_stages import PUBLIC, run_both
from small_model import images

from privimage import private_training, process
from privimage.artifacts import PrivacyStatement, Weights
from privimage.checkpoints import Checkpoint
from privimage.classifiers.load import load_classifier
from privimage.classifiers.votes import histogram
from privimage.privacy import accounting

EVENTS = ("open", "os.rename", "os.chmod", "os.remove", "os.mkdir", "os.truncate")
KEPT = {  # when all is done
    "odometer.jsonl", "release.lock", "begun.json", "charged.json", "finished.json", "query.json", "weights", "curve",
}  # fmt: skip


class Seen:
    """What lay in some folders whenever a file in them was opened, renamed or removed, and what others could read."""

    def __init__(self, *folders: Path) -> None:
        self.folders, self.names, self.exposed, self.watching = folders, set(), set(), True
        sys.addaudithook(self._look)  # for good; when ``watching`` ends it does nothing

    def _look(self, event, arguments) -> None:
        for folder in self.folders if self.watching and event in EVENTS else ():
            if not str(arguments[0]).startswith(str(folder)):
                continue
            for path in (folder, *folder.rglob("*")):
                with contextlib.suppress(FileNotFoundError):
                    self.names.add(path.name)
                    if exposed(path, folder):
                        self.exposed.add(str(path))


def exposed(path: Path, root: Path) -> bool:
    """Whether others may read or change it: by its own mode, and those of the folders on the way."""
    way = [folder for folder in path.parents if folder == root or root in folder.parents]
    return bool(path.lstat().st_mode & 0o066) and all(folder.stat().st_mode & 0o011 for folder in way)


@dataclass
class Run:
    """Query and fine-tuning as they ran once under a umask of 000."""

    folder: Path
    seen: Seen
    sums: list[torch.Tensor] = field(default_factory=list)  # of clipped gradients, before noise
    files: dict[Path, bytes] = field(
        default_factory=dict
    )  # whatever was on the disk after a checkpoint, and at the end
    num_saves: int = 0


def stated(events, declared, target_epsilon, provenance):
    """A statement without accountants, which take seconds."""
    facts = (1.0, 1e-3, target_epsilon, "add_or_remove_one", list(events), 2.0, 1, 1.0, 24, [], True, ["nothing"])
    return PrivacyStatement(*facts, provenance)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ran")
    run = Run(folder, Seen(folder / "state", folder / "results/set/internal"))
    real_sum, real_save = private_training.clipped_gradient_sum, Checkpoint.save

    def summed(*arguments, **options):
        total = real_sum(*arguments, **options)
        tensors = (total[0] if isinstance(total, tuple) else total).values()
        run.sums.extend(tensor.detach().cpu().double().clone() for tensor in tensors if tensor.numel() > 3)
        return total

    def save(self, *arguments):
        real_save(self, *arguments)
        run.num_saves += 1
        run.files.update(read_all(folder))

    before = os.umask(0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(accounting, "calibrate", lambda *_, **__: 3.0)
        patched.setattr(accounting, "statement", stated)
        patched.setattr(private_training, "SAVE_SECONDS", 0.0)
        patched.setattr(private_training, "clipped_gradient_sum", summed)
        patched.setattr(Checkpoint, "save", save)
        run_both(patched, folder)
    os.umask(before)
    run.seen.watching = False
    run.files.update(read_all(folder))
    return run


def read_all(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_key_no_checkpoint_and_no_internal_file_is_open_to_others_at_any_moment(ran):
    assert {"key", "key.new", "lock", "reserved_steps", "training.csv"} <= ran.seen.names
    assert any(name.startswith(".checkpoint-0.safetensors.") for name in ran.seen.names)  # while it is written
    assert ran.seen.exposed == set()


def test_in_the_end_all_of_it_is_its_owners_and_neither_key_nor_checkpoint_is_left(ran):
    for folder in ran.seen.folders:
        modes = {path: path.lstat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))}
        assert {str(p): oct(m) for p, m in modes.items() if m != (0o700 if p.is_dir() else 0o600)} == {}
    assert {path.name for path in (ran.folder / "state").rglob("*") if path.is_file()} == KEPT


def test_no_sum_without_noise_is_ever_written(ran):
    """Neither a sum of clipped gradients nor the query's counts, as numbers or as text."""
    assert ran.num_saves >= 3 and len(ran.sums) > 30
    divided = [tensor / (0.3 * 24) for tensor in ran.sums]
    wanted = [form for t in (*ran.sums, *divided) for form in (t.numpy().tobytes(), t.float().numpy().tobytes())]
    classifier = load_classifier(Weights.read(ran.folder / "classifier", "classifier"))
    counts = np.asarray(histogram(images(), classifier, len(PUBLIC), 1))
    assert counts.sum() == 24
    for row in counts.tolist():
        wanted += [json.dumps(row).encode(), json.dumps([float(value) for value in row]).encode()]
    assert not [(path.name, len(form)) for path, content in ran.files.items() for form in wanted if form in content]
    assert any(images().images[0].tobytes() in content for content in ran.files.values())  # the search can find


def test_of_the_query_only_whole_numbers_leave(ran):
    found = np.array(json.loads((ran.folder / "q.json").read_text())["histogram"])
    assert found.shape == (2, 3) and (found == np.rint(found)).all()


CRASH = """
import os, resource, sys
from privimage import cli, process
secret = bytearray(b"can") + b"ary-" + str(4000 + 711).encode() + b"-in-memory"  # nowhere else, nor on the command line
def main():
    if {unlimited}:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
    os.abort()
{run}
"""


def crash(folder: Path, *, unlimited: bool, run: str = "cli.run(main)") -> list[bytes]:
    """The core dumps that a crash leaves in the folder of the process."""
    code = CRASH.format(unlimited=unlimited, run=run)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, preexec_fn=_dumps_allowed)
    assert done.returncode < 0, done.stderr
    dumps = [path.read_bytes() for path in folder.iterdir()]
    for path in folder.iterdir():
        path.unlink()
    return dumps


def _dumps_allowed() -> None:
    """Undo what a test in this process may have set, and let dumps be written."""
    process.FILTER.write_text("0x33")
    resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)


def writes_core_files() -> bool:
    pattern = Path("/proc/sys/kernel/core_pattern")
    return pattern.exists() and pattern.read_text()[0] not in "|/" and resource.getrlimit(resource.RLIMIT_CORE)[1] != 0


@pytest.mark.skipif(not writes_core_files(), reason="dumps do not go to the folder of the process, or are forbidden")
def test_a_crash_leaves_no_memory_on_the_disk(tmp_path):
    assert crash(tmp_path, unlimited=False) == []
    (bare,) = crash(tmp_path, unlimited=True, run="main()")
    assert b"canary-4711-in-memory" in bare  # without us it would
    for dump in crash(tmp_path, unlimited=True):  # as where the system ignores the limit
        assert b"canary-4711-in-memory" not in dump and len(dump) < len(bare) / 100


def test_programs_that_a_stage_starts_leave_no_dump_either():
    code = (
        "import subprocess, sys; from privimage import cli;"
        "look = 'import resource; print(resource.getrlimit(resource.RLIMIT_CORE)[0], '"
        "'open(\"/proc/self/coredump_filter\").read().strip())';"
        "cli.run(lambda: subprocess.run([sys.executable, '-c', look]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 00000000"
