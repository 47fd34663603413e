"""Folders of images: which class and part each file is of, and what is told of those that fit nowhere."""

import io
import os
import re

import numpy as np
import pytest
from PIL import Image

from privimage.data import folder
from privimage.data.record import Note, Problem, Record
from privimage.errors import UserError
from privimage.settings import Source

CLASSES = ("cat", "dog")


def source(path, **changes):
    return Source(**{"source": "folder", "path": str(path), "resolution": 4, "channels": 3, **changes})


def picture(seed):
    """The bytes of a small PNG."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def put(root, *names):
    """Files with contents of their own: what lies where."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(sum(name.encode())) + name.encode())
    return root


def classes(root, names=CLASSES, count=2):
    return put(root, *(f"{name}/{index}.png" for name in names for index in range(count)))


def items_of(collection):
    items = list(collection.items())
    return [item for item in items if isinstance(item, Record)], [
        str(item) for item in items if isinstance(item, Problem)
    ]


def read(path, declared=None, **changes):
    """Class names, what is known of each file by its name, and what was told."""
    collection = folder.read(source(path, **changes), declared)
    records, problems = items_of(collection)
    return collection.class_names, {record.name: (record.label, record.split) for record in records}, problems


def refused(path, declared=None, **changes):
    with pytest.raises(UserError) as caught:
        folder.read(source(path, **changes), declared)
    assert str(caught.value).isprintable() and str(caught.value).endswith(".")
    return str(caught.value)


def test_a_folder_is_a_class_in_the_declared_order(tmp_path):
    classes(tmp_path)
    files = {"cat/0.png": (0, None), "cat/1.png": (0, None), "dog/0.png": (1, None), "dog/1.png": (1, None)}
    assert read(tmp_path) == (CLASSES, files, []) == read(tmp_path, num_classes=2) == read(tmp_path, CLASSES)
    names, swapped, _ = read(tmp_path, ("dog", "cat"))
    assert names == ("dog", "cat") and swapped["cat/0.png"] == (1, None)


def test_records_load_the_bytes_of_their_files(tmp_path):
    classes(tmp_path)
    records, _ = items_of(folder.read(source(tmp_path)))
    assert all(record.load() == (tmp_path / record.name).read_bytes() for record in records)


def test_images_deeper_inside_a_class_folder_are_of_the_class(tmp_path):
    put(tmp_path, "cat/2019/05/1.png", "cat/2.png", "dog/2019/3.png")
    assert read(tmp_path)[1] == {"cat/2.png": (0, None), "cat/2019/05/1.png": (0, None), "dog/2019/3.png": (1, None)}


def test_everything_inside_a_class_folder_counts_whatever_its_name(tmp_path):
    put(tmp_path, "cat/1.png", "cat/README.md", "dog/noending", "dog/labels.csv")
    assert set(read(tmp_path)[1]) == {"cat/1.png", "cat/README.md", "dog/noending", "dog/labels.csv"}


@pytest.mark.parametrize(
    ("parts", "splits"),
    [
        (("train", "test"), {"train": "train", "test": "test"}),
        (("train", "val"), {"train": "train", "val": "test"}),
        (("train", "valid"), {"train": "train", "valid": "test"}),
        (("Train", "Validation"), {"Train": "train", "Validation": "test"}),
        (("training", "testing"), {"training": "train", "testing": "test"}),
        (("train", "val", "test"), {"train": "train", "val": "train", "test": "test"}),
    ],
)
def test_parts_are_the_split_and_val_is_held_out_only_where_there_is_no_test(tmp_path, parts, splits):
    for part in parts:
        classes(tmp_path / part)
    names, files, problems = read(tmp_path)
    assert names == CLASSES and problems == [] and len(files) == 4 * len(parts)
    for name, (label, split) in files.items():
        part, class_name, _ = name.split("/")
        assert (label, split) == (CLASSES.index(class_name), splits[part])


def test_parts_may_be_flat(tmp_path):
    put(tmp_path, "train/1.png", "train/2.png", "test/3.png", "train/README.txt")
    names, files, problems = read(tmp_path, ("face",))
    assert (names, problems) == (("face",), [])
    assert files == {"train/1.png": (0, "train"), "train/2.png": (0, "train"), "test/3.png": (0, "test")}


def test_a_flat_folder_is_one_class(tmp_path):
    put(tmp_path, "1.png", "2.png", "LICENSE")
    assert read(tmp_path, ("thing",))[:2] == (("thing",), {"1.png": (0, None), "2.png": (0, None)})
    assert read(tmp_path)[0] == ("image",)


def test_a_declared_single_class_may_be_a_folder_of_its_name(tmp_path):
    put(tmp_path, "all/1.png", "all/2019/2.png")
    assert read(tmp_path, ("all",))[1] == {"all/1.png": (0, None), "all/2019/2.png": (0, None)}


def test_declared_classes_that_are_called_like_parts_are_classes(tmp_path):
    classes(tmp_path, ("train", "test"))
    names, files, _ = read(tmp_path, ("train", "test"))
    assert names == ("train", "test") and files["test/0.png"] == (1, None)


@pytest.mark.parametrize("name", ["test", "val", "Valid"])
def test_a_declared_class_may_be_called_like_a_held_out_part(tmp_path, name):
    classes(tmp_path, ("cat", name))
    assert read(tmp_path, ("cat", name))[1][f"{name}/0.png"] == (1, None)


@pytest.mark.parametrize("depth", [1, 3])
def test_a_folder_that_holds_everything_is_the_root(tmp_path, depth):
    wrapper = "/".join(f"pets{index}" for index in range(depth))
    for part in ("train", "test"):
        classes(tmp_path / wrapper / part)
    put(tmp_path, "README.md", f"{wrapper}/notes.txt")
    names, files, problems = read(tmp_path)
    assert names == CLASSES and problems == [] and len(files) == 8
    assert files[f"{wrapper}/train/dog/1.png"] == (1, "train")


def test_a_stray_beside_the_folder_that_holds_everything_is_told(tmp_path):
    classes(tmp_path / "pets")
    put(tmp_path, "stray.png")
    _, files, problems = read(tmp_path)
    assert len(files) == 4
    assert problems == ["stray.png: lies beside the folder pets; move it into one of them or remove it."]


def test_texts_at_the_root_are_passed_over_and_other_strays_told(tmp_path):
    classes(tmp_path / "train")
    classes(tmp_path / "test")
    texts = ("README", "readme.rst", "LICENSE.pdf", "licence", "a.txt", "b.MD", "c.json", "d.csv", "e.html", "f.xml")
    put(tmp_path, *texts, *(f"train/{text}" for text in texts), "stray.png", "train/cut.jpg")
    _, files, problems = read(tmp_path)
    assert len(files) == 8
    assert problems == [
        "stray.png: lies beside the folders test, train; move it into one of them or remove it.",
        "train/cut.jpg: lies beside the class folders; move it into one of them or remove it.",
    ]


@pytest.mark.parametrize("name", ["Labels.CSV", "LABELS.csv", "Metadata.jsonl"])
@pytest.mark.parametrize("images", [["1.png"], ["cat/1.png", "dog/1.png"], ["all/cat/1.png", "all/dog/1.png"]])
def test_a_label_file_whose_name_has_other_letters_is_not_passed_over(tmp_path, name, images):
    put(tmp_path, name, *images)
    (problem,) = [item for item in folder.read(source(tmp_path)).items() if isinstance(item, Problem)]
    assert not problem.skippable
    assert str(problem) == (
        f"{name}: would be a label file, but for the letters of its name; call it {name.lower()}, or remove it."
    )


def notes(path):
    return [item.text for item in folder.read(source(path)).items() if isinstance(item, Note)]


def test_a_table_that_was_not_read_is_noted_where_nothing_labels_the_images(tmp_path):
    put(tmp_path, "1.png", "annotations.csv", "README.txt", "LICENSE.txt", "paper.pdf")
    assert notes(tmp_path) == [
        "annotations.csv was not read; if it labels the images, call it one of labels.csv, metadata.csv, "
        "metadata.jsonl, labels.jsonl."
    ]
    put(tmp_path, *[f"{number}.txt" for number in range(9)], "b.jsonl")
    assert notes(tmp_path)[0].startswith("0.txt and 10 more texts were not read; if")


def test_where_folders_label_the_images_no_text_beside_them_is_noted(tmp_path):
    assert notes(put(classes(tmp_path), "annotations.csv")) == []


def test_an_empty_class_folder_is_told_and_skippable(tmp_path):
    classes(tmp_path)
    (tmp_path / "eel" / "young").mkdir(parents=True)
    collection = folder.read(source(tmp_path), (*CLASSES, "eel"))
    (problem,) = [item for item in collection.items() if isinstance(item, Problem)]
    assert problem.skippable
    assert str(problem) == "eel/: the class folder holds no files; add images to it or remove it."


def test_a_class_folder_that_is_empty_in_one_part_is_told(tmp_path):
    classes(tmp_path / "train")
    put(tmp_path, "test/cat/1.png")
    (tmp_path / "test" / "dog").mkdir()
    assert read(tmp_path)[2] == ["test/dog/: the class folder holds no files; add images to it or remove it."]


def test_the_trees_problems_are_passed_on_in_place(tmp_path):
    classes(tmp_path)
    (tmp_path / "cat" / "0.link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "dog" / "pipe")
    put(tmp_path, "dog/more.zip")
    _, files, problems = read(tmp_path)
    assert len(files) == 4 and [problem.split(":")[0] for problem in problems] == [
        "cat/0.link", "dog/more.zip", "dog/pipe"
    ]  # fmt: skip


def test_a_class_folder_with_nothing_but_problems_is_not_called_empty(tmp_path):
    classes(tmp_path)
    (tmp_path / "eel").mkdir()
    (tmp_path / "eel" / "x.png").symlink_to("nowhere")
    assert read(tmp_path)[2] == ["eel/x.png: a link that leads nowhere; mend or remove the link."]


def test_folders_that_are_not_the_declared_classes_are_refused_with_the_list_to_paste(tmp_path):
    classes(tmp_path)
    for declared in (("cat",), ("cat", "dog", "eel"), ("cat", "Dog")):
        assert 'write `class_names: ["cat", "dog"]`' in refused(tmp_path, declared)


REFUSED = {
    "an empty folder": ([], None, {}, "holds no image files; expected one folder of images for each class"),
    "texts only": (["README.md", "a.txt"], None, {}, "holds no image files; expected"),
    "hidden files only": ([".a/1.png", "__MACOSX/1.png"], None, {}, "holds no image files; expected"),
    "too few classes": (["cat/1", "dog/1"], None, {"num_classes": 3}, "has 2 classes; expected 3"),
    "flat, several declared": (["1.png"], ("a", "b"), {}, "has no class folders; expected 2 classes, so give"),
    "flat, several wanted": (["1.png"], None, {"num_classes": 10}, "has no class folders; expected 10 classes"),
    "case": (["Cat/1", "cat/1", "dog/1"], None, {}, "Cat and cat, which differ in case alone; .* merge or rename"),
    "case in a part": (["train/A/1", "train/a/1", "test/A/1"], None, {}, "differ in case alone; .* merge or rename"),
    "parts that differ": (
        ["train/cat/1", "train/dog/1", "test/cat/1"], None, {},
        r"other class folders in train/ than in test/: \['dog'\] is in one of them only; .* add or remove",
    ),
    "a part without classes": (["train/a/1", "train/b/1", "test/1.png"], None, {}, r"\['a', 'b'\] are in one of them"),
    "a stranger beside parts": (
        ["train/a/1", "test/a/1", "extra/1"], None, {},
        r"the folders \['extra'\] beside \['test', 'train'\]; expected only .* move the others",
    ),
    "a held-out part beside classes": (
        ["cat/1", "dog/1", "test/cat/1", "test/dog/1"], None, {},
        "the folder test beside class folders, but no train; expected the class folders inside `train`.* rename it",
    ),
    "a declared class that holds classes": (
        ["cat/1", "Val/cat/1"], ("cat", "Val"), {}, "the folder Val beside class folders, but no train",
    ),
    "a flat held-out part beside classes": (["cat/1", "validation/1"], None, {}, "the folder validation beside class"),
    "nothing to train with": (["val/a/1", "test/a/1"], None, {}, "holds test, val; expected a train part"),
    "an unprintable class": (["a\nb/1", "c/1"], None, {}, "has a class called .*rename it"),
    "two label files": (["labels.csv", "metadata.csv", "1.png"], None, {}, "labels.csv and metadata.csv; keep one"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_a_set_is_refused_in_a_sentence_that_names_it(tmp_path, case):
    files, declared, changes, message = REFUSED[case]
    root = tmp_path / "pets"
    root.mkdir()
    put(root, *files)
    told = refused(root, declared, **changes)
    assert "pets" in told and re.search(message, told), told
    assert [entry.name for entry in tmp_path.iterdir()] == ["pets"]


def test_a_source_without_a_path_is_refused():
    with pytest.raises(UserError, match="no `path`; name the folder"):
        folder.read(Source(source="folder", resolution=4, channels=3))


def test_a_set_that_loses_files_keeps_the_others_as_they_were(tmp_path):
    classes(tmp_path, count=6)
    before = read(tmp_path)[1]
    for name in ("cat/0.png", "dog/3.png"):
        (tmp_path / name).unlink()
    after = read(tmp_path)[1]
    assert after == {name: known for name, known in before.items() if name in after} and len(after) == 10


def test_a_listing_starts_anew_each_time_and_reads_no_pixels(tmp_path):
    classes(tmp_path)
    collection = folder.read(source(tmp_path))
    first = [item.name for item in collection.items()]
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    assert [item.name for item in collection.items()] == first


def test_a_set_made_of_links_is_read(tmp_path):
    classes(tmp_path / "far")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "cat").symlink_to(tmp_path / "far" / "cat")
    (tmp_path / "near" / "dog").symlink_to("../far/dog")
    assert read(tmp_path / "near") == read(tmp_path / "far")
