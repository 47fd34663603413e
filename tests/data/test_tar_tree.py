"""Tar archives as trees: what the standard library reads, in constant memory, and no silence about damage."""

import bz2
import gzip
import io
import lzma
import os
import random
import re
import subprocess
import sys
import tarfile
import tracemalloc

import pytest

from privimage.data import tar_tree
from privimage.data.record import BadImage, Problem
from privimage.data.tree import open_tree
from privimage.errors import UserError

GOOD = {
    "cat/1.png": b"one" * 500,
    "cat/2.png": b"",
    "dog/" + "long" * 60 + ".png": b"two" * 700,
    "dog/ü.png": b"3" * 512,
}
PACK = {
    "a.tar": bytes,
    "a.tar.gz": gzip.compress,
    "a.tgz": gzip.compress,
    "a.tar.bz2": bz2.compress,
    "a.tar.xz": lzma.compress,
}


def entry(name, kind=tarfile.REGTYPE, **values):
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in values.items():
        setattr(info, key, value)
    return info


def archive_of(members, form=tarfile.PAX_FORMAT):
    """The bytes of an archive of names (or `TarInfo`) and contents, a mapping or pairs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = info.size or len(content)
            archive.addfile(info, io.BytesIO(content + bytes(info.size - len(content)) if info.isreg() else b""))
    return buffer.getvalue()


def tarred(path, members=GOOD, form=tarfile.PAX_FORMAT):
    path.write_bytes(PACK[path.name](archive_of(members, form)))
    return path


def items_of(path):
    items = list(open_tree(path).files())
    return [item for item in items if isinstance(item, str)], [item for item in items if isinstance(item, Problem)]


@pytest.mark.parametrize(
    "form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["ustar", "gnu", "pax"]
)
@pytest.mark.parametrize("name", PACK)
def test_names_and_contents_are_those_that_were_packed(tmp_path, name, form):
    members = GOOD if form != tarfile.USTAR_FORMAT else {**GOOD, "a" * 90 + "/" + "b" * 90: b"prefix"}
    if form == tarfile.USTAR_FORMAT:
        members = {key: value for key, value in members.items() if "long" not in key}
    tree = open_tree(tarred(tmp_path / name, members, form))
    assert {file: tree.read(file) for file in tree.files()} == members
    assert list(tree.files()) == list(tree.files()) == list(members)
    assert tree.form == "tar archive" and tree.called("cat/1.png") == f"{name}: cat/1.png"
    assert tree.folders()[-2:] == ["cat", "dog"] and tree.has("cat/1.png") and not tree.has("cat")


@pytest.mark.parametrize("name", PACK)
def test_files_can_be_read_out_of_turn_and_again(tmp_path, name):
    tree = open_tree(tarred(tmp_path / name))
    listing = tree.files()
    next(listing)
    for _ in range(2):
        for file in reversed(GOOD):
            assert tree.read(file) == GOOD[file]
    assert list(listing) == list(GOOD)[1:]
    with pytest.raises(BadImage, match="no such file"):
        tree.read("cat/9.png")


@pytest.mark.parametrize("flags", [["--format=gnu"], ["--format=pax"], ["--format=v7"], ["--format=ustar"]])
def test_what_the_tar_program_packs_is_read(tmp_path, flags):
    (tmp_path / "cat").mkdir()
    (tmp_path / "eel").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"pixels" * 1000)
    subprocess.run(["tar", *flags, "-cf", "a.tar", "./cat", "./eel"], cwd=tmp_path, check=True)
    tree = open_tree(tmp_path / "a.tar")
    assert {file: tree.read(file) for file in tree.files()} == {"cat/1.png": b"pixels" * 1000}
    assert tree.folders() == ["cat", "eel"]


def test_a_compressed_archive_is_unpacked_once_for_a_pass_that_reads_in_turn(tmp_path, monkeypatch):
    opened = []
    original = tar_tree.Tar.open
    monkeypatch.setattr(tar_tree.Tar, "open", lambda self: opened.append(1) or original(self))
    rewound = []
    monkeypatch.setattr(gzip._GzipReader, "_rewind", lambda self: rewound.append(1))
    tree = open_tree(tarred(tmp_path / "a.tar.gz"))
    tree.folders()
    opened.clear()
    assert {file: tree.read(file) for file in tree.files()} == GOOD
    assert (len(opened), rewound) == (1, [])


def test_a_sub_tree_is_the_same_tree_seen_from_a_folder(tmp_path):
    members = [("train/cat/1.png", b"1"), ("test/cat/2.png", b"2"), (entry("train/eel", tarfile.DIRTYPE), b"")]
    sub = open_tree(tarred(tmp_path / "a.tar", members)).sub("train")
    assert list(sub.files()) == ["cat/1.png"] and sub.folders() == ["cat", "eel"]
    assert sub.read("cat/1.png") == b"1" and not sub.has("cat/2.png")


def test_names_that_are_no_text_survive(tmp_path):
    name = os.fsdecode(b"\xff.png")
    names, _ = items_of(tarred(tmp_path / "a.tar", {name: b"1", "./a//b.png": b"2", ".hid": b"", "__MACOSX/x": b""}))
    assert names == [name, "a/b.png"]


HOSTILE = {
    "absolute": ("/etc/x.png", "/etc/x.png: a member with an absolute name; pack the images anew"),
    "parent": ("a/../../x.png", r"leads out of the archive \(\.\.\); pack"),
    "backslash": ("..\\x.png", "backslash in its name; pack"),
    "drive": ("c:x.png", "drive letter; pack"),
    "deep": ("a/" * 100 + "x.png", "205 characters in 100 folders; pack"),
    "symbolic link": (entry("l.png", tarfile.SYMTYPE, linkname="/etc/passwd"), "l.png: a link; pack the file itself"),
    "hard link": (entry("l.png", tarfile.LNKTYPE, linkname="good.png"), r"a link; pack .*--hard-dereference"),
    "device": (entry("d.png", tarfile.CHRTYPE), "d.png: no regular file but a pipe.*; remove it"),
    "block device": (entry("d.png", tarfile.BLKTYPE), "d.png: no regular file.*; remove it"),
    "pipe": (entry("d.png", tarfile.FIFOTYPE), "d.png: no regular file.*; remove it"),
    "sparse": (entry("s.png", pax_headers={"GNU.sparse.major": "1"}), "s.png: a sparse file; pack it without"),
    "nested": ("in.tar", "in.tar: an archive inside; unpack it"),
    "unknown kind": (entry("q.png", b"Q"), "q.png: no regular file.*; remove it"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_member_is_told_and_the_others_are_listed(tmp_path, case):
    name, message = HOSTILE[case]
    path = tarred(tmp_path / "a.tar", [("good.png", b"1"), (name, b""), ("more.png", b"2")])
    names, (problem,) = items_of(path)
    assert names == ["good.png", "more.png"] and problem.skippable and problem.name.startswith("a.tar: ")
    assert re.search(message, str(problem)), problem
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar"]


def test_two_members_of_one_name_stop_the_run(tmp_path):
    names, problems = items_of(tarred(tmp_path / "a.tar", [("a.png", b"1"), ("b.png", b"2"), ("./a.png", b"1")]))
    assert names == ["b.png"] and [problem.skippable for problem in problems] == [False, False]
    assert str(problems[0]) == "a.tar: a.png: the archive holds two files of this name; keep one of them."


def test_a_member_that_is_too_large_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_tree, "MAX_FILE", 1600)
    names, (problem,) = items_of(tarred(tmp_path / "a.tar"))
    assert "2100 bytes; expected an image of at most" in str(problem) and len(names) == 3


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_an_archive_that_unpacks_without_bound_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tar_tree, "UNSUSPICIOUS", 1000)
    monkeypatch.setattr(tar_tree, "MAX_RATIO", 10)
    path = tarred(tmp_path / name, {"a.png": bytes(3_000_000), "b.png": b"1"})
    with pytest.raises(
        UserError, match=r"says that it holds .* bytes, more than .* its size; copy it anew, or .*name the folder"
    ):
        list(open_tree(path).files())


def test_an_extended_header_may_not_be_large(tmp_path):
    path = tarred(tmp_path / "a.tar.gz", [(entry("a.png", pax_headers={"comment": "x" * 2_000_000}), b"1")])
    with pytest.raises(UserError, match="is no whole tar archive .a header of 20000.. bytes.*; copy or pack it anew"):
        open_tree(path)


def test_an_xz_archive_may_not_ask_for_much_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_tree, "XZ_MEMORY", 1_000_000)
    with pytest.raises(UserError, match=r"is no whole tar archive \(.*emory.*\); copy or pack it anew"):
        open_tree(tarred(tmp_path / "a.tar.xz"))


def test_joined_xz_streams_are_one_archive(tmp_path):
    whole = archive_of(GOOD)
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(whole[:1000]) + bytes(4) + lzma.compress(whole[1000:]))
    tree = open_tree(tmp_path / "a.tar.xz")
    assert {file: tree.read(file) for file in tree.files()} == GOOD


def summed(header):
    """The header with its checksum made right."""
    blank = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(blank) + header[156:]


WHOLE = archive_of(GOOD)
DAMAGED = {
    "empty": (b"", "it is empty"),
    "text": (b"no archive at all" * 100, "it does not start like one"),
    "short": (b"no archive", "it ends without an end mark"),
    "cut in a header": (WHOLE[:700], r"it ends in the middle of cat/1\.png"),
    "cut in a file": (WHOLE[:1200], r"it ends in the middle of cat/1\.png"),
    "cut between files": (WHOLE[:2048], r"it ends without an end mark, after cat/1\.png"),
    "a damaged header": (WHOLE[:2048] + b"\7" + WHOLE[2049:], r"a damaged header after cat/1\.png"),
    "two joined": (WHOLE + WHOLE, "it goes on after its end mark"),
    "a negative size": (summed(WHOLE[:124] + b"\xff" * 12 + WHOLE[136:512]) + WHOLE[512:], "a damaged number"),
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz"])
def test_what_is_no_whole_archive_is_refused_where_the_library_would_stop_silently(tmp_path, case, name):
    content, message = DAMAGED[case]
    (tmp_path / name).write_bytes(PACK[name](content))
    with pytest.raises(UserError, match=rf"{name} is no whole tar archive \({message}.*\); copy or pack it anew"):
        list(open_tree(tmp_path / name).files())


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz"])
def test_a_member_of_absurd_size_is_refused_at_once(tmp_path, name):
    content = summed(WHOLE[:124] + b"\x80" + b"\x7f" * 11 + WHOLE[136:512]) + WHOLE[512:]
    (tmp_path / name).write_bytes(PACK[name](content))
    with pytest.raises(UserError, match="says that it holds .* bytes, more than 1000 times its size; copy it anew, or"):
        list(open_tree(tmp_path / name).files())


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_a_compressed_archive_that_was_cut_is_refused(tmp_path, name):
    content = PACK[name](archive_of({f"{index}.png": random.Random(index).randbytes(5000) for index in range(9)}))
    for length in (3, 20, len(content) // 2, len(content) - 10):
        (tmp_path / name).write_bytes(content[:length])
        with pytest.raises(UserError, match="is no whole tar archive .*; copy or pack it anew"):
            list(open_tree(tmp_path / name).files())


def test_an_archive_without_members_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"a\.tar is an empty tar archive; expected images"):
        open_tree(tarred(tmp_path / "a.tar", {}))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz"])
def test_damage_anywhere_gives_sentences_only(tmp_path, name):
    whole = PACK[name](WHOLE)
    chance = random.Random(0)
    told = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(whole))] = chance.randrange(256)
        (tmp_path / name).write_bytes(damaged[: chance.choice([len(whole), chance.randrange(len(whole))])])
        try:
            tree = open_tree(tmp_path / name)
            for item in tree.files():
                if isinstance(item, str):
                    tree.read(item)
        except (UserError, BadImage):
            told += 1
    assert told > 120 and [entry.name for entry in tmp_path.iterdir()] == [name]


def test_listing_takes_little_memory_for_each_file(tmp_path):
    blank = b"".join(tarfile.TarInfo(f"cat/{index:06}.png").tobuf() for index in range(5_000))
    (tmp_path / "a.tar").write_bytes(blank + bytes(1024))
    tracemalloc.start()
    tree = open_tree(tmp_path / "a.tar")
    assert sum(1 for _ in tree.files()) == 5_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000 + 40 * 5_000


def test_a_forked_process_reads_from_a_place_of_its_own(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from privimage.data.tree import open_tree\n"
        "tree = open_tree(Path(sys.argv[1])); names = list(tree.files()); want = {n: tree.read(n) for n in names}\n"
        "child = os.fork()\n"
        "same = all(tree.read(n) == want[n] for _ in range(50) for n in names)\n"
        "os._exit(not same) if child == 0 else sys.exit(os.waitpid(child, 0)[1] or not same)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tarred(tmp_path / "a.tar.gz"))], check=True)
