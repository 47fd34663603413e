"""EuroSAT: ten folders in each release's wrapping; the split is a constant of each image's number."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from privimage.data import eurosat
from privimage.data.record import Problem, Record
from privimage.errors import UserError
from privimage.settings import Source

PUBLISHED = dict(zip(eurosat.CLASSES, (3000, 3000, 3000, 2500, 2500, 2000, 2500, 2500, 3000, 3000), strict=True))


def source(path, **changes):
    return Source(**{"source": "eurosat", "path": str(path), "resolution": 64, "channels": 3, **changes})


def jpeg(seed):
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(data, "JPEG")
    return data.getvalue()


def files(count=5):
    return {
        f"{name}/{name}_{n}.jpg": jpeg([n, k]) for k, name in enumerate(eurosat.CLASSES) for n in range(1, count + 1)
    }


def folder(root, content):
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def zipped(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def listed(collection):
    items = list(collection.items())
    assert all(isinstance(item, Record) for item in items)
    return {i.name.rpartition("/")[2]: (collection.class_names[i.label], i.split, i.load()) for i in items}


@pytest.mark.parametrize("wrapper", ["", "2750/", "EuroSAT/", "EuroSAT_RGB/", "EuroSAT/2750/"])
def test_every_releases_wrapping_gives_the_same_records(tmp_path, wrapper):
    content = {wrapper + name: data for name, data in files().items()}
    one = eurosat.read(source(folder(tmp_path / "a", content), num_classes=10))
    other = eurosat.read(source(zipped(tmp_path / "b.zip", content), num_classes=10))
    assert one.class_names == other.class_names == eurosat.CLASSES
    assert listed(one) == listed(other)
    assert listed(one) == {
        name.rpartition("/")[2]: (name.partition("/")[0], "test" if int(name[-5]) < 4 else "train", data)
        for name, data in files().items()
    }


def test_lists_and_the_spectral_release_beside_the_rgb_release_are_no_images(tmp_path):
    root = folder(tmp_path, {f"EuroSAT/{name}": data for name, data in files().items()})
    folder(root, {"EuroSATallBands/Forest/Forest_1.tif": b"", "EuroSAT/train.csv": b"", "EuroSAT/label_map.json": b""})
    assert len(listed(eurosat.read(source(root)))) == 50


@pytest.mark.slow
def test_the_full_releases_split_is_what_the_reader_says_of_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "EuroSAT.zip", "w") as archive:
        for name, count in PUBLISHED.items():
            for number in range(1, count + 1):
                archive.writestr(f"2750/{name}/{name}_{number}.jpg", b"")
    collection = eurosat.read(source(tmp_path / "EuroSAT.zip"))
    splits = [(item.label, item.split) for item in collection.items()]
    by_class = [sum(label == k for label, _ in splits) for k in range(10)]
    assert by_class == list(PUBLISHED.values())
    train, test = (sum(split == part for _, split in splits) for part in ("train", "test"))
    assert (train, test) == (22_983, 4_017)
    assert f"{train:,}" in eurosat.__doc__ and f"{test:,}" in eurosat.__doc__


def test_an_images_part_does_not_depend_on_the_others(tmp_path):
    whole = listed(eurosat.read(source(folder(tmp_path / "a", files(40)))))
    some = dict(list(files(40).items())[::3])
    assert listed(eurosat.read(source(folder(tmp_path / "b", some)))).items() <= whole.items()


def test_declared_classes_keep_their_declared_order(tmp_path):
    declared = eurosat.CLASSES[::-1]
    collection = eurosat.read(source(folder(tmp_path, files(1))), declared)
    assert collection.class_names == declared
    assert all(declared[item.label] in item.name for item in collection.items())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Forest/Forest.jpg", "expected a name like Forest_1.jpg, whose number decides the split"),
        ("Forest/Forest_x.jpg", "expected a name like Forest_1.jpg"),
        ("Forest/River_1.jpg", "expected a name like Forest_1.jpg"),
        ("Forest/more/Forest_1.jpg", "it lies in no class's folder"),
        ("Forest_1.jpg", "it lies in no class's folder"),
        ("River/River_7.tif", "an image of spectral bands"),
    ],
)
def test_an_image_that_fits_no_class_or_number_is_told(tmp_path, name, told):
    root = folder(tmp_path, {**files(1), name: jpeg(0)})
    problems = [item for item in eurosat.read(source(root)).items() if isinstance(item, Problem)]
    assert [problem.name for problem in problems] == [name]
    assert told in str(problems[0]) and problems[0].skippable


def test_the_spectral_release_is_refused(tmp_path):
    spectral = {f"EuroSAT_MS/{name.replace('.jpg', '.tif')}": b"II*\0" for name in files(1)}
    for path in (folder(tmp_path / "a", spectral), zipped(tmp_path / "b.zip", spectral)):
        with pytest.raises(UserError, match="AnnualCrop/AnnualCrop_1.tif.*the RGB release is needed"):
            eurosat.read(source(path))


def test_other_folders_too_few_classes_or_none_are_refused(tmp_path):
    with pytest.raises(UserError, match="has the folders Desert; expected EuroSAT's classes"):
        eurosat.read(source(folder(tmp_path / "a", {**files(1), "Desert/Desert_1.jpg": b""})))
    with pytest.raises(UserError, match="has no folders; expected EuroSAT's classes"):
        eurosat.read(source(folder(tmp_path / "b", {"Forest_1.jpg": b""})))
    with pytest.raises(UserError, match="has 1 classes; expected 10"):
        eurosat.read(source(folder(tmp_path / "c", {"Forest/Forest_1.jpg": b""}), num_classes=10))
    with pytest.raises(UserError, match="has the classes"):
        eurosat.read(source(folder(tmp_path / "d", files(1))), ("Forest", "River"))
    with pytest.raises(UserError, match="cannot be read"):
        eurosat.read(source(tmp_path / "absent"))
