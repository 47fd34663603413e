"""Zip archives as trees: what the standard library reads, and of hostile archives nothing but sentences."""

import io
import os
import random
import re
import stat
import struct
import warnings
import zipfile

import pytest

from privimage.data import tree as trees
from privimage.data import zip_tree
from privimage.data.record import BadImage, Problem
from privimage.data.tree import open_tree
from privimage.errors import UserError

GOOD = {"cat/1.png": b"one" * 50, "cat/2.png": b"two" * 50, "dog/3.png": b"three"}


def zipped(path, members=GOOD, method=zipfile.ZIP_DEFLATED):
    """An archive of names (or `ZipInfo`) and contents, a mapping or pairs."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")  # of names that come twice
        for name, content in dict(members).items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return path


def patched(path, what, by, count=1):
    """The archive with some bytes replaced, at each place if ``count`` is None."""
    content = path.read_bytes()
    assert what in content
    path.write_bytes(content.replace(what, by) if count is None else content.replace(what, by, count))
    return path


def member(name, mode=0, **values):
    info = zipfile.ZipInfo(name)
    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, mode << 16
    for key, value in values.items():
        setattr(info, key, value)
    return info


def flagged(path):
    """The encryption bit of all members set, in both headers."""
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        for found in re.finditer(re.escape(mark), bytes(content)):
            content[found.start() + offset] |= 1
    path.write_bytes(bytes(content))
    return path


def items_of(path):
    tree = open_tree(path)
    items = list(tree.files())
    return [item for item in items if isinstance(item, str)], [item for item in items if isinstance(item, Problem)]


def test_names_and_contents_are_those_of_the_standard_library(tmp_path):
    tree = open_tree(zipped(tmp_path / "pets.zip"))
    assert {name: tree.read(name) for name in tree.files()} == GOOD
    assert list(tree.files()) == list(GOOD)
    assert tree.folders() == ["cat", "dog"] and tree.folders("cat") == []
    assert tree.has("cat/1.png") and not tree.has("cat") and not tree.has("cat/9.png")
    assert (tree.form, tree.where) == ("zip archive", str(tmp_path / "pets.zip"))
    assert tree.called("cat/1.png") == "pets.zip: cat/1.png"


@pytest.mark.data
def test_a_real_archive_of_1000_images_is_read_whole(real_data):
    path = real_data / "imagenet1000_sample64.zip"
    tree = open_tree(path)
    with zipfile.ZipFile(path) as archive:
        assert {name: tree.read(name) for name in tree.files()} == {
            name: archive.read(name) for name in archive.namelist()
        }


def test_a_sub_tree_and_empty_folders_are_seen(tmp_path):
    tree = open_tree(zipped(tmp_path / "a.zip", {"train/cat/1.png": b"1", "train/eel/": b"", "test/cat/2.png": b"2"}))
    sub = tree.sub("train")
    assert list(sub.files()) == ["cat/1.png"] and sub.folders() == ["cat", "eel"]
    assert sub.read("cat/1.png") == b"1" and sub.has("cat/1.png") and not sub.has("cat/2.png")
    assert sub.called("cat/1.png") == "a.zip: train/cat/1.png"


def test_names_are_tidied_and_clutter_is_passed_over(tmp_path):
    clutter = {"./a/1.png": b"1", "a//2.png": b"2", "__MACOSX/a/._1.png": b"x", "a/.hid": b"x", "a/Thumbs.db": b"x"}
    tree = open_tree(zipped(tmp_path / "a.zip", clutter))
    assert {name: tree.read(name) for name in tree.files()} == {"a/1.png": b"1", "a/2.png": b"2"}
    assert tree.folders() == ["a"]


def test_names_in_other_scripts_are_kept(tmp_path):
    assert items_of(zipped(tmp_path / "a.zip", {"katze/größe.png": b"1", "猫/1.png": b"2"}))[0] == [
        "katze/größe.png", "猫/1.png"
    ]  # fmt: skip


HOSTILE = {
    "absolute": ([("/etc/cron.d/x", b"x")], r"a\.zip: /etc/cron\.d/x: .*absolute name; pack the images anew"),
    "drive": ([("C:/x.png", b"x")], "C:/x.png: .*drive letter; pack the images anew"),
    "parent": ([("a/../../x.png", b"x")], r"leads out of the archive \(\.\.\); pack"),
    "hidden parent": ([("..", b"x")], "leads out of the archive"),
    "backslash": ([("..\\x.png", b"x")], "backslash in its name; pack"),
    "backslash folder": ([("cat\\x.png", b"x")], "backslash in its name; pack"),
    "deep": ([("a/" * 100 + "x.png", b"x")], "a name of 205 characters in 100 folders; pack"),
    "long": ([("a" * 5000, b"x")], "a name of 5000 characters"),
    "link": ([(member("l.png", stat.S_IFLNK | 0o777), b"/etc/passwd")], r"l\.png: a symbolic link; pack the file"),
    "device": ([(member("d.png", stat.S_IFCHR | 0o666), b"")], r"d\.png: no regular file but a pipe.*; remove it"),
    "bomb": ([("b.png", bytes(2_000_000))], r"b\.png: unpacks from \d+ to 2000000 bytes.*bomb\?\); remove it"),
    "bzip2": ([(member("z.png", compress_type=zipfile.ZIP_BZIP2), b"x")], r"z\.png: packed by the method bzip2.*anew"),
    "lzma": ([(member("z.png", compress_type=zipfile.ZIP_LZMA), b"x")], r"z\.png: packed by the method lzma.*anew"),
    "nested": ([("in.tar.gz", b"x")], r"in\.tar\.gz: an archive inside; unpack it"),
    "nested in capitals": ([("IN.ZIP", b"x")], r"IN\.ZIP: an archive inside; unpack it"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_member_is_told_and_the_others_are_listed(tmp_path, case):
    members, message = HOSTILE[case]
    path = zipped(tmp_path / "a.zip", [("good.png", bytes(range(256)) * 12), *members])
    names, problems = items_of(path)
    assert names == ["good.png"] and len(problems) == 1 and problems[0].skippable
    assert re.search(message, str(problems[0])), problems[0]
    tree = open_tree(path)
    for name, _ in members if "nested" not in case else []:
        with pytest.raises(BadImage):
            tree.read(getattr(name, "filename", name))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]


def test_a_name_cut_by_a_zero_byte_is_told(tmp_path):
    path = patched(zipped(tmp_path / "a.zip", {"a.png_b.jpg": b"x"}), b"a.png_b", b"a.png\0b", None)
    names, (problem,) = items_of(path)
    assert names == [] and "without a proper name; pack" in str(problem) and str(problem).isprintable()


def test_two_members_of_one_name_stop_the_run(tmp_path):
    pairs = [("a.png", b"1"), ("b.png", b"2"), ("./a.png", b"3"), ("c/", b""), ("c/", b"")]
    names, problems = items_of(zipped(tmp_path / "a.zip", pairs))
    assert names == ["b.png"]
    assert [(problem.name, problem.skippable) for problem in problems] == [("a.zip: a.png", False)] * 2
    assert "two files of this name; keep one" in str(problems[0])


def test_encrypted_members_are_told(tmp_path):
    path = flagged(zipped(tmp_path / "a.zip"))
    names, problems = items_of(path)
    assert names == [] and len(problems) == 3
    assert str(problems[0]) == "a.zip: cat/1.png: encrypted; pack it without a password."


def test_a_member_that_is_too_large_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_tree, "MAX_FILE", 10)
    monkeypatch.setattr(trees, "MAX_FILE", 10)
    names, problems = items_of(zipped(tmp_path / "a.zip"))
    assert names == ["dog/3.png"]
    assert "cat/1.png: 150 bytes; expected an image of at most 10; make it smaller" in str(problems[0])


def test_a_damaged_member_fails_its_checksum(tmp_path):
    path = patched(zipped(tmp_path / "a.zip", method=zipfile.ZIP_STORED), b"oneone", b"onEone")
    tree = open_tree(path)
    with pytest.raises(BadImage, match="cannot be unpacked .*CRC") as caught:
        tree.read("cat/1.png")
    assert "anew" in caught.value.fix and tree.read("cat/2.png") == GOOD["cat/2.png"]


@pytest.mark.parametrize("declared", [5, 500])
def test_no_more_is_unpacked_than_a_member_declares(tmp_path, declared):
    path = zipped(tmp_path / "a.zip", {"a.png": bytes(range(150))})
    patched(path, struct.pack("<L", 150), struct.pack("<L", declared), None)
    with pytest.raises(BadImage, match="CRC|unpacks to 150 bytes; expected 500|cannot be unpacked"):
        open_tree(path).read("a.png")


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", {f"{index}.png": b"x" * 100 for index in range(10)})
    patched(path, struct.pack("<L", 100), struct.pack("<L", 1_000_000), None)
    with pytest.raises(UserError, match=r"a\.zip unpacks to 10000000 bytes.*bomb.*name the folder"):
        open_tree(path)


def nothing(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("no archive")


def cut(path):
    zipped(path)
    path.write_bytes(path.read_bytes()[:-30])


def bad_text(path):
    zipped(path, {"größe.png": b"x"})
    patched(path, "ö".encode(), b"\xff\xff", None)


@pytest.mark.parametrize("make", [nothing, text, cut, bad_text])
def test_what_is_no_whole_archive_is_refused(tmp_path, make):
    make(tmp_path / "a.zip")
    with pytest.raises(UserError, match=r"a\.zip is no whole zip archive \(.*\); copy or pack it anew") as caught:
        open_tree(tmp_path / "a.zip")
    assert str(caught.value).isprintable()


def test_an_empty_archive_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"a\.zip is an empty zip archive; expected images"):
        open_tree(zipped(tmp_path / "a.zip", {}))


def test_damage_anywhere_gives_sentences_only(tmp_path):
    whole = zipped(tmp_path / "a.zip").read_bytes()
    chance = random.Random(0)
    told = 0
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(whole))] = chance.randrange(256)
        cut_at = chance.choice([len(whole), chance.randrange(len(whole))])
        (tmp_path / "a.zip").write_bytes(damaged[:cut_at])
        try:
            tree = open_tree(tmp_path / "a.zip")
            for name in tree.files():
                if isinstance(name, str):
                    content = tree.read(name)
                    assert content in GOOD.values()  # the checksum holds
        except (UserError, BadImage):
            told += 1
    assert told > 300 and [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]


def test_a_forked_process_reads_from_a_place_of_its_own(tmp_path):
    tree = open_tree(zipped(tmp_path / "a.zip"))
    assert tree.read("cat/1.png") == GOOD["cat/1.png"]
    child = os.fork()
    if child == 0:
        same = all(tree.read(name) == content for name, content in GOOD.items())
        os._exit(0 if same else 1)
    assert all(tree.read(name) == content for _ in range(20) for name, content in GOOD.items())
    assert os.waitpid(child, 0)[1] == 0


def test_an_archive_after_other_bytes_is_read_all_the_same(tmp_path):
    buffer = io.BytesIO()
    zipped(buffer)
    (tmp_path / "a.zip").write_bytes(b"#!/bin/sh\n" + buffer.getvalue())
    tree = open_tree(tmp_path / "a.zip")
    assert {name: tree.read(name) for name in tree.files()} == GOOD
