"""Reading a part of a source: the stage writes a shard that says nothing of where the images lay."""

import json
import sys

import pytest

from privimage import shard
from privimage.errors import UserError
from privimage.shards import Shard

DIGITS = {"source": "digits", "resolution": 8, "channels": 1}
NAMES = tuple("0123456789")


def stage(monkeypatch, tmp_path, source, *flags):
    made = ["--settings", json.dumps(source), "--shard", str(tmp_path / "s.h5"), *flags]
    monkeypatch.setattr(sys, "argv", ["shard", *made])
    shard.main()
    return Shard.read(tmp_path / "s.h5")


def test_the_stage_writes_its_part(monkeypatch, tmp_path):
    made = stage(monkeypatch, tmp_path, DIGITS, "--index", "2", "--of", "3", "--class-names", json.dumps(NAMES))
    assert set(made.positions // 64 % 3) == {2}
    assert (made.meta["num_items"], made.meta["index"], made.meta["of"]) == (1797, 2, 3)


def test_where_the_images_lay_is_not_told(monkeypatch, tmp_path):
    made = stage(monkeypatch, tmp_path, DIGITS, "--index", "0", "--of", "1")
    assert "path" not in made.meta["settings"]
    assert made.meta["settings"]["resolution"] == 8


@pytest.mark.parametrize(("index", "of"), [(3, 3), (-1, 3)])
def test_a_part_that_is_none_is_refused(monkeypatch, tmp_path, index, of, capsys):
    with pytest.raises(SystemExit):
        stage(monkeypatch, tmp_path, DIGITS, "--index", str(index), "--of", str(of))
    assert f"--index is {index}; expected 0 to 2" in capsys.readouterr().err


def test_other_classes_than_the_declared_are_refused_with_the_list_to_paste(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r'write `class_names: \["0", "1", .*"9"\]`'):
        stage(monkeypatch, tmp_path, DIGITS, "--index", "0", "--of", "1", "--class-names", '["a", "b"]')
    assert not list(tmp_path.iterdir())


def test_an_unknown_source_is_refused(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="`--settings.source` is 'cifar'; expected one of auto, folder"):
        stage(monkeypatch, tmp_path, {**DIGITS, "source": "cifar"}, "--index", "0", "--of", "1")
