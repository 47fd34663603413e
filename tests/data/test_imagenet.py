"""ImageNet: every official layout gives the same records; labels are those of the development kit or of Kaggle."""

import gzip
import io
import re
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from privimage.data import imagenet
from privimage.data.decode import upright
from privimage.data.imagenet_classes import names_by_wnid, wnid_of_devkit_id
from privimage.data.record import BadImage, Problem, Record
from privimage.errors import UserError
from privimage.settings import Source

TENCH, GOLDFISH, KIT_FOX = "n01440764", "n01443537", "n02119789"
SNAKE, ALP, SHEPHERD = "n01751748", "n09193705", "n02105855"  # of validation images 1, 2 and 3: ids 490, 361 and 171
THREE = (TENCH, GOLDFISH, KIT_FOX)
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
DEVKIT = "ILSVRC2012_devkit_t12"


def source(path, **changes):
    return Source(**{"source": "imagenet", "path": str(path), "resolution": 32, "channels": 3, **changes})


def picture(seed, form="JPEG"):
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, form)
    return data.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def some(wnids=THREE, count=2):
    """Made-up images by class and name, as in the official training set."""
    return {wnid: {f"{wnid}_{n}.JPEG": picture([n, int(wnid[1:])]) for n in range(1, count + 1)} for wnid in wnids}


def folders(root, images):
    for wnid, files in images.items():
        for name, content in files.items():
            put(root / wnid / name, content)
    return root


def tar_of(files, form=tarfile.USTAR_FORMAT):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1.5
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def tar_of_tars(path, images, form=tarfile.USTAR_FORMAT):
    put(path, tar_of({f"{wnid}.tar": tar_of(files, form) for wnid, files in images.items()}, form))
    return path


def flat_val(root, ids=(490, 361, 171), labels=None, train=(SNAKE, ALP, SHEPHERD)):
    """A training folder, images numbered from 1 in one heap, and the devkit's labels."""
    folders(root / "train", some(train))
    for number in range(1, len(ids) + 1):
        put(root / "val" / f"ILSVRC2012_val_{number:08}.JPEG", picture(number))
    if labels:
        put(root / labels, "".join(f"{number}\n" for number in ids).encode())
    return root


def listed(collection):
    """The records as {last part of the name: (class, split, content)}, once it is sure that nothing is wrong."""
    items = list(collection.items())
    assert all(isinstance(item, Record) for item in items), [str(i) for i in items if isinstance(i, Problem)]
    assert [(i.name, i.label, i.split) for i in collection.items()] == [(i.name, i.label, i.split) for i in items]
    return {i.name.rpartition("/")[2]: (collection.class_names[i.label], i.split, i.load()) for i in items}


def problems(collection):
    return [item for item in collection.items() if isinstance(item, Problem)]


def test_folders_and_the_tar_of_tars_hold_the_same_images_and_nothing_is_unpacked(tmp_path):
    images = some()
    expected = {
        name: (names_by_wnid()[wnid], None, content)
        for wnid, files in images.items()
        for name, content in files.items()
    }
    tar_of_tars(tmp_path / "official" / "ILSVRC2012_img_train.tar", images)
    roots = [
        folders(tmp_path / "a" / "train", images).parent,
        folders(tmp_path / "b", images),
        folders(tmp_path / "c" / "ILSVRC" / "Data" / "CLS-LOC" / "train", images).parents[3],
        folders(tmp_path / "d" / "Data" / "CLS-LOC" / "train", images).parents[2],
        tmp_path / "official",
        tmp_path / "official" / "ILSVRC2012_img_train.tar",
        tar_of_tars(tmp_path / "any name.tar", dict(reversed(images.items())), tarfile.PAX_FORMAT),
        tar_of_tars(tmp_path / "gnu.tar", images, tarfile.GNU_FORMAT),
    ]
    for root in roots:
        collection = imagenet.read(source(root, num_classes=3))
        assert collection.class_names == ("tench", "goldfish", "kit fox")
        assert listed(collection) == expected
    assert [path.name for path in (tmp_path / "official").iterdir()] == ["ILSVRC2012_img_train.tar"]


@pytest.mark.data
def test_a_real_image_of_each_class_is_found_in_folders_and_in_tars_in_the_order_of_ids(tmp_path, real_data):
    with zipfile.ZipFile(real_data / "imagenet1000_sample64.zip") as archive:
        members = {name[:9]: archive.read(name) for name in archive.namelist() if name.endswith(".jpg")}
    images = {wnid: {f"{wnid}_1.JPEG": content} for wnid, content in sorted(members.items())}
    folders(tmp_path / "folders" / "train", images)
    tar_of_tars(tmp_path / "ILSVRC2012_img_train.tar", images)
    one = imagenet.read(source(tmp_path / "folders", num_classes=1000))
    other = imagenet.read(source(tmp_path, num_classes=1000))
    in_order = sorted(names_by_wnid())
    assert one.class_names == other.class_names == tuple(names_by_wnid()[wnid] for wnid in in_order)
    for index, (a, b) in enumerate(zip(one.items(), other.items(), strict=True)):
        assert a.label == b.label == index
        assert in_order[index] in a.name and in_order[index] in b.name
        assert a.load() == b.load() == members[in_order[index]]
    assert index == 999
    assert upright(b.load(), 10**6)[0].size == (64, 64)


def test_declared_classes_keep_their_declared_order(tmp_path):
    collection = imagenet.read(source(folders(tmp_path, some())), ("kit fox", "goldfish", "tench"))
    assert collection.class_names == ("kit fox", "goldfish", "tench")
    for item in collection.items():
        assert collection.class_names[item.label] == names_by_wnid()[re.search(r"n\d{8}", item.name)[0]]


def test_folders_of_other_names_are_plain_classes_and_ids_outside_the_table_name_themselves(tmp_path):
    images = {"cat": {"a.png": picture(1)}, "ant": {"b.png": picture(2)}}
    assert imagenet.read(source(folders(tmp_path / "a", images))).class_names == ("ant", "cat")
    assert imagenet.read(source(folders(tmp_path / "b", some(("n00000001", TENCH))))).class_names == (
        "n00000001",
        "tench",
    )


def test_a_png_called_jpeg_is_an_image_like_any_other(tmp_path):
    images = {TENCH: {"n01440764_1.JPEG": picture(1, "PNG")}, GOLDFISH: {"odd": picture(2)}}
    assert len(listed(imagenet.read(source(folders(tmp_path, images))))) == 2


def test_archives_and_tables_beside_the_folders_of_classes_are_no_images(tmp_path):
    folders(tmp_path, some())
    put(tmp_path / "LOC_synset_mapping.txt", b"n01440764 tench")
    put(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", b"")
    assert len(listed(imagenet.read(source(tmp_path)))) == 6


def test_validation_folders_are_the_test_split(tmp_path):
    folders(tmp_path / "train", some())
    folders(tmp_path / "val", {wnid: {f"ILSVRC2012_val_{wnid}.JPEG": picture(5)} for wnid in THREE})
    got = listed(imagenet.read(source(tmp_path)))
    assert [split for _, split, _ in got.values()] == ["train"] * 6 + ["test"] * 3
    assert got[f"ILSVRC2012_val_{KIT_FOX}.JPEG"][0] == "kit fox"


@pytest.mark.parametrize("base", ["", "ILSVRC/Data/CLS-LOC/"])
def test_labelled_images_in_test_are_never_left_out_unseen(tmp_path, base):
    folders(tmp_path / f"{base}train", some())
    put(tmp_path / f"{base}test" / "ILSVRC2012_test_00000001.JPEG", picture(1))  # the challenge's own have no labels
    assert {record.split for record in imagenet.read(source(tmp_path)).items()} == {None}
    folders(tmp_path / f"{base}test", some((TENCH,)))
    with pytest.raises(UserError, match="test has folders of classes; .* move them there, or name `source: folder`"):
        imagenet.read(source(tmp_path))


@pytest.mark.parametrize("labels", [TRUTH, f"data/{TRUTH}", f"{DEVKIT}/data/{TRUTH}"])
def test_validation_images_in_one_heap_take_the_devkits_labels(tmp_path, labels):
    got = listed(imagenet.read(source(flat_val(tmp_path, labels=labels))))
    assert {name: known[:2] for name, known in got.items() if "val" in name} == {
        "ILSVRC2012_val_00000001.JPEG": ("sea snake", "test"),
        "ILSVRC2012_val_00000002.JPEG": ("alp", "test"),
        "ILSVRC2012_val_00000003.JPEG": ("Shetland sheepdog", "test"),
    }


def test_the_three_official_files_are_enough(tmp_path):
    tar_of_tars(tmp_path / "ILSVRC2012_img_train.tar", some((SNAKE, ALP)))
    put(tmp_path / "ILSVRC2012_img_val.tar", tar_of({f"ILSVRC2012_val_{n:08}.JPEG": picture(n) for n in (1, 2)}))
    put(tmp_path / f"{DEVKIT}.tar.gz", gzip.compress(tar_of({f"{DEVKIT}/data/{TRUTH}": b"490\n361\n"})))
    got = list(imagenet.read(source(tmp_path)).items())
    assert [(item.label, item.split) for item in got] == [(0, "train")] * 2 + [(1, "train")] * 2 + [
        (0, "test"),
        (1, "test"),
    ]
    assert got[-1].load() == picture(2)


def test_kaggles_table_labels_its_validation_images(tmp_path):
    base = flat_val(tmp_path / "ILSVRC" / "Data" / "CLS-LOC", ids=(1, 2), train=(ALP, SHEPHERD))
    put(base / "test" / "ILSVRC2012_test_00000001.JPEG", picture(7))
    put(
        tmp_path / "LOC_val_solution.csv",
        f"ImageId,PredictionString\nILSVRC2012_val_00000002,{ALP} 85 1 499 272 \n"
        f"ILSVRC2012_val_00000001,{SHEPHERD} 1 2 3 4 {SHEPHERD} 5 6 7 8 \n".encode(),
    )
    got = listed(imagenet.read(source(tmp_path)))
    assert {name: known[0] for name, known in got.items() if "val" in name} == {
        "ILSVRC2012_val_00000001.JPEG": "Shetland sheepdog",
        "ILSVRC2012_val_00000002.JPEG": "alp",
    }


def test_all_of_the_devkits_ids_reach_the_class_of_that_id(tmp_path):
    for wnid in names_by_wnid():
        put(tmp_path / "train" / wnid / "a.JPEG", b"")
    for number in range(1, 1001):
        put(tmp_path / "val" / f"ILSVRC2012_val_{number:08}.JPEG", b"")
    put(tmp_path / TRUTH, "".join(f"{1001 - number}\n" for number in range(1, 1001)).encode())
    collection = imagenet.read(source(tmp_path, num_classes=1000))
    held_out = [item for item in collection.items() if item.split == "test"]
    in_order = sorted(names_by_wnid())
    assert [in_order[item.label] for item in held_out] == list(reversed(wnid_of_devkit_id()))


def test_heaps_with_images_that_have_no_label_or_labels_that_have_no_image_are_told(tmp_path):
    root = flat_val(tmp_path, ids=(490, 361, 171, 490), labels=TRUTH)
    (root / "val" / "ILSVRC2012_val_00000004.JPEG").rename(root / "val" / "ILSVRC2012_val_00000005.JPEG")
    put(root / "val" / "ILSVRC2012_val_00000001.png", picture(9))
    put(root / "val" / "holiday.jpg", picture(10))
    told = [str(problem) for problem in problems(imagenet.read(source(root)))]
    assert len(told) == 4
    assert "val/ILSVRC2012_val_00000001.png: another image has the same number" in told[0]
    assert f"val/ILSVRC2012_val_00000005.JPEG: {TRUTH} has no label" in told[1]
    assert "val/holiday.jpg: expected a name like ILSVRC2012_val_00000001.JPEG" in told[2]
    assert "1 of 4 labelled images are missing, such as ILSVRC2012_val_00000004" in told[3]


def test_images_outside_the_classes_folders_are_told(tmp_path):
    folders(tmp_path / "train", some())
    put(tmp_path / "train" / "lost.JPEG", picture(1))
    (told,) = problems(imagenet.read(source(tmp_path)))
    assert str(told) == "train/lost.JPEG: it lies in no class's folder; move it into one, or away."
    assert told.skippable


def test_links_in_a_tar_are_told(tmp_path):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        link = tarfile.TarInfo("n01440764_1.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    put(tmp_path / "x.tar", tar_of({f"{TENCH}.tar": data.getvalue()}))
    (told,) = problems(imagenet.read(source(tmp_path / "x.tar")))
    assert str(told).startswith("x.tar: n01440764/n01440764_1.JPEG: it is a link")


def test_a_tar_that_became_shorter_is_a_bad_image_and_no_traceback(tmp_path):
    path = tar_of_tars(tmp_path / "x.tar", some((TENCH, GOLDFISH)))
    *_, last = imagenet.read(source(path)).items()
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadImage, match="the archive ends within it"):
        last.load()


BAD = {
    "nothing there": (lambda root: root / "absent", "cannot be read"),
    "an empty folder": (lambda root: root, "has no training images of ImageNet"),
    "validation alone": (lambda root: folders(root / "val", some()).parent, "has no training images of ImageNet"),
    "tars still to be unpacked": (
        lambda root: put(root / "train" / f"{TENCH}.tar", b"") or root,
        "expected one for each class",
    ),
    "strangers among ids": (lambda root: folders(root, {**some(), "cats": {"a": b""}}), "has, among .* cats;"),
    "validation lacks a class": (
        lambda root: folders(folders(root / "train", some()).parent / "val", some((TENCH,))).parent,
        f"val lacks {GOLDFISH}, {KIT_FOX}; expected the 3 classes of",
    ),
    "validation has another class": (
        lambda root: folders(folders(root / "train", some((TENCH,))).parent / "val", some((TENCH, ALP))).parent,
        f"val has {ALP} besides; expected",
    ),
    "a heap of other classes": (
        lambda root: flat_val(root, ids=(490, 361, 1), labels=TRUTH),
        f"val lacks {SHEPHERD} and has {KIT_FOX} besides",
    ),
    "a heap without labels": (flat_val, f"no file tells its labels; expected {TRUTH} of {DEVKIT}.tar.gz"),
    "labels from 0": (lambda root: flat_val(root, ids=(490, 0), labels=TRUTH), "line 2: got '0'; expected a number"),
    "labels beyond 1000": (lambda root: flat_val(root, ids=(1001,), labels=TRUTH), "line 1: got '1001'; expected"),
    "labels that are words": (lambda root: flat_val(root, ids=(1, "fox"), labels=TRUTH), "line 2: got 'fox'; expected"),
    "a table of other columns": (
        lambda root: put(flat_val(root) / "LOC_val_solution.csv", b"a,b\n1,2\n") or root,
        "LOC_val_solution.csv, line 1: got 'a,b'; expected each image once",
    ),
    "a table that names an image twice": (
        lambda root: (
            put(flat_val(root) / "LOC_val_solution.csv", f"ILSVRC2012_val_00000001,{TENCH} 1\n".encode() * 2) or root
        ),
        "line 2: got 'ILSVRC2012_val_00000001",
    ),
    "a tar with other files": (
        lambda root: put(root / "x.tar", tar_of({f"{TENCH}.tar": tar_of({}), "a.txt": b"a"})) or root / "x.tar",
        "holds a.txt; expected one .tar for each class",
    ),
    "a class twice": (
        lambda root: (
            put(root / "x.tar", tar_of({f"{TENCH}.tar": tar_of({}), f"./{TENCH}.tar": tar_of({})})) or root / "x.tar"
        ),
        "holds n01440764.tar; expected one .tar for each class",
    ),
    "an empty training tar": (
        lambda root: put(root / "ILSVRC2012_img_train.tar", tar_of({})) or root,
        "is empty; expected one .tar for each class",
    ),
    "a training tar that is none": (
        lambda root: put(root / "ILSVRC2012_img_train.tar", b"x" * 4096) or root,
        "is no whole tar archive .it does not start like one",
    ),
    "a training tar cut short": (
        lambda root: (
            put(root / "x.tar", tar_of({f"{w}.tar": tar_of({"a": b"b"}) for w in THREE})[:30_000]) or root / "x.tar"
        ),
        "x.tar is no whole tar archive .it ends in the middle of n02119789.tar",
    ),
    "a training tar cut between tars": (
        lambda root: (
            put(root / "x.tar", tar_of({f"{w}.tar": tar_of({"a": b"b"}) for w in THREE})[: 2 * 10_752])
            or root / "x.tar"
        ),
        "x.tar is no whole tar archive .it ends without an end mark, after n01443537.tar",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_source_that_is_not_imagenet_is_one_sentence(tmp_path, what):
    make, told = BAD[what]
    with pytest.raises(UserError, match=told) as error:
        imagenet.read(source(make(tmp_path)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("inner", "told"),
    [
        (
            tar_of({"a.JPEG": bytes(5000)})[:3072],
            "x.tar: n01440764.tar is no whole tar archive .it ends in the middle of a.JPEG",
        ),
        (tar_of({"a.JPEG": bytes(512)})[:1024], "n01440764.tar is no whole tar archive .it ends without an end mark"),
        (
            tar_of({"a.JPEG": bytes(512)})[:1024] + b"?" * 1024,
            "n01440764.tar is no whole tar archive .a damaged header after a.JPEG",
        ),
    ],
)
def test_a_damaged_inner_tar_is_named(tmp_path, inner, told):
    put(tmp_path / "x.tar", tar_of({f"{TENCH}.tar": inner}))
    collection = imagenet.read(source(tmp_path / "x.tar"))
    with pytest.raises(UserError, match=told):
        list(collection.items())


def test_another_number_of_classes_than_the_row_says_is_refused(tmp_path):
    folders(tmp_path, some())
    with pytest.raises(UserError, match="has 3 classes; expected 1000"):
        imagenet.read(source(tmp_path, num_classes=1000))
    with pytest.raises(UserError, match="expected .*'cat'"):
        imagenet.read(source(tmp_path), ("cat", "dog"))
