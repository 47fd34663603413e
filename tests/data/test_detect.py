"""Detection: what lies under a path is handed to the reader it is for, and never to one of two that would fit."""

import gzip
import io
import os
import tarfile
import zipfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from privimage.data import detect
from privimage.data.record import Collection
from privimage.errors import UserError
from privimage.settings import Source

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)


def source(path, **changes):
    return Source(**{"path": None if path is None else str(path), "resolution": 4, "channels": 1, **changes})


def png():
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(buffer, "PNG")
    return buffer.getvalue()


def fill(root, *names, content=b"x"):
    """Files of these names; a name that ends in "/" is an empty folder."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (root / name).mkdir(exist_ok=True)
        else:
            (root / name).write_bytes(content)
    return root


@pytest.fixture
def taken_for(monkeypatch):
    """The source that detection hands over to, and the form that it tells; no reader reads."""

    def find(path):
        seen = []

        def reader(name):
            def read(source, class_names):
                seen.append((name, source.source, source.path, class_names))
                return Collection("form", (), lambda: iter(()))

            return read

        monkeypatch.setattr(detect, "reader", reader)
        form = detect.read(source(path), ("a",)).form
        assert seen == [(seen[0][0], seen[0][0], str(path), ("a",))]
        return seen[0][0], form

    return find


MNIST = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
FOLDERS = {
    "mnist": ("mnist", MNIST),
    "MNIST of torchvision": ("mnist", [f"MNIST/raw/{name}" for name in MNIST]),
    "fashion": ("fashion-mnist", [f"FashionMNIST/raw/{name}" for name in MNIST]),
    "kmnist": ("kmnist", [f"KMNIST/raw/{name}" for name in MNIST]),
    "emnist": ("emnist", ["emnist-letters-train-images-idx3-ubyte.gz", "emnist-letters-train-labels-idx1-ubyte.gz"]),
    "emnist unpacked": ("emnist", ["gzip/emnist-mnist-train-images-idx3-ubyte.gz"]),
    "kaggle's spelling": ("mnist", ["train-images.idx3-ubyte", "train-labels.idx1-ubyte"]),
    "cifar-10": ("cifar10", [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch", "batches.meta"]),
    "cifar-10 within": ("cifar10", ["cifar-10-batches-py/data_batch_1"]),
    "cifar-10 packed": ("cifar10", ["cifar-10-python.tar.gz"]),
    "cifar-100": ("cifar100", ["train", "test", "meta", "file.txt~"]),
    "cifar-100 within": ("cifar100", ["cifar-100-python/train"]),
    "downsampled": ("imagenet-downsampled", [f"train_data_batch_{n}" for n in range(1, 11)] + ["val_data"]),
    "downsampled npz": ("imagenet-downsampled", [f"train_data_batch_{n}.npz" for n in range(1, 11)]),
    "celeba": ("celeba", ["img_align_celeba/000001.jpg", "list_eval_partition.txt"]),
    "celeba packed": ("celeba", ["img_align_celeba.zip", "list_eval_partition.csv"]),
    "imagenet tar": ("imagenet", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"]),
    "imagenet": ("imagenet", ["n01440764/a.JPEG", "n02119789/b.JPEG"]),
    "imagenet train": ("imagenet", ["train/n01440764/a.JPEG", "val/n01440764/b.JPEG"]),
    "imagenet of Kaggle": ("imagenet", ["ILSVRC/Data/CLS-LOC/train/n01440764/a.JPEG", "LOC_val_solution.csv"]),
    "hugging face": ("parquet", ["data/train-00000-of-00001.parquet", "README.md", "dataset_infos.json"]),
    "parquet": ("parquet", ["a.parquet", "b.PARQUET"]),
    "pcam": ("hdf5", ["a_train_x.h5", "a_train_y.h5", "a_train_meta.csv"]),
    "hdf5": ("hdf5", ["set.hdf5"]),
    "npy": ("npz", ["images.npy", "labels.npy", "README.txt"]),
    "npz": ("npz", ["train.npz", "test.npz"]),
    "classes": ("folder", ["cat/1.png", "dog/1.png", "README.md", "LICENSE"]),
    "classes with split": ("folder", ["train/cat/1.png", "test/cat/1.png"]),
    "flat": ("folder", ["1.png", "2.jpg"]),
    "eurosat": ("folder", ["AnnualCrop/AnnualCrop_1.jpg", "Forest/Forest_1.jpg"]),
    "table of labels": ("folder", ["metadata.csv", "1.png"]),
    "a class called data": ("folder", ["data/1.png", "other/1.png"]),
    "classes called train and meta": ("folder", ["train/1.png", "meta/1.png"]),
    "clutter": ("npz", ["images.npy", ".DS_Store", "__MACOSX/", "Thumbs.db"]),
    "nothing": ("folder", ["README.md"]),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_known_by_the_names_in_it(tmp_path, taken_for, name):
    wanted, names = FOLDERS[name]
    assert taken_for(fill(tmp_path / "set", *names))[0] == wanted


@pytest.mark.parametrize("within", ["", "camelyon17_v1.0/"])
def test_camelyon_is_known_by_the_columns_of_its_table(tmp_path, taken_for, within):
    header = b",patient,node,x_coord,y_coord,tumor,slide,center,split\n0,1,2,3,4,0,0,0,0\n"
    fill(tmp_path, f"{within}metadata.csv", content=header)
    assert taken_for(fill(tmp_path, f"{within}patches/patient_004_node_4/p.png"))[0] == "camelyon17"


@pytest.mark.parametrize(
    ("folder", "wanted", "guessed"),
    [
        ("mnist", "mnist", False),
        ("Fashion_MNIST", "fashion-mnist", False),
        ("fashion/raw", "fashion-mnist", False),
        ("KMNIST", "kmnist", False),
        ("digits", "mnist", True),
    ],
)
def test_files_that_three_sets_share_are_told_apart_by_the_folder_else_the_guess_is_told(
    tmp_path, taken_for, folder, wanted, guessed
):
    name, form = taken_for(fill(tmp_path / folder, *MNIST))
    assert name == wanted and ("taken for MNIST" in form) == guessed


def tar(mode="w", kind=tarfile.USTAR_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=kind) as file:
        file.addfile(tarfile.TarInfo("cat/"))
    return buffer.getvalue()


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("cat/1.png", png())
    return buffer.getvalue()


def of(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def hdf5(user_block=0):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=user_block) as file:
        file["images"] = PIXELS
    return buffer.getvalue()


TABLE = pa.table({"image": [png()] * 3, "label": [0, 1, 1]})
CONTENTS = {
    "npz": of(lambda buffer: np.savez(buffer, images=PIXELS)),
    "npy": of(lambda buffer: np.save(buffer, PIXELS)),
    "hdf5": hdf5(),
    "parquet": of(lambda buffer: pq.write_table(TABLE, buffer)),
    "zip": zipped(),
    "tar": tar(),
    "gzip": tar("w:gz"),
    "bzip2": tar("w:bz2"),
    "xz": tar("w:xz"),
    "image": png(),
    "text": "label,file\nKäfer,1.png\n".encode(),
    "empty": b"",
    "unknown": bytes(range(256)) * 4,
}
FILES = [
    ("set.npz", "npz", "npz"), ("SET.NPZ", "npz", "npz"), ("set.npy", "npy", "npz"), ("set.h5", "hdf5", "hdf5"),
    ("set.hdf5", "hdf5", "hdf5"), ("set.parquet", "parquet", "parquet"), ("set.zip", "zip", "folder"),
    ("set.tar", "tar", "folder"), ("set.tar.gz", "gzip", "folder"), ("set.tgz", "gzip", "folder"),
    ("set.tar.bz2", "bzip2", "folder"), ("set.tbz2", "bzip2", "folder"), ("set.txz", "xz", "folder"),
     ("set.tar.xz", "xz", "folder"), ("cifar-10-python.tar.gz", "gzip", "cifar10"),
    ("cifar-100-python.tar.gz", "gzip", "cifar100"), ("ILSVRC2012_img_train.tar", "tar", "imagenet"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "wanted"), FILES)
def test_a_file_is_known_by_its_ending_and_its_content(tmp_path, taken_for, name, content, wanted):
    assert taken_for(fill(tmp_path, name, content=CONTENTS[content]) / name)[0] == wanted


def test_every_way_of_writing_a_container_is_known(tmp_path, taken_for):
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert taken_for(fill(tmp_path, "a.tar", content=tar(kind=kind)) / "a.tar")[0] == "folder"
    for block in (512, 4096):
        assert taken_for(fill(tmp_path, "a.h5", content=hdf5(block)) / "a.h5")[0] == "hdf5"


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", ["set.npz", "set.npy", "set.h5", "set.parquet", "set.zip", "set.tar", "set.tar.gz"])
def test_an_ending_that_the_content_belies_is_refused(tmp_path, taken_for, name, content):
    path = fill(tmp_path, name, content=CONTENTS[content]) / name
    ending = name.removeprefix("set")
    fits = detect.ENDINGS[ending][0].lower() == {"npz": "zip"}.get(content, content)
    if fits:
        taken_for(path)
        return
    with pytest.raises(UserError, match=f"is called {ending} but is .*; expected") as error:
        taken_for(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("1.png", "image", "a single image; expected a folder of images"),
        ("labels.csv", "text", "a text file; expected a folder"),
        ("set.mat", "hdf5", "HDF5 data; expected a folder of images, or a file .npz"),
        ("set", "zip", "zip data; expected"),
        ("set.bin", "unknown", "of an unknown form"),
        ("set.dat", "empty", "is empty"),
    ],
)
def test_other_files_are_refused_by_what_they_are(tmp_path, taken_for, name, content, message):
    with pytest.raises(UserError, match=message):
        taken_for(fill(tmp_path, name, content=CONTENTS[content]) / name)


AMBIGUOUS = {
    "arrays beside images": ["set.npz", "1.png"],
    "arrays beside classes": ["set.npz", "cat/1.png"],
    "tables beside arrays": ["set.h5", "set.parquet"],
    "arrays beside an archive": ["set.h5", "images.zip"],
    "tables beside classes": ["data/a.parquet", "cat/1.png"],
    "both CIFARs": ["cifar-10-python.tar.gz", "cifar-100-python.tar.gz"],
    "two of the MNIST family": [f"MNIST/raw/{MNIST[0]}", f"FashionMNIST/raw/{MNIST[0]}"],
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_where_two_readers_would_fit_the_user_must_name_one(tmp_path, taken_for, name):
    with pytest.raises(UserError, match="name the reader with `source`") as error:
        taken_for(fill(tmp_path / "set", *AMBIGUOUS[name]))
    assert str(tmp_path / "set") in str(error.value)


def test_a_path_must_be_given_and_be_there(tmp_path, taken_for):
    with pytest.raises(UserError, match="has no path"):
        taken_for(None)
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("absent", "absent.npz", "pipe.npz", "loop", "x" * 300, "nul\0byte"):
        with pytest.raises(UserError, match="is not there"):
            taken_for(tmp_path / name)
    packed = tmp_path / MNIST[0]
    packed.write_bytes(gzip.compress(b"x"))
    with pytest.raises(UserError, match="one IDX file of several"):
        taken_for(packed)


def test_a_pipe_among_the_files_is_never_opened(tmp_path, taken_for):
    os.mkfifo(tmp_path / "metadata.csv")
    assert taken_for(fill(tmp_path, "1.png"))[0] == "folder"


@pytest.mark.parametrize("content", ["npz", "npy", "hdf5", "parquet"])
def test_what_is_handed_over_is_read(tmp_path, content):
    name = f"set.{content}"
    fill(tmp_path / "in", name, content=CONTENTS[content])
    for path in (tmp_path / "in", tmp_path / "in" / name):
        if content == "npy" and path.is_dir():
            continue  # an array of a folder needs a name that is known
        found = detect.read(source(path))
        assert content.replace("hdf5", "HDF5").lower() in found.form.lower()
        assert len([item.load() for item in found.items()]) == 3
