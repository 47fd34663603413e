"""HDF5: arrays come back as h5py wrote them, in every way of storing; nothing outside the named file is read."""

import io
import json
import time
import tracemalloc

import h5py
import numpy as np
import pytest
from PIL import Image

from privimage.artifacts import ImageSet
from privimage.data import hdf5, hdf5_heap
from privimage.data.decode import upright
from privimage.data.record import BadImage, Problem
from privimage.errors import UserError
from privimage.settings import Source

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 8, 9, 3), dtype=np.uint8)  # [N, H, W, C]
LABELS = np.array([0, 1, 2, 0, 1, 2, 0])


def read(path, class_names=None, **changes):
    source = Source(**{"source": "hdf5", "path": str(path), "resolution": 4, "channels": 3, **changes})
    return hdf5.read(source, class_names)


def saved(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def labels_of(collection):
    return [item.label for item in collection.items()]


def pixels_of(collection):
    return np.stack([item.load() for item in collection.items()])


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"chunks": (1, 8, 9, 3)},
        {"chunks": (3, 8, 9, 3), "compression": "gzip"},
        {"chunks": (4, 2, 5, 1), "compression": "lzf", "shuffle": True},
        {"chunks": True, "fletcher32": True},
        {"chunks": (2, 8, 9, 3), "maxshape": (None, 8, 9, 3)},
    ],
)
def test_pixels_come_back_however_they_are_stored(tmp_path, stored):
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file.create_dataset("images", data=PIXELS, **stored)
        file["labels"] = LABELS
    found = read(tmp_path / "set.h5")
    np.testing.assert_array_equal(pixels_of(found), PIXELS)
    assert labels_of(found) == LABELS.tolist() and found.form == "HDF5 file (images, labels)"
    items = list(found.items())
    for index in (6, 2, 2, 0, 5):
        np.testing.assert_array_equal(items[index].load(), PIXELS[index])


@pytest.mark.parametrize("dtype", ["u1", ">u2", "?", "f2", ">f4", "f8"])
def test_every_kind_of_pixels_arrives_as_it_was(tmp_path, dtype):
    images = np.random.default_rng(1).integers(0, 2, (3, 3, 8, 9)).astype(dtype)
    for row, item in zip(images, read(saved(tmp_path / "set.h5", x=images)).items()):
        content = item.load()
        np.testing.assert_array_equal(content, row.transpose(1, 2, 0))
        assert content.dtype.isnative and upright(content, 1000)[0].size == (9, 8)


def test_the_files_of_patch_camelyon_are_one_set(tmp_path):
    sizes = {"train": 4, "valid": 2, "test": 3}
    for part, count in sizes.items():
        stem = f"camelyonpatch_level_2_split_{part}"
        saved(tmp_path / f"{stem}_x.h5", x=np.full((count, 96, 96, 3), count, np.uint8))
        saved(tmp_path / f"{stem}_y.h5", y=(np.arange(count) % 2).astype(np.uint8).reshape(count, 1, 1, 1))
    saved(tmp_path / "camelyonpatch_level_2_split_train_mask.h5", mask=np.zeros((4, 96, 96, 1), np.uint8))
    found = read(tmp_path, ("normal", "tumor"))
    items = list(found.items())
    assert [item.split for item in items].count("train") == 6
    assert [item.label for item in items if item.split == "test"] == [0, 1, 0]
    assert items[0].name == "camelyonpatch_level_2_split_train_x.h5: x[0]"
    assert {item.load()[0, 0, 0] for item in items if item.split == "test"} == {3}


def test_groups_may_be_the_parts(tmp_path):
    arrays = {"train/images": PIXELS, "train/labels": LABELS, "test/images": PIXELS[:2], "test/labels": LABELS[:2]}
    found = read(saved(tmp_path / "set.h5", **arrays))
    assert [item.split for item in found.items()] == ["train"] * 7 + ["test"] * 2
    assert next(found.items()).name == "train/images[0]"


@pytest.mark.parametrize("dtype", ["S3", h5py.string_dtype()])
def test_labels_may_be_texts(tmp_path, dtype):
    words = np.array(["dog", "cat", "dog", "dog", "cat", "cat", "dog"], dtype=object)
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file["images"] = PIXELS
        file.create_dataset("labels", data=words.astype("S3") if dtype == "S3" else words, dtype=dtype)
    assert read(tmp_path / "set.h5").class_names == ("cat", "dog")
    assert labels_of(read(tmp_path / "set.h5", ("dog", "cat"))) == [0, 1, 0, 0, 1, 1, 0]


@pytest.mark.parametrize("place", ["dataset", "attribute", "bytes", "metadata"])
def test_class_names_are_found_where_they_are_kept(tmp_path, place):
    names = ["dog", "Käfer", "eel"]
    with h5py.File(saved(tmp_path / "set.h5", images=PIXELS, labels=LABELS), "r+") as file:
        if place == "dataset":
            file["class_names"] = names
        elif place == "metadata":
            file.attrs["metadata"] = json.dumps({"class_names": names})
        else:
            file.attrs["class_names"] = [n.encode() for n in names] if place == "bytes" else names
    assert read(tmp_path / "set.h5").class_names == tuple(names)
    assert labels_of(read(tmp_path / "set.h5", ("eel", "Käfer", "dog"))) == [2, 1, 0, 2, 1, 0, 2]


def test_the_packages_own_files_are_read_back(tmp_path):
    squares = np.ascontiguousarray(PIXELS[:, :, :8])
    ImageSet(squares, LABELS, ("a", "b", "c"), "npz").write(tmp_path / "train.h5")
    ImageSet(squares[:3], LABELS[:3], ("a", "b", "c"), "npz").write(tmp_path / "test.h5")
    found = read(tmp_path)
    assert found.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(pixels_of(found), np.concatenate([squares, squares[:3]]))
    assert [item.split for item in found.items()] == ["train"] * 7 + ["test"] * 3


def png(seed):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8 + seed), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("chunks", [None, (2,)])
def test_encoded_images_come_as_the_bytes_of_their_files(tmp_path, chunks):
    with h5py.File(tmp_path / "set.h5", "w") as file:
        images = file.create_dataset("images", (4,), h5py.vlen_dtype(np.uint8), chunks=chunks)
        for index in range(4):
            images[index] = np.frombuffer(png(index), np.uint8)
    assert [item.load() for item in read(tmp_path / "set.h5").items()] == [png(index) for index in range(4)]


def test_a_label_that_no_class_has_is_a_problem_of_its_image_alone(tmp_path):
    path = saved(tmp_path / "set.h5", images=PIXELS, labels=LABELS, class_names=["a", "b"])
    assert [isinstance(item, Problem) for item in read(path).items()] == (LABELS == 2).tolist()


def test_a_large_array_is_never_held_whole(tmp_path):
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file.create_dataset("images", (500, 256, 256), np.uint8, chunks=(10, 256, 256), compression="gzip")
    tracemalloc.start()
    assert sum(int(item.load().max()) for item in read(tmp_path / "set.h5").items()) == 0
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_encoded_images_of_a_large_chunk_are_never_held_together(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "set.h5", "w") as file:
        images = file.create_dataset("images", (200,), h5py.vlen_dtype(np.uint8), chunks=(200,))
        for index in range(200):
            images[index] = np.full(100_000, index, np.uint8)  # 20 MB in all
    read_at_once, plain = [], hdf5.values

    def counted(*wanted):
        rows = plain(*wanted)
        read_at_once.append(sum(map(len, rows)))
        return rows

    found = read(tmp_path / "set.h5")
    monkeypatch.setattr(hdf5, "values", counted)
    assert [item.load()[0] for item in found.items()] == list(range(200))
    assert sum(read_at_once) == 20_000_000 and max(read_at_once) < 5e6


def link_out(folder, file):
    saved(folder / "other.h5", images=PIXELS)
    file["images"] = h5py.ExternalLink("other.h5", "/images")


def link_out_softly(folder, file):
    saved(folder / "other.h5", images=PIXELS)
    file["way"] = h5py.ExternalLink("other.h5", "/")
    file["images"] = h5py.SoftLink("/way/images")


def link_out_by_group(folder, file):
    saved(folder / "other.h5", images=PIXELS)
    file["train"] = h5py.ExternalLink("other.h5", "/")


def virtual(folder, file):
    saved(folder / "other.h5", images=PIXELS)
    layout = h5py.VirtualLayout(PIXELS.shape, np.uint8)
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "images", PIXELS.shape)
    file.create_virtual_dataset("images", layout)


def external(folder, file):
    (folder / "raw").write_bytes(PIXELS.tobytes())
    file.create_dataset("images", PIXELS.shape, np.uint8, external=[(str(folder / "raw"), 0, PIXELS.nbytes)])


@pytest.mark.parametrize("reach", [link_out, link_out_softly, link_out_by_group, virtual, external])
def test_nothing_is_read_from_other_files(tmp_path, reach):
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "in" / "set.h5", "w") as file:
        reach(tmp_path / "in", file)
    with pytest.raises(UserError, match="copy it into the file|the arrays train"):
        read(tmp_path / "in" / "set.h5")


def compound(file):
    file["images"] = np.zeros(4, [("r", "u1"), ("g", "u1")])


def references(file):
    file["images"] = np.array([file.ref] * 4, dtype=h5py.ref_dtype)


def wide_chunks(file):
    file.create_dataset("images", (10**6, 64, 64), np.uint8, chunks=(10**5, 1, 1))


def unknown_filter(file):
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((1, 8, 8))
    made.set_filter(31999, h5py.h5z.FLAG_OPTIONAL)
    h5py.h5d.create(file.id, b"images", h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple((4, 8, 8)), made)


def one_array_an_image(file):
    for index in range(10_001):
        file.create_group(str(index))


BAD = {
    "records": (compound, "elements of type .* expected plain numbers"),
    "references": (references, "elements of type"),
    "a group": (lambda file: file.create_group("images"), "images is a group"),
    "a single value": (lambda file: file.create_dataset("images", data=3), "single value"),
    "nothing": (lambda file: file.create_dataset("images", data=h5py.Empty("u1")), "single value"),
    "no rows": (lambda file: file.create_dataset("images", (0, 8, 8), "u1"), "is empty"),
    "integers": (lambda file: file.create_dataset("images", (4, 8, 8), "i8"), "pixels of type int64"),
    "texts": (lambda file: file.create_dataset("images", data=[b"a.png", b"b.png"]), "pixels of type"),
    "strangers": (lambda file: file.create_dataset("volume", (4, 8, 8), "u1"), "the arrays volume; expected images"),
    "wide chunks": (wide_chunks, "must be read 409600000 bytes at a time"),
    "too many images": (lambda f: f.create_dataset("images", (10**12, 8, 8), "u1", chunks=(1, 8, 8)), "at most"),
    "an unknown filter": (unknown_filter, "packed with filter 31999"),
    "one array an image": (one_array_an_image, "10001 entries; expected one array"),
    "fewer labels": (lambda f: f.update({"images": PIXELS, "labels": LABELS[1:]}), "6 labels; expected 7"),
    "names of numbers": (
        lambda f: (f.update({"images": PIXELS, "labels": LABELS}), f.attrs.update({"class_names": [1, 2, 3]})),
        "holds no texts",
    ),
    "two lists of names": (
        lambda f: (
            f.update({"images": PIXELS, "labels": LABELS, "class_names": ["a", "b", "c"]}),
            f.attrs.update({"class_names": ["b", "a", "c"]}),
        ),
        "different lists",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_no_images_and_labels_are_refused_in_one_sentence(tmp_path, name):
    fill, message = BAD[name]
    with h5py.File(tmp_path / "set.h5", "w") as file:
        fill(file)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / "set.h5")
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_somebody_elses_metadata_are_passed_over(tmp_path):
    for number, metadata in enumerate(["no JSON", "[" * 100_000, "[]", '{"names": 3}', "3"]):
        path = saved(tmp_path / f"{number}.h5", images=PIXELS, labels=LABELS)
        with h5py.File(path, "r+") as file:
            file.attrs.create("metadata", metadata[:60_000])
        assert read(path).class_names == ("0", "1", "2")


def test_damaged_files_are_refused_or_their_images_are(tmp_path):
    good = saved(tmp_path / "good.h5", images=PIXELS, labels=LABELS).read_bytes()
    for number, content in enumerate([b"", b"text", good[:8], good[:600], good[: len(good) // 2]]):
        path = tmp_path / f"{number}.h5"
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{number}.h5 is no HDF5 file"):
            read(path)
    with h5py.File(tmp_path / "packed.h5", "w") as file:
        file.create_dataset("images", data=PIXELS, chunks=(1, 8, 9, 3), compression="gzip", fletcher32=True)
        place = file["images"].id.get_chunk_info(3).byte_offset
    content = bytearray((tmp_path / "packed.h5").read_bytes())
    content[place + 20] ^= 255
    (tmp_path / "packed.h5").write_bytes(content)
    items = list(read(tmp_path / "packed.h5").items())
    with pytest.raises(BadImage, match="cannot be read"):
        items[3].load()
    np.testing.assert_array_equal(items[4].load(), PIXELS[4])


def endless(path, place):
    """Damage the file's first heap, so that HDF5 looks for the end of it for ever: the length of one thing in it."""
    content = bytearray(path.read_bytes())
    content[content.find(b"GCOL") + place] = 255
    path.write_bytes(content)
    return path


def test_a_heap_of_texts_that_never_ends_is_refused_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_heap, "SECONDS", 0.5)
    path = saved(tmp_path / "names.h5", images=PIXELS, labels=LABELS)
    with h5py.File(path, "r+") as file:
        file.attrs["class_names"] = ["cat", "dog", "eel"]
    with pytest.raises(UserError, match=r"names.h5 is no HDF5 file that can be read \(HDF5 does not end within 0.5 s"):
        read(endless(path, 24))
    began = time.monotonic()
    with pytest.raises(UserError, match="its heap of texts or image files is damaged"):
        read(path)  # which is not tried again
    assert time.monotonic() - began < 0.4
    path = saved(tmp_path / "texts.h5", images=PIXELS, labels=np.array(["cat", "dog"] * 3 + ["cat"], object))
    with pytest.raises(UserError, match=r"labels\[0\] is no label \(cannot be read \(HDF5 does not end within"):
        read(endless(path, 24))
    assert read(saved(tmp_path / "good.h5", images=PIXELS, labels=np.array(["cat"] * 7, object))).class_names


def test_image_files_in_a_heap_that_never_ends_are_refused_and_the_wait_is_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_heap, "SECONDS", 0.5)
    with h5py.File(tmp_path / "set.h5", "w") as file:
        images = file.create_dataset("images", (40,), h5py.vlen_dtype(np.uint8))
        for index in range(40):
            images[index] = np.zeros(50, np.uint8)
    items, told = list(read(endless(tmp_path / "set.h5", 24)).items()), set()
    began = time.monotonic()
    for item in items:
        with pytest.raises(BadImage) as error:
            item.load()
        told.add(error.value.what)
        assert not error.value.skippable  # else the set would depend on who asked first
    assert time.monotonic() - began < 2
    assert told == {
        "cannot be read (HDF5 does not end within 0.5 seconds at images)",
        "cannot be read (its heap of texts or image files is damaged)",
    }


def test_a_crash_of_hdf5_is_a_sentence(tmp_path, monkeypatch):
    program = tmp_path / "crash.py"
    program.write_text("import os, sys\nsys.stdin.readline()\nos.abort()")
    monkeypatch.setattr(hdf5_heap, "PROGRAM", program)
    monkeypatch.setattr(hdf5_heap, "_child", None)
    path = saved(tmp_path / "set.h5", images=PIXELS, labels=np.array(["cat"] * 7, object))
    with pytest.raises(UserError, match=r"\(cannot be read \(HDF5 crashes at labels\)\); mend it"):
        read(path)


def test_any_flipped_byte_gives_pixels_or_one_sentence(tmp_path):
    good = saved(tmp_path / "good.h5", images=PIXELS[:2, :4, :4], labels=LABELS[:2]).read_bytes()
    random = np.random.default_rng(0)
    for number in range(150):
        content = bytearray(good)
        for place in random.integers(0, len(good), 3):
            content[place] = random.integers(256)
        (tmp_path / "bad.h5").write_bytes(content)
        try:
            for item in read(tmp_path / "bad.h5").items():
                if not isinstance(item, Problem):
                    item.load()
        except (UserError, BadImage) as error:
            assert "\n" not in str(error), number


def test_folders_that_do_not_add_up_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no HDF5 file"):
        read(tmp_path)
    with pytest.raises(UserError, match="is not there"):
        read(tmp_path / "absent.h5")
    saved(tmp_path / "train.h5", x=PIXELS, y=LABELS)
    saved(tmp_path / "extra.h5", x=PIXELS, y=LABELS)
    with pytest.raises(UserError, match="files that name no part, train"):
        read(tmp_path)
    (tmp_path / "extra.h5").rename(tmp_path / "train2.h5")
    with pytest.raises(UserError, match="train2.h5 and another file both hold train/x"):
        read(tmp_path)
    saved(tmp_path / "train2.h5", class_names=["a", "b", "c"])
    saved(tmp_path / "train.h5", x=PIXELS, y=LABELS, labels=LABELS)
    assert read(tmp_path).class_names == ("a", "b", "c")


def test_files_with_different_class_names_are_refused(tmp_path):
    for part, names in (("train", ["a", "b", "c"]), ("test", ["b", "a", "c"])):
        with h5py.File(saved(tmp_path / f"{part}.h5", x=PIXELS, y=LABELS), "r+") as file:
            file.attrs["class_names"] = names
    with pytest.raises(UserError, match="different class names"):
        read(tmp_path)
