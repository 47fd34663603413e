"""Bad sets of images: none brings a traceback, none is accepted in silence, none leaves a file behind."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
from bad_inputs import CASES, good, png

from privimage import check_data, cli, preprocess, shard
from privimage.artifacts import Contents, ImageSet
from privimage.data import hdf5_heap, reader
from privimage.errors import UserError
from privimage.settings import Source

ROW = {"source": "auto", "resolution": 8, "channels": 3}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(hdf5_heap, "SECONDS", 2.0)


def flags(folder):
    names = {"train": "train.h5", "holdout": "test.h5", "contents": "contents.json", "sheet": "sheet.png"}
    return [text for flag, name in names.items() for text in (f"--{flag}", str(folder / name))]


def chain(monkeypatch, path, out, settings=None, join=None, num_shards=2):
    """The stages that read images, as the workflow runs them."""
    row = {**ROW, "path": str(path), **(settings or {})}
    declared = row.pop("class_names", None)
    names = ["--class-names", json.dumps(declared)] if declared else []
    shards = [str(out / "shards" / f"{index}.h5") for index in range(num_shards)]
    for index, where in enumerate(shards):
        part = ["--index", str(index), "--of", str(num_shards), "--shard", where]
        monkeypatch.setattr(sys, "argv", ["shard", "--settings", json.dumps(row), *names, *part])
        cli.run(shard.main)
    monkeypatch.setattr(sys, "argv", ["p", "--settings", json.dumps(join or {}), "--shards", *shards, *flags(out)])
    cli.run(preprocess.main)


def test_there_are_enough_of_them():
    assert len(CASES) >= 60


def test_a_good_set_is_taken(monkeypatch, tmp_path, capsys):
    chain(monkeypatch, good(tmp_path / "in"), tmp_path / "out", {"class_names": ["cat", "dog"]})
    assert sum(ImageSet.read(tmp_path / "out" / "train.h5").counts) > 10
    assert check_data.main([str(tmp_path / "in"), "--sheet", str(tmp_path / "s.png")]) == 0
    assert "0 problems, 0 warnings" in capsys.readouterr().out


def test_a_table_that_nobody_read_is_told_by_both(monkeypatch, tmp_path, capsys):
    root = good(tmp_path / "in", ("",), 20)
    (root / "boxes.csv").write_text("file,label\n")
    chain(monkeypatch, root, tmp_path / "out", num_shards=3)
    assert capsys.readouterr().err.count("boxes.csv was not read; if it labels the images, call it") == 1
    assert Contents.read(tmp_path / "out" / "contents.json").warnings[0].startswith("boxes.csv was not read")
    assert check_data.main([str(root), "--sheet", str(tmp_path / "s.png")]) == 0
    assert "warning: boxes.csv was not read" in capsys.readouterr().out


@pytest.mark.parametrize("name", CASES)
def test_a_bad_set_is_refused_in_words(monkeypatch, tmp_path, capsys, name):
    build, told, settings = CASES[name]
    path = build(tmp_path / "in") or str(tmp_path / "in")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        chain(monkeypatch, path, tmp_path / "out", settings)
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message.count("error: ") == 1 and "Traceback" not in message
    assert re.search(told, message), message
    assert all(line.isprintable() for line in message.splitlines())
    left = {p for p in sorted(tmp_path.rglob("*")) if p not in before and "shards" not in p.parts and p.is_file()}
    assert left == set()
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]  # no half-written shard


@pytest.mark.parametrize("name", [name for name in CASES if "class_names" not in CASES[name][2]])
def test_check_data_says_the_same(monkeypatch, tmp_path, capsys, name):
    build, told, settings = CASES[name]
    if "num_classes" in settings:
        pytest.skip("a row's number of classes is not given to check-data")
    path = build(tmp_path / "in") or str(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.run(lambda: check_data.main([path, "--source", settings.get("source", "auto")]))
    except SystemExit as stopped:
        code = stopped.code
    out, err = capsys.readouterr()
    assert code in (1, 2) and "Traceback" not in out + err
    assert name == "one image only" or re.search(told, out + err), out + err


def test_every_problem_is_listed_at_once_whatever_the_shards(monkeypatch, tmp_path, capsys):
    root = good(tmp_path / "in")
    for number in range(130):
        (root / "cat" / f"bad{number:03}.png").write_bytes(b"no image")
    (root / "dog" / "cut.png").write_bytes(png()[:-20])
    with pytest.raises(SystemExit):
        chain(monkeypatch, root, tmp_path / "out", num_shards=3)
    message = capsys.readouterr().err
    assert "error: 131 problems" in message
    assert all(f"cat/bad{number:03}.png: not an image" in message for number in range(130))
    assert "dog/cut.png: cannot be decoded" in message


def test_bad_images_may_be_left_out_and_are_listed(monkeypatch, tmp_path, capsys):
    root = good(tmp_path / "in")
    chain(monkeypatch, root, tmp_path / "without")
    (root / "cat" / "bad.png").write_bytes(b"no image")
    chain(monkeypatch, root, tmp_path / "out", join={"on_bad_image": "skip"})
    assert "left out: cat/bad.png: not an image" in capsys.readouterr().err
    assert Contents.read(tmp_path / "out" / "contents.json").problems[0].startswith("cat/bad.png: not an image")
    for name in ("train.h5", "test.h5"):
        assert ImageSet.read(tmp_path / "out" / name).identity == ImageSet.read(tmp_path / "without" / name).identity


def test_names_with_spaces_accents_and_metacharacters_are_only_names(monkeypatch, tmp_path):
    names = ["$(touch owned)", "it's a cat; `id`", "naïve Käse 猫", "a|b&c>d"]
    root = good(tmp_path / "in", names)
    monkeypatch.chdir(tmp_path)
    chain(monkeypatch, root, tmp_path / "out")
    assert sorted(ImageSet.read(tmp_path / "out" / "train.h5").class_names) == sorted(names)
    assert not (tmp_path / "owned").exists() and not (tmp_path / "d").exists()


def test_ten_bombs_cost_no_memory(tmp_path):
    root = good(tmp_path / "in")
    from bad_inputs import claimed_png

    bomb = claimed_png(9000, 9000, 9000)
    for number in range(10):
        (root / "cat" / f"bomb{number}.png").write_bytes(bomb)
    code = (
        "import resource, sys; from privimage import check_data; import privimage.reporting.grid;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        f"code = check_data.main([{str(root)!r}, '--sheet', {str(tmp_path / 's.png')!r}]);"
        "print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    exit_code, grown = map(int, done.stdout.splitlines()[-1].split())
    assert exit_code == 1 and grown < 200_000  # kB


@pytest.mark.parametrize("locked", ["cat/03.png", "dog"])
def test_unreadable_files_and_folders_are_named(tmp_path, locked):
    """As a user without privileges, since root may read anything."""
    root = good(tmp_path / "in")
    for folder in (root, *root.rglob("*"), *list(root.parents)[:-2]):
        folder.chmod(folder.stat().st_mode | (0o055 if folder.is_dir() else 0o044))
    source = Source(path=str(root), resolution=8, channels=3)
    read(source)  # imports what it needs while it may
    (root / locked).chmod(0)
    was_root = os.geteuid() == 0
    try:
        if was_root:
            os.seteuid(65534)
        with pytest.raises(PermissionError):  # else this test says nothing
            os.listdir(root / locked) if (root / locked).is_dir() else (root / locked).read_bytes()
        told = read(source)
    finally:
        if was_root:
            os.seteuid(0)
        (root / locked).chmod(0o755)
    assert locked in told and "Permission denied" in told, told


UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


def arrays(root):
    root.mkdir()
    np.savez(root / "a.npz", images=np.zeros((9, 8, 8), np.uint8))


def tables(root):
    root.mkdir()
    (root / "a.parquet").write_bytes(b"PAR1")


def batches(root):
    root.mkdir()
    (root / "data_batch_1").write_bytes(b"")


def with_locked(name):
    def build(root):
        good(root)
        (root / name).mkdir(parents=True)
        (root / name).chmod(0)

    return build


@pytest.mark.parametrize(
    ("build", "mode", "told"),
    [
        (good, 0o444, "Permission denied"),
        (arrays, 0o444, "a.npz cannot be reached (Permission denied); mend"),
        (tables, 0o444, "a.parquet cannot be reached (Permission denied); mend"),
        (batches, 0o444, "Permission denied"),
        (with_locked("camelyon17_v1.0"), 0o755, "camelyon17_v1.0/: the folder cannot be listed (Permission denied)"),
        (with_locked("ILSVRC"), 0o755, "ILSVRC/: the folder cannot be listed (Permission denied)"),
        (with_locked("raw"), 0o755, "raw cannot be listed (Permission denied)"),
    ],
)
def test_folders_that_may_not_be_entered_are_told(tmp_path, build, mode, told):
    """In a process without privileges, since root may enter anything."""
    root = tmp_path / "in"
    build(root)
    root.chmod(mode)
    before = UNPRIVILEGED if os.geteuid() == 0 else []
    if before and (not shutil.which("setpriv") or subprocess.run([*before, "ls", str(root / "x")]).returncode == 0):
        pytest.skip("root here, and no setpriv that takes its privileges away")
    command = [sys.executable, "-c", "from privimage.cli import main; main()", "check-data", str(root)]
    done = subprocess.run([*before, *command], capture_output=True, text=True, cwd=tmp_path)
    for folder in (root, *root.glob("*/")):
        folder.chmod(0o755)
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    assert told in done.stdout + done.stderr


def read(source):
    """What `check-data` says of a source."""
    try:
        return check_data.told(check_data.run(reader(source.source)(source, None), source), source.path)
    except UserError as error:
        return str(error)


def test_a_disk_that_fills_up_leaves_nothing_and_one_sentence(monkeypatch, tmp_path, capsys):
    """A limit on the size of files stands for the full disk: the same error of the same calls."""
    root = good(tmp_path / "in", count=200)
    row = {**ROW, "path": str(root), "resolution": 64}
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from privimage import cli, shard; cli.run(shard.main)"
    )
    part = ["--settings", json.dumps(row), "--index", "0", "--of", "1", "--shard", str(tmp_path / "out" / "s.h5")]
    done = subprocess.run([sys.executable, "-c", code, *part], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "cannot be written" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000
