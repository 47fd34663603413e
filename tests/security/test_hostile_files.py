"""Hostile sets of images: nothing in them is executed, nothing outside is opened or written, and one sentence says why.

Read as the workflow reads them, and by `check-data`.
"""

import json
import re
import sys

import pytest
from canaries import layers
from canary import SECRET
from hostile_files import CASES, SCRIPT, SLOW

from privimage import check_data, cli, preprocess, shard
from privimage.data import hdf5_heap

ROW = {"source": "auto", "resolution": 8, "channels": 3}
OUTPUTS = ("train", "holdout", "contents", "sheet")


def read(monkeypatch, path, out, settings):
    """The stages that read images, run one after the other."""
    part = ["--index", "0", "--of", "1", "--shard", str(out / "0.shard")]
    monkeypatch.setattr(sys, "argv", ["s", "--settings", json.dumps({**ROW, "path": str(path), **settings}), *part])
    cli.run(shard.main)
    flags = [text for name in OUTPUTS for text in (f"--{name}", str(out / f"{name}.file"))]
    monkeypatch.setattr(sys, "argv", ["p", "--settings", "{}", "--shards", str(out / "0.shard"), *flags])
    cli.run(preprocess.main)


def check(path, out, settings):
    """What `check-data` makes of it, as its command does."""
    source = ["--source", settings["source"]] if "source" in settings else []
    cli.run(lambda: check_data.main([str(path), "--sheet", str(out / "sheet.png"), *source]))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES])
def test_nothing_is_executed_and_nothing_outside_is_touched(monkeypatch, tmp_path, capfd, outside, name):
    build, told, settings = CASES[name]
    monkeypatch.setattr(hdf5_heap, "SECONDS", 2.0)
    path, work, out = build(tmp_path / "in", outside), tmp_path / "work", tmp_path / "out"
    work.mkdir()
    out.mkdir()
    monkeypatch.chdir(work)
    before = {file.relative_to(tmp_path) for file in tmp_path.rglob("*")}
    outside.arm()
    ended = []
    for reader in (read, check):
        arguments = (monkeypatch, path, out, settings) if reader is read else (path, out, settings)
        try:
            reader(*arguments)
            ended.append(0)
        except SystemExit as error:
            ended.append(error.code)
    allowed = {"secret.bin"} if name == "folder: a link to outside" else set()
    assert outside.harmed() <= allowed
    printed = capfd.readouterr()
    assert told is None or ended[0] == 2, printed
    assert told is not None or ended[0] == 0, printed
    _check_told(printed.out + printed.err, told)
    new = {file.relative_to(tmp_path) for file in tmp_path.rglob("*")} - before
    assert {file.parts[0] for file in new} <= {"out"}
    kept = [layer for file in out.rglob("*") if file.is_file() for layer in layers(file.read_bytes())]
    assert not [layer for layer in kept if SECRET in layer or SCRIPT.encode() in layer]


def _check_told(text, told):
    assert "Traceback" not in text and SECRET.decode() not in text
    assert all(c.isprintable() or c in "\n\r" for c in text), repr(text)
    if told:
        lines = [line for line in text.splitlines() if line.startswith("error: ")]
        assert re.search(told, text) and len(lines) in (1, 2), text  # one of each reader


def test_there_are_enough_of_them():
    assert len(CASES) >= 50
