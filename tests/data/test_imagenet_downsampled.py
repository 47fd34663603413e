"""Downsampled ImageNet: ten training batches and a validation batch, as .npz or pickled, labels from 1."""

import itertools
import pickle  # noqa: TID251 - to write what must be refused
import tracemalloc
import zipfile

import numpy as np
import pytest

from privimage.data import imagenet_classes, imagenet_downsampled
from privimage.data.record import BadImage
from privimage.errors import UserError
from privimage.settings import Source

BATCHES = (*(f"train_data_batch_{n}" for n in range(1, 11)), "val_data")


def source(path, **changes):
    values = {"source": "imagenet-downsampled", "path": str(path), "resolution": 8, "channels": 3}
    return Source(**{**values, **changes})


def pixels(seed, count=3, side=8):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def arrays(seed, labels, side=8):
    rows = pixels(seed, len(labels), side).transpose(0, 3, 1, 2).reshape(len(labels), -1)
    return {"data": rows, "labels": labels, "mean": rows.mean(0)}


def write(path, content, form):
    if form == "pickled":
        path.write_bytes(pickle.dumps({**content, "labels": list(content["labels"])}, 3))
    else:
        (np.savez if form == "npz" else np.savez_compressed)(path.with_suffix(".npz"), **content)


def fill(folder, form="npz", batches=BATCHES, side=8, labels=(1, 1000, 5)):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(batches):
        write(folder / name, arrays(seed, list(labels), side), form)
    return folder


def replaced(folder, name, **changes):
    """One .npz batch with other arrays; None leaves one out."""
    content = {**arrays(0, [1, 2, 3]), **changes}
    np.savez(folder / f"{name}.npz", **{key: value for key, value in content.items() if value is not None})


@pytest.mark.parametrize("form", ["npz", "compressed", "pickled"])
def test_images_come_in_the_published_order_as_they_were(tmp_path, form):
    found = imagenet_downsampled.read(source(fill(tmp_path, form)))
    records = list(found.items())
    assert [record.label for record in records] == [0, 999, 4] * 11
    assert [record.split for record in records] == ["train"] * 30 + ["test"] * 3
    np.testing.assert_array_equal([r.load() for r in found.items()], np.concatenate([pixels(n) for n in range(11)]))
    ending = "" if form == "pickled" else ".npz"
    assert (
        records[5].name == f"train_data_batch_2{ending}, image 2" and records[30].name == f"val_data{ending}, image 0"
    )


@pytest.mark.parametrize("form", ["compressed", "pickled"])
def test_some_images_of_one_pass_are_those_of_the_whole(tmp_path, form):
    items = imagenet_downsampled.read(source(fill(tmp_path, form))).items
    whole = np.concatenate([pixels(n) for n in range(11)])
    for start in range(4):
        got = [record.load() for record in itertools.islice(items(), start, None, 4)]
        np.testing.assert_array_equal(got, whole[start::4])


@pytest.mark.parametrize("side", [8, 16, 32, 64])
def test_the_width_of_the_rows_gives_the_size(tmp_path, side):
    found = imagenet_downsampled.read(source(fill(tmp_path, side=side, labels=[7])))
    np.testing.assert_array_equal(next(found.items()).load(), pixels(0, 1, side)[0])


def test_the_parts_may_lie_in_folders_of_their_own(tmp_path):
    fill(tmp_path / "part1", batches=BATCHES[:5])
    fill(tmp_path / "part2", batches=BATCHES[5:10])
    fill(tmp_path / "val", "pickled", batches=BATCHES[10:])
    found = imagenet_downsampled.read(source(tmp_path))
    assert sum(1 for _ in found.items()) == 33 and found.form == "Downsampled ImageNet (npz and pickled batches)"


def test_without_a_validation_batch_each_images_content_decides(tmp_path):
    found = imagenet_downsampled.read(source(fill(tmp_path, batches=BATCHES[:10])))
    assert {record.split for record in found.items()} == {None}


def test_the_classes_are_those_of_the_development_kit(tmp_path):
    found = imagenet_downsampled.read(source(fill(tmp_path, labels=[1, 2, 1000]), num_classes=1000))
    assert found.class_names == imagenet_classes.by_devkit_id() and len(set(found.class_names)) == 1000
    names = [found.class_names[record.label] for record in itertools.islice(found.items(), 2)]
    assert [name.lower().replace("_", " ") for name in names] == ["kit fox", "english setter"]
    with pytest.raises(UserError, match="has 1000 classes; expected 3"):
        imagenet_downsampled.read(source(tmp_path, num_classes=3))


def test_a_list_beside_the_batches_names_the_classes_and_may_be_shorter(tmp_path):
    fill(tmp_path, labels=[3, 1, 2])
    (tmp_path / "map_clsloc.txt").write_text("n03126707 2 crane\nn02119789 1 kit_fox\nn02012849 3 crane\n")
    found = imagenet_downsampled.read(source(tmp_path, num_classes=3))
    assert found.class_names == ("kit_fox", "crane (n03126707)", "crane (n02012849)")
    assert [record.label for record in itertools.islice(found.items(), 3)] == [2, 0, 1]
    declared = imagenet_downsampled.read(source(tmp_path), found.class_names[::-1])
    assert [record.label for record in itertools.islice(declared.items(), 3)] == [0, 2, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n02119789 1 kit_fox\nn02119789 1 dog\n", "line 2 is `n02119789 1 dog`; expected one like"),
        ("kit_fox\n", "line 1 is `kit_fox`"),
        ("n02119789 1 a\nn02119790 3 b\n", "numbers 2 classes; expected the numbers from 1 on without a gap"),
        ("", "numbers 0 classes"),
        ("n02119789 1 \x1b[2J\n", "has a class called"),
    ],
)
def test_a_list_of_names_that_is_none_is_refused(tmp_path, text, message):
    fill(tmp_path, labels=[1])
    (tmp_path / "map_clsloc.txt").write_text(text)
    with pytest.raises(UserError, match=rf"map_clsloc\.txt.* {message}"):
        imagenet_downsampled.read(source(tmp_path))


def test_missing_batches_are_named_all_together(tmp_path):
    fill(tmp_path, batches=BATCHES[:8])
    (tmp_path / "train_data_batch_3.npz").unlink()
    with pytest.raises(UserError, match="lacks train_data_batch_3, train_data_batch_9, train_data_batch_10 "):
        imagenet_downsampled.read(source(tmp_path))
    with pytest.raises(UserError, match="absent is not a folder"):
        imagenet_downsampled.read(source(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0, 1, 2]}, "labels has the label 0 at image 0; expected 1 to 1000"),
        ({"labels": [1, 2, 1001]}, "labels has the label 1001 at image 2"),
        ({"labels": [1, 2]}, r"labels has the shape \[2\] for 3 images"),
        ({"labels": [[1], [2], [3]]}, r"labels has the shape \[3, 1\]"),
        ({"labels": [1.0, 2.0, 3.0]}, "labels has no list of labels that are whole numbers"),
        ({"labels": None}, "has no array `labels`"),
        ({"labels": np.array([1, "a", None], object)}, "labels is an array of type object"),
        ({"data": np.zeros((3, 100), np.uint8)}, r"data holds an array of shape \[3, 100\]"),
        ({"data": np.zeros((3, 192), np.float32)}, "data holds an array .* type float32; expected uint8"),
        ({"data": np.asfortranarray(np.ones((3, 192), np.uint8))}, "data is stored column by column"),
        ({"data": np.zeros((3, 192), object)}, "data is an array of type object"),
    ],
)
def test_a_batch_that_is_no_batch_is_refused_by_name(tmp_path, changes, message):
    fill(tmp_path)
    replaced(tmp_path, "train_data_batch_4", **changes)
    with pytest.raises(UserError, match=rf"train_data_batch_4\.npz.* {message}"):
        imagenet_downsampled.read(source(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": np.zeros((3, 192), np.uint8), "labels": [1, 2]}, "has 2 labels and 3 images"),
        ({"data": np.zeros((3, 192), np.uint8), "labels": [1, 2, 0]}, "has the label 0"),
        ({"data": np.zeros((3, 192), np.uint8), "labels": ["a"] * 3}, "has no list of labels"),
        ({"data": np.zeros((3, 192), object), "labels": [1] * 3}, "is not a pickle of plain arrays"),
        ({"data": np.zeros((1, 768), np.uint8), "labels": [1]}, "holds images of 16 pixels, others of 8"),
    ],
)
def test_a_pickled_batch_that_is_no_batch_is_refused_when_its_images_are_listed(tmp_path, content, message):
    fill(tmp_path, "pickled")
    (tmp_path / "train_data_batch_4").write_bytes(pickle.dumps(content, 4))
    with pytest.raises(UserError, match=f"train_data_batch_4 {message}"):
        list(imagenet_downsampled.read(source(tmp_path)).items())


def test_batches_of_several_sizes_are_refused(tmp_path):
    fill(tmp_path, batches=BATCHES[:9])
    fill(tmp_path, batches=BATCHES[9:], side=16)
    with pytest.raises(UserError, match=r"images of \[8, 16\] pixels; expected one size"):
        imagenet_downsampled.read(source(tmp_path))


@pytest.mark.parametrize("damage", [lambda raw: raw[:-40], lambda raw: b"no zip", lambda raw: b""])
def test_a_file_that_is_no_npz_is_refused(tmp_path, damage):
    fill(tmp_path)
    path = tmp_path / "val_data.npz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"val_data\.npz is no \.npz file that can be read"):
        imagenet_downsampled.read(source(tmp_path))


def test_a_damaged_pixel_is_noticed_by_the_last_image(tmp_path):
    fill(tmp_path, batches=BATCHES[:10], side=64, labels=[1] * 10)
    path = tmp_path / "train_data_batch_1.npz"
    raw = bytearray(path.read_bytes())
    raw[300] ^= 255  # a pixel: the header of the array ends at 128 bytes and some
    path.write_bytes(raw)
    records = list(itertools.islice(imagenet_downsampled.read(source(tmp_path)).items(), 10))
    with pytest.raises(BadImage, match="Bad CRC-32"):
        for record in records:
            record.load()


@pytest.mark.parametrize("form", ["npz", "compressed"])
def test_a_batch_is_never_held_whole(tmp_path, form):
    """Twelve megabytes of images, of which a pass holds a few rows."""
    many = {"data": np.zeros((1000, 12288), np.uint8), "labels": np.ones(1000, np.int64)}
    for name in BATCHES[:10]:
        write(tmp_path / name, many, form)
    tracemalloc.start()
    for record in itertools.islice(imagenet_downsampled.read(source(tmp_path)).items(), 2000):
        record.load()
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_a_shape_that_the_file_does_not_hold_is_refused_before_anything_is_allocated(tmp_path):
    fill(tmp_path)
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 12288), }"
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(100)
    with zipfile.ZipFile(tmp_path / "val_data.npz", "w") as archive:
        archive.writestr("data.npy", member)
        archive.writestr("labels.npy", member)
    with pytest.raises(UserError, match=r"val_data\.npz: data is .* bytes long; expected 12288000000"):
        imagenet_downsampled.read(source(tmp_path))
