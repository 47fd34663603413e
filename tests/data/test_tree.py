"""Folders as trees: every visible file once, in one order, and nothing that could hang, loop or mislead."""

import os
import re
import socket
from contextlib import contextmanager

import pytest

from privimage.data import tree as trees
from privimage.data.record import BadImage, Problem, printable
from privimage.data.tree import open_tree
from privimage.errors import UserError


def put(root, *names, content=b"pixels"):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def names_of(tree):
    return [item for item in tree.files() if isinstance(item, str)]


def problems_of(tree):
    return [str(item) for item in tree.files() if isinstance(item, Problem)]


@contextmanager
def unprivileged(folder, monkeypatch):
    """Inside, the process may read only what anyone may; the folder is the working directory."""
    folder.chmod(0o755)
    monkeypatch.chdir(folder)
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_files_come_sorted_folder_by_folder_and_the_same_in_each_pass(tmp_path):
    put(tmp_path, "b/2.png", "b/10.png", "a.png", "c.png", "b/a/9.png")
    tree = open_tree(tmp_path)
    assert list(tree.files()) == ["a.png", "b/10.png", "b/2.png", "b/a/9.png", "c.png"]
    assert list(tree.files()) == list(tree.files())
    assert (tree.where, tree.form) == (str(tmp_path), "folder")


def test_files_can_be_asked_for_and_read_by_name(tmp_path):
    put(tmp_path, "b/1.png", content=b"one")
    tree = open_tree(tmp_path)
    assert tree.has("b/1.png") and tree.read("b/1.png") == b"one"
    for name in ("b", "b/", "b/2.png", "", "../x", "/etc/passwd", "b/../b/1.png", "b/1.png\0"):
        assert not tree.has(name)


def test_a_sub_tree_is_the_same_tree_seen_from_a_folder(tmp_path):
    put(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/cat/3.png")
    (tmp_path / "train/cat/gone.png").symlink_to("nowhere")
    sub = open_tree(tmp_path).sub("train")
    assert names_of(sub) == ["cat/1.png", "dog/2.png"] and sub.folders() == ["cat", "dog"]
    assert sub.has("cat/1.png") and sub.read("cat/1.png") == b"pixels"
    assert sub.called("cat/1.png") == "train/cat/1.png"
    assert problems_of(sub)[0].startswith("train/cat/gone.png: ")


def test_hidden_files_and_what_desktops_leave_are_passed_over(tmp_path):
    put(
        tmp_path, ".hidden", ".git/config", "__MACOSX/._1.png", "a/.DS_Store", "a/Thumbs.db", "a/desktop.ini", "a/1.png"
    )
    tree = open_tree(tmp_path)
    assert list(tree.files()) == ["a/1.png"] and tree.folders() == ["a"] and not tree.has(".hidden")


def test_folders_are_listed_without_their_files(tmp_path):
    put(tmp_path, "b/x/1.png", "a/1.png", "1.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "loop").symlink_to("loop")
    tree = open_tree(tmp_path)
    assert tree.folders() == ["a", "b", "empty", "link"]
    assert tree.folders("b") == ["x"] and tree.folders("absent") == [] and tree.folders("1.png") == []


def test_links_to_files_and_folders_are_followed(tmp_path):
    put(tmp_path / "far", "x/1.png", "2.png")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "x").symlink_to(tmp_path / "far" / "x")
    (tmp_path / "near" / "2.png").symlink_to(tmp_path / "far" / "2.png")
    tree = open_tree(tmp_path / "near")
    assert list(tree.files()) == ["2.png", "x/1.png"] and tree.read("x/1.png") == b"pixels"


def link_up(root):
    (root / "a").mkdir()
    (root / "a" / "up").symlink_to(root)


def sock(root):
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(root)  # names of sockets are short
        try:
            bound.bind("plug")
        finally:
            os.chdir(here)


ODD = {
    "a loop": (link_up, "a/up/: a link that leads back to a folder it lies in; remove the link."),
    "a link to itself": (lambda root: (root / "x").symlink_to("x"), "x: cannot be reached .*; mend its permissions"),
    "a link to nothing": (lambda root: (root / "x").symlink_to("gone"), "x: a link that leads nowhere; mend or remove"),
    "a pipe": (lambda root: os.mkfifo(root / "pipe"), "pipe: no regular file but a pipe.*; remove it."),
    "a socket": (sock, "plug: no regular file but a pipe.*; remove it."),
    "a device": (lambda root: (root / "zero").symlink_to("/dev/zero"), "zero: no regular file.*; remove it."),
    **{
        f"an archive inside, {name}": (
            lambda root, name=name: put(root, name),
            f"{name}: an archive inside; unpack it.",
        )
        for name in ("a.zip", "b.TAR", "c.tgz", "d.tar.gz", "e.rar", "f.7z")
    },
    "folders without end": (
        lambda root: put(root, "/".join("d" * 70) + "/1.png"),
        "more than 64 folders deep; move it",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_what_must_not_be_read_is_told_by_name_and_the_rest_is_listed(tmp_path, case):
    make, message = ODD[case]
    put(tmp_path, "good.png")
    make(tmp_path)
    tree = open_tree(tmp_path)
    (problem,) = [item for item in tree.files() if isinstance(item, Problem)]
    assert problem.skippable
    assert re.search(message, str(problem))
    assert names_of(tree) == ["good.png"]


def test_names_that_are_no_text_survive_and_can_be_printed(tmp_path):
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    with open(raw, "wb") as file:
        file.write(b"pixels")
    put(tmp_path, "two\nlines.png")
    tree = open_tree(tmp_path)
    first, second = tree.files()
    assert {os.fsencode(first), os.fsencode(second)} == {b"\xff\xfe.png", b"two\nlines.png"}
    assert tree.read(first) == tree.read(second) == b"pixels"
    assert all(printable(name).isprintable() for name in (first, second))
    os.symlink(b"nowhere", os.fsencode(tmp_path) + b"/\xfd\n.png")
    (told,) = problems_of(tree)
    assert told.isprintable() and told.startswith(r"\udcfd\n.png: a link that leads nowhere")


def test_a_folder_that_may_not_be_read_is_a_problem_and_a_file_an_error_of_its_own(tmp_path, monkeypatch):
    put(tmp_path, "open/1.png", "shut/2.png", "open/3.png")
    (tmp_path / "shut").chmod(0)
    (tmp_path / "open" / "3.png").chmod(0)
    with unprivileged(tmp_path, monkeypatch):
        tree = open_tree(".")
        assert names_of(tree) == ["open/1.png", "open/3.png"] and tree.folders() == ["open", "shut"]
        assert problems_of(tree) == ["shut/: the folder cannot be listed (Permission denied); mend its permissions."]
        with pytest.raises(PermissionError):
            tree.read("open/3.png")
        with pytest.raises(UserError, match="shut cannot be listed .*; mend its permissions"):
            tree.folders("shut")
        with pytest.raises(UserError, match="shut cannot be read .*; `path` must name a folder"):
            open_tree("shut")
    (tmp_path / "shut").chmod(0o755)


def test_a_pipe_that_took_a_files_place_is_not_waited_for(tmp_path):
    put(tmp_path, "1.png")
    tree = open_tree(tmp_path)
    (name,) = tree.files()
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(BadImage, match="no regular file"):
        tree.read(name)


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(trees, "MAX_FILE", 5)
    tree = open_tree(put(tmp_path, "1.png"))
    with pytest.raises(BadImage, match="6 bytes; expected an image of at most 5"):
        tree.read("1.png")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "absent cannot be read .*No such file.*; `path` must name a folder or archive"),
        ("absent.zip", "absent.zip cannot be read .*; `path` must name a folder or archive"),
        ("notes.txt", "notes.txt is no folder; expected a folder, or an archive .zip"),
        ("pipe.tar", "pipe.tar is no folder; expected a folder"),
        ("zero\0byte", "cannot be read .*; `path` must name"),
        ("x" * 300, "cannot be read .*; `path` must name"),
    ],
)
def test_what_is_no_tree_is_refused_in_a_sentence(tmp_path, name, message):
    put(tmp_path, "notes.txt")
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(UserError, match=message) as caught:
        open_tree(tmp_path / name)
    assert str(caught.value).isprintable()


def test_a_large_folder_is_listed_file_by_file(tmp_path):
    put(tmp_path, *(f"{folder}/{index}.png" for folder in "abc" for index in range(50)))
    listing = open_tree(tmp_path).files()
    assert next(listing) == "a/0.png"
    for path in (tmp_path / "c").iterdir():  # not looked at yet
        path.unlink()
    assert len(list(listing)) == 99
