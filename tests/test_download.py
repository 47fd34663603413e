"""The stage `download`: a list of what lies in the folder, written last; by hand what needs a person."""

import hashlib
import json
import socket
import sys

import pytest

from privimage import cli, download
from privimage.data import fetch
from privimage.data.published import NETWORKS, PUBLISHED, File
from privimage.data.web import Trouble
from privimage.errors import UserError


def stage(monkeypatch, source, folder):
    flags = ["--source", source, "--folder", str(folder), "--complete", str(folder / "complete.json")]
    monkeypatch.setattr(sys, "argv", ["download", *flags])
    download.main()
    return json.loads((folder / "complete.json").read_text())


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *args, **kw: pytest.fail("a socket was opened"))


@pytest.fixture
def small(monkeypatch):
    """A published set of two small files that nobody serves."""
    files = tuple(
        File(
            name, ("http://127.0.0.1:9/",), None, f"sha256:{hashlib.sha256(name.encode()).hexdigest()}", (f"{name}-u",)
        )
        for name in ("one", "two")
    )
    monkeypatch.setitem(PUBLISHED, "small", files)


def test_the_list_names_every_file_with_its_size_and_checksum(monkeypatch, tmp_path, offline, small):
    (tmp_path / "one").write_bytes(b"one")
    (tmp_path / "two-u").mkdir()
    for name in ("b", "a", ".hidden"):
        (tmp_path / "two-u" / name).write_bytes(name.encode())
    (tmp_path / "not of the set").write_bytes(b"")
    wanted = [("one", b"one"), ("two-u/a", b"a"), ("two-u/b", b"b")]
    assert stage(monkeypatch, "small", tmp_path) == [
        {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in wanted
    ]


def test_a_second_run_writes_the_same(monkeypatch, tmp_path, offline, small):
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    first = stage(monkeypatch, "small", tmp_path)
    assert stage(monkeypatch, "small", tmp_path) == first


def test_no_list_is_written_when_a_file_is_wrong(monkeypatch, tmp_path, offline, small, capsys):
    (tmp_path / "one").write_bytes(b"one")
    (tmp_path / "two").write_bytes(b"2")
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: stage(monkeypatch, "small", tmp_path))
    assert ended.value.code == 2 and not (tmp_path / "complete.json").exists()
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'two'} has the sha256 checksum")


@pytest.mark.data
def test_the_real_files_of_mnist_need_no_network(monkeypatch, tmp_path, offline, real_data):
    for path in (real_data / "mnist").glob("*.gz"):
        (tmp_path / path.name).symlink_to(path)
    listed = stage(monkeypatch, "mnist", tmp_path)
    assert [entry["size"] for entry in listed] == [9912422, 28881, 1648877, 4542]


@pytest.mark.parametrize("source", ["imagenet", "imagenet-downsampled", "celeba", "camelyon17"])
def test_what_needs_a_person_says_what_to_take_from_where_and_where_to_put_it(tmp_path, source, offline):
    folder = tmp_path / source
    with pytest.raises(UserError, match=rf"https?://.*; put them into {folder}, or name their folder as .*`path`\.$"):
        download.run(source, folder)
    assert not folder.exists()


def test_what_a_person_put_there_is_listed_and_left_to_the_reader(monkeypatch, tmp_path, offline):
    (tmp_path / "img_align_celeba").mkdir()
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    listed = stage(monkeypatch, "celeba", tmp_path)
    assert [(entry["name"], entry["size"]) for entry in listed] == [
        ("img_align_celeba", None),
        ("list_eval_partition.txt", 13),
    ]
    assert stage(monkeypatch, "celeba", tmp_path) == listed  # the list itself is not of the set


def test_an_old_list_and_a_log_are_no_set(monkeypatch, tmp_path, offline):
    (tmp_path / "complete.json").write_text("[]")
    (tmp_path / "download.log").write_text("")
    with pytest.raises(UserError, match="put them into"):
        stage(monkeypatch, "imagenet", tmp_path)


@pytest.mark.parametrize("source", ["folder", "digits", "auto", "mnist\n"])
def test_a_source_that_nobody_publishes_is_refused(tmp_path, source):
    with pytest.raises(UserError, match=r"not a published set.*expected one of mnist, .*`path`"):
        download.run(source, tmp_path)


def test_a_file_where_the_folder_should_be_is_one_sentence(tmp_path, offline):
    (tmp_path / "mnist").write_text("")
    with pytest.raises(UserError, match="mnist cannot be written"):
        download.run("mnist", tmp_path / "mnist")


def optional(monkeypatch, folder):
    flags = ["--source", "small", "--folder", str(folder), "--complete", str(folder / "complete.json")]
    monkeypatch.setattr(sys, "argv", ["download", *flags, "--optional"])
    monkeypatch.setattr(fetch, "PAUSE", 0)
    download.main()


def test_what_is_optional_and_cannot_be_reached_is_told_and_no_error(monkeypatch, tmp_path, small, capsys):
    (tmp_path / "one").write_bytes(b"one")
    optional(monkeypatch, tmp_path)
    told = json.loads((tmp_path / "complete.json").read_text())
    assert set(told) == {"missing"} and "connection was refused" in told["missing"]
    assert "going on without small" in capsys.readouterr().err


def test_what_is_optional_and_wrong_is_an_error(monkeypatch, tmp_path, small):
    (tmp_path / "one").write_bytes(b"1")
    with pytest.raises(UserError, match="published file has"):
        optional(monkeypatch, tmp_path)
    (tmp_path / "one").write_bytes(b"one")

    def tampered(url, file, part):
        raise Trouble("what arrived has the sha256 checksum of something else", again=False, wrong=True)

    monkeypatch.setattr(fetch, "_try", tampered)
    with pytest.raises(UserError, match="something else"):
        optional(monkeypatch, tmp_path)
    assert not (tmp_path / "complete.json").exists()


def test_inception_is_fetched_like_a_set_but_is_none(monkeypatch, tmp_path, offline):
    assert "inception" not in PUBLISHED
    file = File("net.pt", ("http://127.0.0.1:9/",), None, f"sha256:{hashlib.sha256(b'net').hexdigest()}")
    monkeypatch.setitem(NETWORKS, "inception", (file,))
    (tmp_path / "net.pt").write_bytes(b"net")
    assert [entry["name"] for entry in stage(monkeypatch, "inception", tmp_path)] == ["net.pt"]
