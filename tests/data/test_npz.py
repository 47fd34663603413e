"""Array files: the pixels that NumPy saved come back row by row, and whatever else NumPy can save is refused."""

import io
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from privimage.data import npz
from privimage.data.decode import upright
from privimage.data.record import BadImage, Problem
from privimage.errors import UserError
from privimage.settings import Source

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)  # [N, H, W, C]
LABELS = np.array([0, 1, 2, 0, 1, 2])


def source(path, **changes):
    return Source(**{"source": "npz", "path": str(path), "resolution": 4, "channels": 3, **changes})


def saved(tmp_path, **arrays):
    np.savez(tmp_path / "set.npz", **arrays)
    return tmp_path / "set.npz"


def read(path, class_names=None, **changes):
    return npz.read(source(path, **changes), class_names)


def labels_of(collection):
    return [item.label for item in collection.items()]


def pixels_of(collection):
    return np.stack([item.load() for item in collection.items()])


def test_images_and_labels_come_back_in_order(tmp_path):
    found = read(saved(tmp_path, images=PIXELS, labels=LABELS))
    np.testing.assert_array_equal(pixels_of(found), PIXELS)
    assert labels_of(found) == LABELS.tolist()
    assert [item.name for item in found.items()][::5] == ["images[0]", "images[5]"]
    assert {item.split for item in found.items()} == {None}
    assert found.class_names == ("0", "1", "2") and found.form == "npz file (images, labels)"


def test_single_rows_may_be_loaded_in_any_order_and_again(tmp_path):
    np.savez_compressed(tmp_path / "set.npz", images=PIXELS, labels=LABELS)
    items = list(read(tmp_path / "set.npz").items())
    for index in (4, 1, 1, 5, 0):
        np.testing.assert_array_equal(items[index].load(), PIXELS[index])


@pytest.mark.parametrize(
    "keys", [("images", "labels"), ("x", "y"), ("X", "y"), ("data", "labels"), ("data", "targets")]
)
def test_the_usual_names_of_arrays_are_known(tmp_path, keys):
    found = read(saved(tmp_path, **dict(zip(keys, (PIXELS, LABELS))), mean=np.zeros(3)))
    assert labels_of(found) == LABELS.tolist()
    np.testing.assert_array_equal(pixels_of(found), PIXELS)


@pytest.mark.parametrize("form", ["{name}_{part}", "{part}_{name}"])
@pytest.mark.parametrize("pair", [("x", "y"), ("images", "labels")])
def test_arrays_may_be_named_by_parts(tmp_path, form, pair):
    arrays = {}
    for start, part in ((0, "train"), (4, "test")):
        stop = start + 4
        arrays[form.format(part=part, name=pair[0])] = PIXELS[start:stop]
        arrays[form.format(part=part, name=pair[1])] = LABELS[start:stop]
    found = read(saved(tmp_path, **arrays))
    assert [item.split for item in found.items()] == ["train"] * 4 + ["test"] * 2
    np.testing.assert_array_equal(pixels_of(found), PIXELS)


@pytest.mark.parametrize(
    ("parts", "splits"),
    [
        (("train", "val", "test"), {"train": "train", "val": "train", "test": "test"}),
        (("train", "val"), {"train": "train", "val": "test"}),
        (("train",), {"train": None}),
    ],
)
def test_validation_images_join_training_only_where_there_are_test_images(tmp_path, parts, splits):
    arrays = {f"{part}_images": PIXELS for part in parts} | {f"{part}_labels": LABELS[:, None] for part in parts}
    found = read(saved(tmp_path, **arrays))  # as MedMNIST writes them
    assert {item.name.partition("_")[0]: item.split for item in found.items()} == splits


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_may_come_first(tmp_path, channels):
    images = PIXELS[..., :channels]
    found = read(saved(tmp_path, images=images.transpose(0, 3, 1, 2).copy(), labels=LABELS))
    np.testing.assert_array_equal(pixels_of(found), images)


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 3), (8, 9, 4), (4, 4)])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "?", "f2", "<f4", ">f8"])
def test_every_kind_of_pixels_arrives_as_it_was_and_can_be_decoded(tmp_path, shape, dtype):
    images = np.random.default_rng(1).integers(0, 2, (3, *shape)).astype(dtype)
    for row, item in zip(images, read(saved(tmp_path, images=images)).items()):
        content = item.load()
        np.testing.assert_array_equal(content, row)
        assert content.dtype.isnative
        assert upright(content, 1000)[0].size == (shape[1], shape[0])


@pytest.mark.parametrize("dtype", ["u1", ">i2", "i8", "u8", "f4", "?"])
def test_labels_may_be_any_whole_numbers(tmp_path, dtype):
    found = read(saved(tmp_path, images=PIXELS, labels=np.array([0, 1, 1, 0, 1, 0]).astype(dtype)[:, None]))
    assert labels_of(found) == [0, 1, 1, 0, 1, 0]


@pytest.mark.parametrize("kind", ["U", "S"])
def test_labels_in_words_follow_the_declared_order_else_the_alphabet(tmp_path, kind):
    path = saved(tmp_path, images=PIXELS, labels=np.array(["dog", "cat", "eel"] * 2).astype(kind))
    assert read(path).class_names == ("cat", "dog", "eel")
    assert labels_of(read(path)) == [1, 0, 2] * 2
    assert labels_of(read(path, ("eel", "dog", "cat"))) == [1, 2, 0] * 2


def test_class_names_name_the_numbers_and_may_be_declared_in_another_order(tmp_path):
    path = saved(tmp_path, images=PIXELS, labels=LABELS, class_names=np.array(["dog", "cat", "eel"]))
    assert read(path, num_classes=3).class_names == ("dog", "cat", "eel")
    assert labels_of(read(path)) == LABELS.tolist()
    assert labels_of(read(path, ("eel", "dog", "cat"))) == [1, 2, 0] * 2


def test_a_label_that_no_class_has_is_a_problem_of_its_image_alone(tmp_path):
    path = saved(tmp_path, images=PIXELS, labels=[0, 1, 7, -1, 1, 0], class_names=np.array(["a", "b"]))
    items = list(read(path).items())
    assert [item.name for item in items if isinstance(item, Problem)] == ["images[2]", "images[3]"]
    assert "label 7; expected 0 to 1" in str(items[2]) and items[2].skippable
    np.testing.assert_array_equal(items[4].load(), PIXELS[4])


def test_without_labels_there_is_one_class(tmp_path):
    np.save(tmp_path / "faces.npy", PIXELS)
    for path in (saved(tmp_path, images=PIXELS), tmp_path / "faces.npy"):
        assert read(path, ("face",)).class_names == ("face",)
        assert labels_of(read(path)) == [0] * 6
    with pytest.raises(UserError, match="has no labels; expected 2 classes"):
        read(path, ("face", "house"))
    assert next(read(path).items()).name == "faces[0]"


def test_a_folder_of_npy_files_is_one_set(tmp_path):
    for name, array in {"train_images": PIXELS, "train_labels": LABELS, "test_images": PIXELS[:2]}.items():
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "test_labels.npy", LABELS[:2])
    found = read(tmp_path)
    assert [item.split for item in found.items()] == ["train"] * 6 + ["test"] * 2
    assert next(found.items()).name == "train_images.npy[0]"


def test_a_folder_of_npz_files_is_split_by_their_names(tmp_path):
    np.savez(tmp_path / "latest_train.npz", x=PIXELS, y=LABELS)
    np.savez(tmp_path / "latest_test.npz", x=PIXELS[:3], y=LABELS[:3])
    found = read(tmp_path)
    assert [item.split for item in found.items()] == ["train"] * 6 + ["test"] * 3
    assert next(found.items()).name == "latest_train.npz: x[0]"


def test_a_large_array_is_never_held_whole(tmp_path):
    images = np.zeros((500, 256, 256), np.uint8)  # 33 MB, packed to 33 kB
    np.savez_compressed(tmp_path / "set.npz", images=images, labels=np.zeros(500, int))
    del images
    tracemalloc.start()
    assert sum(int(item.load().max()) for item in read(tmp_path / "set.npz").items()) == 0
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_pickled_objects_are_refused_and_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    hostile = np.array([Evil()] * 6, dtype=object)
    for arrays in ({"images": hostile}, {"images": PIXELS, "labels": hostile}):
        with pytest.raises(UserError, match="object"):
            read(saved(tmp_path, **arrays))
    assert not (tmp_path / "ran").exists()


def header(shape, descr="|u1"):
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def npz_of(tmp_path, **members):
    with zipfile.ZipFile(tmp_path / "set.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return tmp_path / "set.npz"


@pytest.mark.parametrize(
    "content",
    [
        header((10**15, 8, 8)) + bytes(100),
        header((1, 10**9, 10**9)) + bytes(100),
        header((4, 8, 8)) + bytes(100),
        header((-4, 8, 8)) + bytes(256),
        header(tuple(range(1, 2000)))[:10] + b"(" * 60000,
        header((4, 8, 8), "|V8") + bytes(2048),
        header((4, 8, 8), [("a", "u1")]) + bytes(256),
        b"\x93NUMPY\x09\x09",
        b"no array",
        b"",
    ],
    ids=["petabyte", "huge row", "cut", "negative", "nested", "void", "record", "version", "text", "empty"],
)
def test_a_hostile_member_is_refused_before_memory_is_taken(tmp_path, content):
    tracemalloc.start()
    with pytest.raises(UserError, match="images") as error:
        read(npz_of(tmp_path, images=content))
    assert tracemalloc.get_traced_memory()[1] < 3e6
    tracemalloc.stop()
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


GOOD = {"images": PIXELS, "labels": LABELS}
BAD = {
    "numbers of 64 bits": ({"images": PIXELS.astype(np.int64)}, "pixels of type int64; expected uint8"),
    "complex": ({"images": PIXELS.astype(complex)}, "complex128"),
    "signed": ({"images": PIXELS.astype(np.int8)}, "int8"),
    "one axis": ({"images": PIXELS.reshape(-1)}, r"shape \[1296\]; expected \[N, H, W\]"),
    "five axes": ({"images": PIXELS[None]}, "shape"),
    "two channels": ({"images": PIXELS[..., :2]}, "shape"),
    "a single picture": ({"images": np.zeros((32, 40, 3), np.uint8)}, "shape"),
    "no images": ({"images": PIXELS[:0], "labels": LABELS[:0]}, "is empty"),
    "no height": ({"images": PIXELS[:, :0]}, "is empty"),
    "a number": ({"images": np.uint8(3)}, "images"),
    "too few labels": ({"images": PIXELS, "labels": LABELS[:5]}, "has 5 labels; expected 6"),
    "one-hot labels": ({"images": PIXELS, "labels": np.eye(6)}, r"shape \[6, 6\]; expected one"),
    "halves": ({"images": PIXELS, "labels": LABELS + 0.5}, r"labels\[0\] is no label \(0.5"),
    "not a number": ({"images": PIXELS, "labels": LABELS * np.nan}, r"labels\[0\] is no label"),
    "infinite": ({"images": PIXELS, "labels": LABELS + np.inf}, r"labels\[0\] is no label"),
    "dates": ({"images": PIXELS, "labels": LABELS.astype("M8[s]")}, "labels"),
    "an empty name": ({"images": PIXELS, "labels": np.array(["a", ""] * 3)}, "a class called"),
    "bytes that are no text": ({"images": PIXELS, "labels": np.array([b"\xff"] * 6)}, r"labels\[0\]"),
    "all labels negative": ({"images": PIXELS, "labels": LABELS - 9}, "labels up to"),
    "a label beyond all classes": ({"images": PIXELS, "labels": LABELS * 2**40}, "labels up to"),
    "unknown names": ({"pictures": PIXELS, "classes": LABELS}, "the arrays classes, pictures; expected images"),
    "no arrays": ({}, "the arrays none"),
    "labels for one part": ({"x_train": PIXELS, "y_train": LABELS, "x_test": PIXELS}, "no labels for x_test"),
    "nothing to train with": ({"x_val": PIXELS, "x_test": PIXELS}, "expected a train part"),
    "two spellings": ({"x_train": PIXELS, "x_val": PIXELS, "x_valid": PIXELS}, "two ways"),
    "words and numbers": (
        {"x_train": PIXELS, "y_train": LABELS, "x_test": PIXELS, "y_test": np.array(["a", "b"] * 3)},
        "some images by names",
    ),
    "a class twice": ({**GOOD, "class_names": np.array(["a", "a", "b"])}, "a class twice"),
    "names that are numbers": ({**GOOD, "class_names": np.arange(3)}, "expected the names of the classes"),
    "a part of another form": (
        {**GOOD, "test_images": PIXELS, "test_labels": LABELS},
        "images as images and as test_images; expected one way",
    ),
    "a part of another case": (
        {"x_train": PIXELS, "y_train": LABELS, "X_test": PIXELS, "y_test": LABELS},
        "images as x_train and as X_test; expected one way",
    ),
    "two sets": ({**GOOD, "x": PIXELS, "y": LABELS}, "images as images and as x; expected one way"),
    "labels of another case": ({"X_train": PIXELS, "Y_train": LABELS}, "no labels under a known name, but Y_train"),
    "labels of another name": ({"images": PIXELS, "target": LABELS}, "no labels under a known name, but target"),
    "a stranger": ({"images": PIXELS, "labels": np.array(["a", "b"] * 3), "class_names": np.array(["a"])}, "label b"),
}


@pytest.mark.parametrize("name", BAD)
def test_arrays_that_are_no_images_and_labels_are_refused_in_one_sentence(tmp_path, name):
    arrays, message = BAD[name]
    with pytest.raises(UserError, match=message) as error:
        read(saved(tmp_path, **arrays))
    assert "\n" not in str(error.value)


def test_classes_are_held_against_the_declared_ones(tmp_path):
    path = saved(tmp_path, **GOOD)
    for class_names, changes in ((("a", "b"), {}), (None, {"num_classes": 4})):
        with pytest.raises(UserError, match="expected"):
            read(path, class_names, **changes)
    assert read(path, ("a", "b", "c", "d")).class_names == ("a", "b", "c", "d")


def test_images_above_the_limit_of_pixels_are_refused_at_once(tmp_path):
    with pytest.raises(UserError, match="9 x 8 pixels; expected at most 71"):
        read(saved(tmp_path, **GOOD), max_pixels=71)


def test_files_that_are_no_arrays_are_refused(tmp_path):
    good = saved(tmp_path, **GOOD).read_bytes()
    for number, content in enumerate([b"", b"PK\x03\x04", good[: len(good) // 2], b"text"]):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{number}.npz is no .npz file"):
            read(path)
    for path in (tmp_path / "absent.npz", tmp_path / "absent", tmp_path / ("x" * 300), tmp_path / "nul\0byte"):
        with pytest.raises(UserError, match="is not there"):
            read(path)
    with pytest.raises(UserError, match="has no path"):
        npz.read(Source(source="npz", resolution=4, channels=3))


def test_folders_that_do_not_add_up_are_refused(tmp_path):
    with pytest.raises(UserError, match="0 .npy and 0 .npz"):
        read(tmp_path)
    np.savez(tmp_path / "train_a.npz", **GOOD)
    np.savez(tmp_path / "train_b.npz", **GOOD)
    with pytest.raises(UserError, match="train_b.npz and another file both hold train/images"):
        read(tmp_path)
    (tmp_path / "train_b.npz").rename(tmp_path / "train_test.npz")
    with pytest.raises(UserError, match="names the parts"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(UserError, match="pipe.npz is no regular file"):
        read(tmp_path)


def test_two_arrays_of_one_name_are_refused(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, PIXELS)
    with pytest.warns(UserWarning), zipfile.ZipFile(tmp_path / "set.npz", "w") as file:
        for _ in range(2):
            file.writestr("images.npy", buffer.getvalue())
    with pytest.raises(UserError, match="two arrays of one name"):
        read(tmp_path / "set.npz")


def test_a_flipped_byte_is_noticed_when_the_archive_was_read_to_its_end(tmp_path):
    images = np.random.default_rng(2).integers(0, 256, (20, 64, 64), dtype=np.uint8)
    path = saved(tmp_path, images=images)
    content = bytearray(path.read_bytes())
    content[content.index(images[3].tobytes())] ^= 1
    path.write_bytes(content)
    items = list(read(path).items())
    np.testing.assert_array_equal(items[0].load(), images[0])
    with pytest.raises(BadImage, match="cannot be read"):  # the archive's checksum is over the whole array
        for item in items:
            item.load()
