"""CIFAR: only the published batches are read, from a folder or the archive, and come out as they went in."""

import dataclasses
import hashlib
import importlib
import io
import itertools
import json
import pickle  # noqa: TID251 - to write what must be refused
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from privimage.data import cifar
from privimage.errors import UserError
from privimage.settings import Source

TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def source(path, name="cifar10", **changes):
    return Source(**{"source": name, "path": str(path), "resolution": 32, "channels": 3, **changes})


def pixels(seed, count=3):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def batch(seed, labels, key):
    rows = pixels(seed, len(labels)).transpose(0, 3, 1, 2).reshape(len(labels), -1)
    return pickle.dumps({"data": rows, key: labels, "batch_label": "x"}, 2)


def files(name):
    """Small batches in the form of the published ones."""
    if name == "cifar10":
        names = {f"data_batch_{n + 1}": batch(n, [n, 9, 0], "labels") for n in range(5)}
        names |= {"test_batch": batch(5, [8, 7, 6], "labels")}
        return {**names, "batches.meta": pickle.dumps({"label_names": list(TEN), "num_vis": 3072}, 2)}
    fine = [f"thing {n}" for n in range(100)]
    return {
        "train": batch(0, [99, 0, 5], "fine_labels"),
        "test": batch(5, [50, 51, 52], "fine_labels"),
        "meta": pickle.dumps({"fine_label_names": fine, "coarse_label_names": ["x"]}, 2),
    }


def publish(monkeypatch, name, contents):
    """As if these were the published files."""

    def sums(names):
        return {file: hashlib.md5(contents[file]).hexdigest() if file in contents else "" for file in names}

    known = cifar.PUBLISHED[name]
    changed = {field: sums(getattr(known, field)) for field in ("train", "test", "names")}
    monkeypatch.setitem(cifar.PUBLISHED, name, dataclasses.replace(known, **changed))


@pytest.fixture
def published(monkeypatch):
    """Folder and contents -> the folder, holding them."""

    def fill(folder, name="cifar10", **changes):
        contents = {file: content for file, content in (files(name) | changes).items() if content is not None}
        publish(monkeypatch, name, contents)
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            (folder / file).write_bytes(content)
        return folder

    return fill


def pack(path, folder, prefix, order=None, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name in order or sorted(entry.name for entry in folder.iterdir()):
            archive.add(folder / name, f"{prefix}/{name}")
    return path


def content(collection):
    return [(r.name, r.label, r.split, r.load().tobytes()) for r in collection.items()]


@pytest.mark.parametrize("below", [".", "cifar-10-batches-py"])
def test_images_come_in_the_published_order_as_they_were(tmp_path, published, below):
    published(tmp_path / below)
    found = cifar.read(source(tmp_path))
    records = list(found.items())
    assert found.class_names == TEN
    assert [record.label for record in records] == [0, 9, 0, 1, 9, 0, 2, 9, 0, 3, 9, 0, 4, 9, 0, 8, 7, 6]
    assert [record.split for record in records] == ["train"] * 15 + ["test"] * 3
    np.testing.assert_array_equal([r.load() for r in records], np.concatenate([pixels(n) for n in range(6)]))
    assert records[4].name == "data_batch_2, image 1"


def test_of_cifar_100_the_fine_labels_count(tmp_path, published):
    published(tmp_path, "cifar100")
    found = cifar.read(source(tmp_path, "cifar100", num_classes=100))
    assert found.class_names == tuple(f"thing {n}" for n in range(100))
    assert [(r.label, r.split) for r in found.items()][2:4] == [(5, "train"), (50, "test")]


@pytest.mark.parametrize(("mode", "ending"), [("w:gz", ".tar.gz"), ("w", ".tar")])
def test_the_archive_gives_what_the_folder_gives_whatever_its_order(tmp_path, published, mode, ending):
    folder = published(tmp_path / "folder")
    published_order = ["data_batch_4", "test_batch", "data_batch_3", "batches.meta", "data_batch_2", "data_batch_5"]
    path = pack(tmp_path / f"c{ending}", folder, "cifar-10-batches-py", [*published_order, "data_batch_1"], mode)
    assert content(cifar.read(source(path))) == content(cifar.read(source(folder)))


def test_the_archive_is_found_in_its_folder(tmp_path, published):
    folder = published(tmp_path / "a")
    (tmp_path / "b").mkdir()
    pack(tmp_path / "b" / "cifar-10-python.tar.gz", folder, "cifar-10-batches-py")
    found = cifar.read(source(tmp_path / "b"))
    assert found.form == "Python batches of CIFAR10 in a tar archive" and len(content(found)) == 18


def test_some_images_of_one_pass_are_those_of_the_whole(tmp_path, published):
    items = cifar.read(source(published(tmp_path))).items
    whole = np.concatenate([pixels(n) for n in range(6)])
    for start in range(4):
        got = [record.load() for record in itertools.islice(items(), start, None, 4)]
        np.testing.assert_array_equal(got, whole[start::4])


def test_declared_classes_may_stand_in_another_order(tmp_path, published):
    published(tmp_path)
    found = cifar.read(source(tmp_path), TEN[::-1])
    assert [found.class_names[r.label] for r in itertools.islice(found.items(), 2)] == ["airplane", "truck"]
    with pytest.raises(UserError, match="write `class_names: "):
        cifar.read(source(tmp_path), ("cat", "dog"))


def test_the_ten_names_are_known_without_their_file(tmp_path, published):
    published(tmp_path)
    (tmp_path / "batches.meta").unlink()
    assert cifar.read(source(tmp_path)).class_names == TEN


@pytest.mark.parametrize("packed", [False, True])
def test_an_altered_batch_is_refused_before_it_is_read(tmp_path, published, monkeypatch, packed):
    folder = published(tmp_path / "x")
    altered = bytearray((folder / "data_batch_3").read_bytes())
    altered[-100] ^= 1
    (folder / "data_batch_3").write_bytes(altered)
    path = pack(tmp_path / "x.tar.gz", folder, "cifar-10-batches-py") if packed else folder
    read = []
    whole = cifar.unpickle.load
    monkeypatch.setattr(cifar.unpickle, "load", lambda file, name, size: read.append(name) or whole(file, name, size))
    expected = cifar.PUBLISHED["cifar10"].train["data_batch_3"]
    got = hashlib.md5(altered).hexdigest()
    with pytest.raises(UserError, match=f"data_batch_3 has the MD5 sum {got}; expected {expected}"):
        cifar.read(source(path))
    assert [name[-12:] for name in read] == ["batches.meta", "data_batch_1", "data_batch_2"]


@pytest.mark.parametrize("packed", [False, True])
def test_missing_files_are_named_all_together(tmp_path, published, packed):
    folder = published(tmp_path / "x")
    for name in ("data_batch_2", "test_batch"):
        (folder / name).unlink()
    path = pack(tmp_path / "x.tar.gz", folder, "cifar-10-batches-py") if packed else folder
    with pytest.raises(UserError, match="lacks data_batch_2, test_batch; expected the files of cifar-10-python.tar.gz"):
        cifar.read(source(path))


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="absent does not exist"):
        cifar.read(source(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"holds neither cifar-100-python\.tar\.gz nor its files \(train, test, meta\)"):
        cifar.read(source(tmp_path, "cifar100"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (batch(0, [0, 10, 1], "labels"), "has the label 10 at image 1; expected 0 to 9"),
        (batch(0, [0, -1, 1], "labels"), "has the label -1 at image 1"),
        (batch(0, [0, 1], "fine_labels"), "has no list of labels"),
        (pickle.dumps({"data": np.zeros((3, 3072), np.uint8), "labels": [1]}), "has 1 labels and 3 images"),
        (pickle.dumps({"data": np.zeros((3, 3071), np.uint8), "labels": [1] * 3}), r"shape \[3, 3071\]"),
        (pickle.dumps({"data": np.zeros((3, 3072)), "labels": [1] * 3}), "type float64; expected uint8"),
        (pickle.dumps({"data": [[0] * 3072], "labels": [1]}), "has no array `data`"),
        (pickle.dumps({"labels": [1]}), "has no array `data`"),
        (pickle.dumps([1]), "is not a pickle of plain arrays and lists"),
    ],
)
def test_a_batch_that_is_no_batch_is_refused(tmp_path, published, changed, message):
    published(tmp_path, data_batch_2=changed)
    with pytest.raises(UserError, match=f"data_batch_2 .*{message}"):
        cifar.read(source(tmp_path))


@pytest.mark.parametrize("names", [b"cat", ["cat"] * 9 + [1], [], None])
def test_class_names_that_are_none_are_refused(tmp_path, published, names):
    published(tmp_path, **{"batches.meta": pickle.dumps({"label_names": names})})
    with pytest.raises(UserError, match=r"batches\.meta has no list of class names"):
        cifar.read(source(tmp_path))


@pytest.mark.parametrize("cut", [100, 5000, -2000])
def test_a_damaged_archive_is_refused(tmp_path, published, cut):
    path = pack(tmp_path / "x.tar.gz", published(tmp_path / "x"), "cifar-10-batches-py")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"x\.tar\.gz (cannot be unpacked|lacks)"):
        cifar.read(source(path))
    path.write_text("no archive")
    with pytest.raises(UserError, match=r"x\.tar\.gz cannot be unpacked"):
        cifar.read(source(path))


def test_links_holes_and_members_elsewhere_in_an_archive_are_not_the_files(tmp_path, published):
    folder = published(tmp_path / "x")
    batch = (folder / "data_batch_1").read_bytes()
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name in sorted(entry.name for entry in folder.iterdir()):
            if name != "data_batch_1":
                archive.add(folder / name, f"cifar-10-batches-py/{name}")
        link = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for elsewhere in ("data_batch_1", "../cifar-10-batches-py/data_batch_1", "/cifar-10-batches-py/data_batch_1"):
            member = tarfile.TarInfo(elsewhere)
            member.size = len(batch)
            archive.addfile(member, io.BytesIO(batch))
        hole = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        hole.size = 0
        hole.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(10**12), "GNU.sparse.major": "0"}
        archive.addfile(hole)
    with pytest.raises(UserError, match="lacks data_batch_1;"):
        cifar.read(source(path))


def test_a_bomb_is_unpacked_no_further_than_it_may(tmp_path, published, monkeypatch):
    monkeypatch.setattr(cifar, "MAX_ARCHIVE", 1_000_000)
    folder = published(tmp_path / "x")
    (folder / "a_bomb").write_bytes(bytes(2_000_000))
    path = pack(tmp_path / "x.tar.gz", folder, "cifar-10-batches-py")
    with pytest.raises(UserError, match="unpacks to more than it may"):
        cifar.read(source(path))


@pytest.mark.data
@pytest.mark.slow
def test_the_published_batches_hold_the_published_images(real_data, tmp_path):
    """Against the lossless pictures that the batches are rebuilt from."""
    script, packed = real_data / "unpack_cifar10.py", real_data / "cifar10_lossless_webp.zip"
    subprocess.run([sys.executable, script, packed, tmp_path / "a"], check=True, capture_output=True)
    subprocess.run([sys.executable, script, packed, tmp_path / "b", "--npz"], check=True, capture_output=True)
    found = cifar.read(source(tmp_path / "a"), TEN)
    records = list(found.items())
    with np.load(tmp_path / "b" / "cifar10.npz") as arrays:  # noqa: TID251 - numbers, by default
        assert found.class_names == tuple(arrays["classes"])
        for split, start, stop in (("train", 0, 50_000), ("test", 50_000, 60_000)):
            part = records[start:stop]
            assert {record.split for record in part} == {split}
            np.testing.assert_array_equal([record.label for record in part], arrays[f"{split}_y"])
            digest = hashlib.md5()
            for record in part:
                digest.update(record.load())
            assert digest.digest() == hashlib.md5(arrays[f"{split}_x"]).digest()
    assert len(records) == 60_000


@pytest.mark.data
def test_a_published_batch_is_rebuilt_and_read(real_data, tmp_path, monkeypatch):
    """One batch of the five, with its published checksum."""
    monkeypatch.syspath_prepend(str(real_data))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    unpack_cifar10 = importlib.import_module("unpack_cifar10")
    archive = zipfile.ZipFile(real_data / "cifar10_lossless_webp.zip")
    meta = json.loads(archive.read("labels.json"))
    images = np.concatenate([unpack_cifar10.tiles(archive.read(f"test/{n:02}.webp")) for n in range(10)])
    (name,) = cifar.PUBLISHED["cifar10"].test
    raw = unpack_cifar10.pickle_bytes("testing batch 1 of 1", images, meta["test_labels"], meta["test_filenames"])
    assert hashlib.md5(raw).hexdigest() == cifar.PUBLISHED["cifar10"].test[name]
    (tmp_path / name).write_bytes(raw)
    (batch,) = (b for b in cifar._batches(only_test(tmp_path), 10) if b.name == name)
    assert batch.labels.tolist() == meta["test_labels"]
    np.testing.assert_array_equal(batch.images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), images)


def only_test(folder):
    return cifar.Files(folder, dataclasses.replace(cifar.PUBLISHED["cifar10"], train={}), False)
