"""CelebA: every layout of the release gives the same records; tables and images are held against each other."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from privimage.data import celeba
from privimage.data.record import Problem, Record
from privimage.errors import UserError
from privimage.settings import Source

NAMES = ("Attractive", "Male", "No_Beard", "Smiling")
SIGNS = ((1, -1, 1, 1), (-1, 1, -1, 1), (1, 1, -1, -1), (-1, -1, 1, -1), (1, -1, -1, -1))
PARTS = (0, 1, 2, 0, 2)  # train, validation, test, train, test
IMAGES = [f"{number:06}.jpg" for number in range(1, 6)]
PARTITION_TXT = "".join(f"{image} {part}\n" for image, part in zip(IMAGES, PARTS))
PARTITION_CSV = "image_id,partition\n" + PARTITION_TXT.replace(" ", ",")
ATTRIBUTES_TXT = f"5\n{' '.join(NAMES)} \n" + "".join(
    f"{image} {' '.join(f'{sign:2}' for sign in signs)}\n" for image, signs in zip(IMAGES, SIGNS)
)
ATTRIBUTES_CSV = f"image_id,{','.join(NAMES)}\n" + "".join(
    f"{image},{','.join(map(str, signs))}\n" for image, signs in zip(IMAGES, SIGNS)
)


def source(path, **changes):
    return Source(**{"source": "celeba", "path": str(path), "resolution": 32, "channels": 3, **changes})


def jpeg(seed):
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (11, 9, 3), dtype=np.uint8)).save(data, "JPEG")
    return data.getvalue()


FACES = {image: jpeg(number) for number, image in enumerate(IMAGES)}


def fill(root, images="img_align_celeba", tables=("", ""), ending=".txt", faces=FACES, **texts):
    partition = texts.get("partition", PARTITION_TXT if ending == ".txt" else PARTITION_CSV)
    attributes = texts.get("attributes", ATTRIBUTES_TXT if ending == ".txt" else ATTRIBUTES_CSV)
    for folder in (images, *tables):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, content in faces.items():
        (root / images / name).write_bytes(content)
    (root / tables[0] / f"list_eval_partition{ending}").write_text(partition)
    (root / tables[1] / f"list_attr_celeba{ending}").write_text(attributes)
    return root


def pack(root, path, prefix):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in FACES.items():
            archive.writestr(prefix + name, content)
    for name in FACES:
        (root / name).unlink()
    root.rmdir()


def listed(collection):
    items = list(collection.items())
    assert all(isinstance(item, Record) for item in items), [str(i) for i in items if isinstance(i, Problem)]
    return {i.name.rpartition("/")[2]: (collection.class_names[i.label], i.split, i.load()) for i in items}


def told(root, **changes):
    items = celeba.read(source(root, **changes)).items()
    return [(str(item), item.skippable) for item in items if isinstance(item, Problem)]


MALE = {
    IMAGES[k]: ("Male" if SIGNS[k][1] == 1 else "not Male", {0: "train", 2: "test"}[PARTS[k]], FACES[IMAGES[k]])
    for k in (0, 2, 3, 4)
}


def test_every_layout_of_the_release_gives_the_same_records(tmp_path):
    official = fill(tmp_path / "a", "Img/img_align_celeba", ("Eval", "Anno"))
    packed = fill(tmp_path / "b", "Img/img_align_celeba", ("Eval", "Anno"))
    pack(packed / "Img" / "img_align_celeba", packed / "Img" / "img_align_celeba.zip", "img_align_celeba/")
    flat = fill(tmp_path / "c")
    torchvision = fill(tmp_path / "d")
    pack(torchvision / "img_align_celeba", torchvision / "img_align_celeba.zip", "img_align_celeba/")
    kaggle = fill(tmp_path / "e", "img_align_celeba/img_align_celeba", ending=".csv")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        for path in sorted(path for path in kaggle.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(kaggle))
    for root in (official, packed, flat, torchvision, kaggle, tmp_path / "archive.zip"):
        collection = celeba.read(source(root, attribute="Male", num_classes=2))
        assert collection.class_names == ("not Male", "Male")
        assert listed(collection) == MALE
        assert [item.name for item in collection.items()] == [item.name for item in collection.items()]


def test_signs_may_be_0_and_1(tmp_path):
    root = fill(tmp_path, ending=".csv", attributes=ATTRIBUTES_CSV.replace("-1", "0"))
    assert listed(celeba.read(source(root, attribute="Male"))) == MALE


def test_without_an_attribute_there_is_one_class_and_no_need_of_the_attributes(tmp_path):
    root = fill(tmp_path)
    (root / "list_attr_celeba.txt").unlink()
    assert celeba.read(source(root)).class_names == ("face",)
    collection = celeba.read(source(root), ("somebody",))
    assert listed(collection) == {name: ("somebody", split, content) for name, (_, split, content) in MALE.items()}


@pytest.mark.parametrize(
    ("declared", "without", "having"),
    [
        (("woman", "man"), "woman", "man"),
        (("Male", "not Male"), "not Male", "Male"),
        (("Male", "Female"), "Female", "Male"),
        (("man", "not Male"), "not Male", "man"),
    ],
)
def test_two_declared_names_are_those_without_and_with_unless_they_say_otherwise(tmp_path, declared, without, having):
    collection = celeba.read(source(fill(tmp_path), attribute="Male"), declared)
    assert collection.class_names == declared
    names = {"Male": having, "not Male": without}
    assert listed(collection) == {image: (names[name], *rest) for image, (name, *rest) in MALE.items()}


def test_an_image_that_is_missing_or_not_listed_is_told(tmp_path):
    root = fill(tmp_path, faces={**FACES, "000009.jpg": jpeg(9)})
    (root / "img_align_celeba" / "000003.jpg").unlink()
    assert told(root) == [
        (
            "img_align_celeba/000009.jpg: list_eval_partition.txt does not list it; remove it, or copy the table anew.",
            True,
        ),
        (
            "img_align_celeba/000003.jpg: list_eval_partition.txt lists it, but there is no such image; copy it anew.",
            True,
        ),
    ]


@pytest.mark.parametrize("row", ["000003.jpg 3", "000003.jpg", "000003.jpg 2 2", "000003.jpg two"])
def test_a_malformed_row_of_the_split_is_told_once_with_its_line(tmp_path, row):
    root = fill(tmp_path, partition=PARTITION_TXT.replace("000003.jpg 2", row))
    ((problem, skippable),) = told(root)
    assert problem.startswith(f"list_eval_partition.txt, line 3: got '{row}'; expected 2 cells") and skippable
    assert len([item for item in celeba.read(source(root)).items() if isinstance(item, Record)]) == 3


@pytest.mark.parametrize("row", ["000003.jpg 1 7 -1 -1", "000003.jpg 1 1", "000003.jpg"])
def test_a_malformed_row_of_the_attributes_is_told_once_with_its_line(tmp_path, row):
    root = fill(tmp_path, attributes=ATTRIBUTES_TXT.replace("000003.jpg  1  1 -1 -1", row))
    ((problem, skippable),) = told(root, attribute="Male")
    assert problem.startswith(f"list_attr_celeba.txt, line 5: got '{row}'; expected 5 cells") and skippable
    assert told(root) == []


def test_an_image_listed_twice_is_told_and_may_not_be_skipped_if_the_rows_differ(tmp_path):
    root = fill(tmp_path / "a", partition=PARTITION_TXT + "000004.jpg 0\n")
    assert [skippable for _, skippable in told(root)] == [True]
    root = fill(tmp_path / "b", partition=PARTITION_TXT + "000004.jpg 2\n")
    ((problem, skippable),) = told(root)
    assert "line 6: it names 000004.jpg again, and differently" in problem and not skippable
    assert not any("000004" in item.name for item in celeba.read(source(root)).items() if isinstance(item, Record))


def test_an_image_without_attributes_is_told(tmp_path):
    lines = ATTRIBUTES_TXT.replace("5\n", "4\n", 1).splitlines()
    root = fill(tmp_path, attributes="\n".join(lines[:-1]))
    ((problem, _),) = told(root, attribute="Male")
    assert problem.startswith("img_align_celeba/000005.jpg: list_attr_celeba.txt does not list it")


def test_rows_cannot_reach_outside_the_folder_of_images(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(FACES[IMAGES[0]])
    root = fill(tmp_path / "a", partition=PARTITION_TXT + "../../secret.jpg 0\n/etc/passwd 0\n")
    records = [item for item in celeba.read(source(root)).items() if isinstance(item, Record)]
    assert len(records) == 4 and len(told(root)) == 2


@pytest.mark.parametrize(
    ("attribute", "hint"),
    [("male", "did you mean Male?"), ("Smilling", "did you mean Smiling"), ("Hat", "expected one of Attractive, Male")],
)
def test_an_unknown_attribute_is_refused_with_those_that_are_near(tmp_path, attribute, hint):
    with pytest.raises(UserError) as error:
        celeba.read(source(fill(tmp_path), attribute=attribute))
    assert f"has no attribute '{attribute}'" in str(error.value) and hint in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ATTRIBUTES_TXT.replace("5\n", "6\n", 1), "says 6 in its first line and has 5 rows"),
        (ATTRIBUTES_TXT.replace("5\n", "five\n", 1), "says no number of images in its first line"),
        (ATTRIBUTES_TXT[:-30], "says 5 in its first line and has 4 rows"),
        ("", "has no attribute 'Male'"),
        ("\0\n\n", "has no attribute 'Male'"),
    ],
)
def test_a_table_of_attributes_that_is_damaged_as_a_whole_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        celeba.read(source(fill(tmp_path, attributes=text), attribute="Male"))
    assert "\n" not in str(error.value)


def test_a_table_of_nothing_but_wrong_rows_is_refused_without_listing_them_all(tmp_path):
    with pytest.raises(UserError, match="more than 1000 wrong rows"):
        celeba.read(source(fill(tmp_path, partition="what is this\n" * 5000)))


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="neither a folder img_align_celeba nor img_align_celeba.zip"):
        celeba.read(source(tmp_path))
    root = fill(tmp_path / "a")
    (root / "list_attr_celeba.txt").unlink()
    with pytest.raises(UserError, match="neither list_attr_celeba.txt nor list_attr_celeba.csv"):
        celeba.read(source(root, attribute="Male"))
    (root / "list_eval_partition.txt").unlink()
    with pytest.raises(UserError, match="neither list_eval_partition.txt nor"):
        celeba.read(source(root))
    with pytest.raises(UserError, match="cannot be read"):
        celeba.read(source(tmp_path / "absent"))


def test_other_classes_than_the_declared_ones_are_refused(tmp_path):
    root = fill(tmp_path)
    with pytest.raises(UserError, match="without an `attribute` is one class; got 2"):
        celeba.read(source(root), ("woman", "man"))
    with pytest.raises(UserError, match="has the classes .*not Male"):
        celeba.read(source(root, attribute="Male"), ("a", "b", "c"))
    with pytest.raises(UserError, match="has 1 classes; expected 2"):
        celeba.read(source(root, num_classes=2))
