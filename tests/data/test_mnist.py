"""MNIST and its kin: the published files, under their published names, with their published classes."""

import gzip
import hashlib
import itertools
import struct

import numpy as np
import pytest

from privimage.data import mnist
from privimage.errors import UserError
from privimage.settings import Source


def source(path, name="mnist", **changes):
    return Source(**{"source": name, "path": str(path), "resolution": 28, "channels": 1, **changes})


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 6), dtype=np.uint8)


def fill(folder, labels, prefix="", halves=("train", "t10k"), middle="-idx", packed=False):
    """The four files; returns the pixels by half."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = {}
    for seed, half in enumerate(halves):
        pixels[half] = noise(len(labels), seed)
        for kind, array in (("images", pixels[half]), ("labels", np.array(labels, np.uint8))):
            name = f"{prefix}{half}-{kind}{middle}{array.ndim}-ubyte"
            content = idx_bytes(array)
            (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content, 1) if packed else content)
    return pixels


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("middle", ["-idx", ".idx"])
@pytest.mark.parametrize("below", [".", "MNIST/raw", "raw"])
def test_the_files_are_found_under_every_common_name(tmp_path, packed, middle, below):
    pixels = fill(tmp_path / below, [5, 0, 9], middle=middle, packed=packed)
    found = mnist.read(source(tmp_path))
    records = list(found.items())
    assert found.class_names == tuple("0123456789")
    assert [record.label for record in records] == [5, 0, 9] * 2
    assert [record.split for record in records] == ["train"] * 3 + ["test"] * 3
    np.testing.assert_array_equal([r.load() for r in records], np.concatenate(list(pixels.values())))
    assert records[1].name == f"train-images{middle}3-ubyte{'.gz' * packed}, image 1"


@pytest.mark.parametrize("packed", [False, True])
def test_some_images_of_one_pass_are_those_of_the_whole(tmp_path, packed):
    pixels = fill(tmp_path, [1] * 20, packed=packed)["train"]
    items = mnist.read(source(tmp_path)).items
    for start in range(3):
        got = [record.load() for record in itertools.islice(items(), start, 20, 3)]
        np.testing.assert_array_equal(got, pixels[start::3])


def test_listing_reads_no_pixels(tmp_path):
    fill(tmp_path, [1, 2], packed=True)
    found = mnist.read(source(tmp_path))
    for path in tmp_path.iterdir():
        path.unlink()
    assert [record.label for record in found.items()] == [1, 2, 1, 2]


def test_without_test_files_each_images_content_decides(tmp_path):
    fill(tmp_path, [1, 2], halves=("train",))
    assert [record.split for record in mnist.read(source(tmp_path)).items()] == [None, None]


def test_declared_classes_may_stand_in_another_order(tmp_path):
    fill(tmp_path, [5, 0, 9])
    found = mnist.read(source(tmp_path), tuple("9876543210"))
    assert [found.class_names[record.label] for record in found.items()] == ["5", "0", "9"] * 2
    with pytest.raises(UserError, match="write `class_names: "):
        mnist.read(source(tmp_path), ("cat", "dog"))
    with pytest.raises(UserError, match="has 10 classes; expected 7"):
        mnist.read(source(tmp_path, num_classes=7))


def test_the_names_of_the_kin_are_the_published_ones(tmp_path):
    fill(tmp_path, [0, 9])
    assert mnist.read(source(tmp_path, "fashion-mnist")).class_names[::9] == ("T-shirt/top", "Ankle boot")
    assert " ".join(mnist.read(source(tmp_path, "kmnist")).class_names) == "o ki su tsu na ha ma ya re wo"


def test_all_missing_files_are_named_at_once(tmp_path):
    fill(tmp_path, [1, 2])
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(UserError, match="lacks train-labels-idx1-ubyte and t10k-images-idx3-ubyte"):
        mnist.read(source(tmp_path))
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="lacks train-images-idx3-ubyte and train-labels-idx1-ubyte"):
        mnist.read(source(tmp_path / "none"))
    with pytest.raises(UserError, match="absent is not a folder"):
        mnist.read(source(tmp_path / "absent"))


def test_labels_of_other_images_and_labels_that_are_no_class_are_refused(tmp_path):
    fill(tmp_path, [1, 10])
    with pytest.raises(UserError, match="has the label 10 at image 1; expected 0 to 9"):
        mnist.read(source(tmp_path))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    with pytest.raises(UserError, match="has 3 labels; expected 2"):
        mnist.read(source(tmp_path))


def test_the_parts_of_emnist_have_their_published_classes(tmp_path):
    sizes = {"letters": 26, "balanced": 47, "digits": 10, "mnist": 10, "byclass": 62, "bymerge": 47}
    for part, count in sizes.items():
        first = 1 if part == "letters" else 0
        fill(tmp_path, [first, first + count - 1], f"emnist-{part}-", ("train", "test"), packed=True)
        found = mnist.read(source(tmp_path, "emnist", variant=part))
        assert len(found.class_names) == len(set(found.class_names)) == count
        assert [record.label for record in found.items()] == [0, count - 1] * 2
        fill(tmp_path, [first + count], f"emnist-{part}-", ("train", "test"), packed=True)
        with pytest.raises(UserError, match=f"the label {first + count} at image 0; expected {first} to"):
            mnist.read(source(tmp_path, "emnist", variant=part))


@pytest.mark.parametrize("part", ["balanced", "bymerge"])
def test_merged_letters_follow_the_published_table(tmp_path, part):
    """The mapping file of EMNIST gives for each label the code of its sign."""
    codes = [*range(48, 58), *range(65, 91), 97, 98, 100, 101, 102, 103, 104, 110, 113, 114, 116]
    fill(tmp_path, [0], f"emnist-{part}-", ("train", "test"))
    assert mnist.read(source(tmp_path, "emnist", variant=part)).class_names == tuple(map(chr, codes))


def test_a_label_0_is_no_letter(tmp_path):
    fill(tmp_path, [0], "emnist-letters-", ("train", "test"))
    with pytest.raises(UserError, match="the label 0 at image 0; expected 1 to 26"):
        mnist.read(source(tmp_path, "emnist", variant="letters"))


def test_images_of_emnist_are_turned_upright(tmp_path):
    pixels = fill(tmp_path, [1, 2, 3], "emnist-letters-", ("train", "test"))
    got = [record.load() for record in mnist.read(source(tmp_path, "emnist", variant="letters")).items()]
    np.testing.assert_array_equal(got, np.concatenate(list(pixels.values())).swapaxes(1, 2))


@pytest.mark.parametrize("part", [None, "letter", "byclass"])
def test_a_part_of_emnist_that_is_not_there_is_refused_with_those_that_are(tmp_path, part):
    for present in ("letters", "digits"):
        fill(tmp_path, [1], f"emnist-{present}-", ("train", "test"))
    with pytest.raises(UserError, match=r"expected `variant` to be one of those that are there: letters, digits\."):
        mnist.read(source(tmp_path, "emnist", variant=part))


@pytest.mark.data
def test_the_published_files_hold_the_published_images(real_data):
    """Parsed by hand beside it: 16 bytes of header, then 784 bytes an image."""
    found = mnist.read(source(real_data / "mnist"))
    digests = {"train": hashlib.md5(), "test": hashlib.md5()}
    labels = {"train": [], "test": []}
    for record in found.items():
        digests[record.split].update(record.load())
        labels[record.split].append(record.label)
    assert (len(labels["train"]), len(labels["test"])) == (60_000, 10_000)
    assert labels["train"][:5] == [5, 0, 4, 1, 9] and labels["test"][:5] == [7, 2, 1, 0, 4]
    for split, half in (("train", "train"), ("test", "t10k")):
        raw = gzip.decompress((real_data / "mnist" / f"{half}-images-idx3-ubyte.gz").read_bytes())
        assert digests[split].digest() == hashlib.md5(raw[16:]).digest()
        raw = gzip.decompress((real_data / "mnist" / f"{half}-labels-idx1-ubyte.gz").read_bytes())
        assert bytes(labels[split]) == raw[8:]
