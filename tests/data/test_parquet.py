"""Parquet: image files come back byte by byte from every layout; labels by themselves, and from no damaged file."""

import io
import json
import os
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from privimage.data import parquet
from privimage.data.decode import upright
from privimage.data.record import BadImage, Problem
from privimage.errors import UserError
from privimage.settings import Source

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as `datasets` writes an image


def png(seed, size=(5, 6)):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


FILES = [png(seed) for seed in range(10)]
LABELS = [0, 1, 2, 1, 0, 2, 2, 1, 0, 0]


def images(kind=STRUCT, files=FILES):
    values = [{"bytes": f, "path": f"{i}.png"} for i, f in enumerate(files)] if pa.types.is_struct(kind) else files
    return pa.array(values, kind)


def hugging_face(table, **names):
    """The table with the metadata that `datasets` writes for columns of classes."""
    features = {column: {"names": list(classes), "_type": "ClassLabel"} for column, classes in names.items()}
    info = {"info": {"features": {"image": {"_type": "Image"}, **features}}}
    return table.replace_schema_metadata({"huggingface": json.dumps(info)})


def saved(path, table=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": images(), "label": LABELS}) if table is None else table, path, **options)
    return path


def read(path, class_names=None, **changes):
    source = Source(**{"source": "parquet", "path": str(path), "resolution": 4, "channels": 3, **changes})
    return parquet.read(source, class_names)


def labels_of(collection):
    return [item.label for item in collection.items()]


@pytest.mark.parametrize("name", ["Label", "LABELS", "category", "y"])
def test_a_column_of_labels_is_never_taken_for_no_labels(tmp_path, name):
    found = read(saved(tmp_path / "set.parquet", pa.table({"image": images(), name: LABELS})))
    assert labels_of(found) == LABELS and found.class_names == ("0", "1", "2")


def test_the_column_whose_classes_are_named_goes_before_one_of_a_rarer_name(tmp_path):
    table = pa.table({"image": images(), "y": [7] * 10, "digit": LABELS})
    found = read(saved(tmp_path / "set.parquet", hugging_face(table, digit=("a", "b", "c"))))
    assert labels_of(found) == LABELS and found.class_names == ("a", "b", "c")


@pytest.mark.parametrize("kind", [STRUCT, pa.binary(), pa.large_binary(), pa.struct([("bytes", pa.large_binary())])])
@pytest.mark.parametrize("options", [{}, {"row_group_size": 3, "compression": "zstd"}, {"use_dictionary": False}])
def test_image_files_come_back_byte_by_byte(tmp_path, kind, options):
    found = read(saved(tmp_path / "set.parquet", pa.table({"image": images(kind), "label": LABELS}), **options))
    assert [item.load() for item in found.items()] == FILES
    assert labels_of(found) == LABELS and found.class_names == ("0", "1", "2")
    items = list(found.items())
    assert [items[index].load() for index in (7, 2, 2, 9, 0)] == [FILES[index] for index in (7, 2, 2, 9, 0)]
    assert items[7].name == "set.parquet, row 7" and items[7].split is None
    assert upright(items[7].load(), 1000)[0].size == (5, 6)


@pytest.mark.parametrize("wanted", [(0,), (9,), (3, 4), (0, 5, 6), ()])
def test_some_rows_of_a_pass_may_be_loaded(tmp_path, wanted):
    found = read(saved(tmp_path / "set.parquet", row_group_size=4))
    loaded = [item.load() for index, item in enumerate(found.items()) if index in wanted]
    assert loaded == [FILES[index] for index in wanted]


def test_the_layout_of_hugging_face_gives_split_and_class_names(tmp_path):
    table = hugging_face(pa.table({"image": images(), "label": LABELS}), label=["dog", "cat", "eel"])
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"):
        saved(tmp_path / "data" / f"{name}.parquet", table)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    found = read(tmp_path)
    assert found.class_names == ("dog", "cat", "eel") and found.form == "folder of Parquet files (image, label)"
    assert [item.split for item in found.items()] == ["train"] * 20 + ["test"] * 10
    assert next(found.items()).name == "data/train-00000-of-00002.parquet, row 0"
    assert labels_of(read(tmp_path, ("eel", "dog", "cat"))) == [[1, 2, 0][label] for label in LABELS] * 3
    saved(tmp_path / "data" / "test-00000-of-00001.parquet", table)
    assert [item.split for item in read(tmp_path).items()].count("test") == 10


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_labels_may_be_texts(tmp_path, kind):
    words = pa.array([["dog", "cat", "eel"][label] for label in LABELS]).cast(kind)
    path = saved(tmp_path / "set.parquet", pa.table({"image": images(), "label": words}))
    assert read(path).class_names == ("cat", "dog", "eel")
    assert labels_of(read(path, ("dog", "cat", "eel"))) == LABELS


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.bool_()])
def test_labels_may_be_any_whole_numbers(tmp_path, kind):
    labels = [min(label, 1) for label in LABELS]
    path = saved(tmp_path / "set.parquet", pa.table({"image": images(), "label": pa.array(labels).cast(kind)}))
    assert labels_of(read(path)) == labels


def test_columns_are_found_by_name_or_as_the_only_ones_that_fit(tmp_path):
    numbers = list(range(10))
    cifar = hugging_face(
        pa.table({"img": images(), "fine_label": LABELS, "coarse_label": numbers}),
        fine_label="abc",
        coarse_label="0123456789",
    )
    art = hugging_face(pa.table({"thumbnail": images(), "id": numbers, "style": LABELS}), style="abc")
    for number, table in enumerate((cifar, art)):
        found = read(saved(tmp_path / f"{number}.parquet", table))
        assert found.class_names == ("a", "b", "c") and labels_of(found) == LABELS
        assert [item.load() for item in found.items()] == FILES


def test_without_labels_there_is_one_class(tmp_path):
    path = saved(tmp_path / "set.parquet", pa.table({"image": images(), "caption": ["a cat"] * 10}))
    assert read(path).class_names == ("image",) and set(labels_of(read(path))) == {0}
    assert read(path, ("face",)).class_names == ("face",)
    with pytest.raises(UserError, match="has no labels; expected 2 classes"):
        read(path, ("face", "house"))


def test_a_row_without_label_or_of_no_class_is_a_problem_of_its_own(tmp_path):
    table = pa.table({"image": images(), "label": [0, None, 7, -1, 0, 1, 1, 1, 1, 1]})
    items = list(read(saved(tmp_path / "set.parquet", hugging_face(table, label="ab"))).items())
    assert [index for index, item in enumerate(items) if isinstance(item, Problem)] == [1, 2, 3]
    assert "no label" in str(items[1]) and "label 7; expected one of the 2 classes" in str(items[2])
    assert items[1].name == "set.parquet, row 1" and items[1].skippable
    assert items[4].load() == FILES[4]


def test_an_image_that_is_only_a_path_is_told_by_its_row(tmp_path):
    values = [{"bytes": f, "path": "x.png"} for f in FILES]
    values[3]["bytes"], values[5] = None, None
    table = pa.table({"image": pa.array(values, STRUCT), "label": LABELS})
    items = list(read(saved(tmp_path / "set.parquet", table)).items())
    for index in (3, 5):
        with pytest.raises(BadImage, match="not inside the file; at most a path"):
            items[index].load()
    assert items[4].load() == FILES[4]


def test_listing_reads_no_image(tmp_path):
    path = saved(tmp_path / "set.parquet", compression="none")
    content = path.read_bytes()
    for file in FILES:
        content = content.replace(file, bytes(len(file)))
    path.write_bytes(content)
    assert labels_of(read(path)) == LABELS
    assert {item.load() for item in read(path).items()} == {bytes(len(file)) for file in FILES}


def test_a_large_row_group_is_never_held_whole(tmp_path):
    random = np.random.default_rng(0)
    table = pa.table({"image": images(files=[random.bytes(100_000) for _ in range(600)]), "label": [0, 1] * 300})
    path = saved(tmp_path / "set.parquet", table, use_dictionary=["label"], write_batch_size=20)  # pages of 2 MB
    del table
    pa.default_memory_pool().release_unused()
    held, most = pa.total_allocated_bytes(), 0
    tracemalloc.start()
    for item in read(path).items():
        item.load()
        most = max(most, pa.total_allocated_bytes() - held)
    assert most < 2.5e7 and tracemalloc.get_traced_memory()[1] < 5e6  # of 60 MB in one row group
    tracemalloc.stop()


LISTS = pa.array([[1, 2]] * 10)
BAD = {
    "no images": ({"label": LABELS, "text": ["a"] * 10}, "the columns label: int64, text: string; expected one of"),
    "images as lists": ({"image": LISTS, "label": LABELS}, "expected one of image files"),
    "images as text": ({"image": ["a.png"] * 10, "label": LABELS}, "expected one of image files"),
    "lists of images": ({"image": pa.array([[f] for f in FILES])}, "expected one of image files"),
    "two candidates": ({"left": images(), "right": images()}, "expected one of image files"),
    "a struct without bytes": ({"image": pa.array([{"path": "a"}] * 10)}, "expected one of image files"),
    "labels as lists": ({"image": images(), "label": LISTS}, "labels label of type list"),
    "labels as halves": ({"image": images(), "label": [0.5] * 10}, "labels label of type double"),
    "labels as dates": ({"image": images(), "label": pa.array([0] * 10, pa.timestamp("s"))}, "type timestamp"),
    "null labels": ({"image": images(), "label": pa.array([None] * 10, pa.int64())}, "labels up to -1"),
    "null texts": ({"image": images(), "label": pa.array([None] * 10, pa.string())}, "only empty labels"),
    "negative labels": ({"image": images(), "label": [-1] * 10}, "labels up to -1"),
    "labels beyond all classes": ({"image": images(), "label": [10**15] * 10}, "labels up to 1000000000000000"),
    "no rows": ({"image": images(files=[]), "label": pa.array([], pa.int64())}, "has 0 rows"),
    "an empty name": ({"image": images(), "label": [""] * 10}, "a class called"),
}


@pytest.mark.parametrize("name", BAD)
def test_tables_that_are_no_images_and_labels_are_refused_in_one_sentence(tmp_path, name):
    columns, message = BAD[name]
    with pytest.raises(UserError, match=message) as error:
        read(saved(tmp_path / "set.parquet", pa.table(columns)))
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_ambiguous_columns_are_refused(tmp_path):
    twice = pa.Table.from_arrays([images(), pa.array(LABELS), pa.array(LABELS)], ["image", "label", "label"])
    with pytest.raises(UserError, match="two columns of one name"):
        read(saved(tmp_path / "a.parquet", twice))
    art = hugging_face(pa.table({"image": images(), "style": LABELS, "artist": LABELS}), style="abc", artist="abc")
    with pytest.raises(UserError, match="several columns of classes .style, artist."):
        read(saved(tmp_path / "b.parquet", art))


def test_classes_are_held_against_the_declared_ones(tmp_path):
    plain = saved(tmp_path / "a.parquet")
    table = pa.table({"image": images(), "label": LABELS})
    named = saved(tmp_path / "b.parquet", hugging_face(table, label="abc"))
    twice = saved(tmp_path / "c.parquet", hugging_face(table, label="aab"))
    cases = (plain, ("a", "b"), None), (plain, None, 4), (named, ("a", "b", "x"), None), (named, None, 2)
    for path, class_names, num_classes in (*cases, (twice, None, None)):
        with pytest.raises(UserError, match="expected"):
            read(path, class_names, num_classes=num_classes)


@pytest.mark.parametrize(
    "metadata",
    ["no JSON", "[" * 100_000, "[]", "3", '{"info": {"features": []}}', '{"info": {"features": {"label": 3}}}'],
)
def test_somebody_elses_metadata_are_passed_over(tmp_path, metadata):
    table = pa.table({"image": images(), "label": LABELS}).replace_schema_metadata({"huggingface": metadata})
    assert read(saved(tmp_path / "set.parquet", table)).class_names == ("0", "1", "2")


def test_files_of_different_kinds_are_refused(tmp_path):
    table = pa.table({"image": images(), "label": LABELS})
    saved(tmp_path / "a.parquet", hugging_face(table, label="abc"))
    others = {
        "no names": table,
        "other names": hugging_face(table, label="abd"),
        "no labels": table.select(["image"]),
        "other labels": pa.table({"image": images(), "label": list(map(str, LABELS))}),
        "other images": hugging_face(pa.table({"image": images(pa.binary()), "label": LABELS}), label="abc"),
    }
    for other in others.values():
        saved(tmp_path / "b.parquet", other)
        with pytest.raises(UserError, match="b.parquet has other columns or classes than a.parquet"):
            read(tmp_path)
    saved(tmp_path / "b.parquet", hugging_face(table, label="abc"))
    assert len(labels_of(read(tmp_path))) == 20
    (tmp_path / "b.parquet").rename(tmp_path / "test.parquet")
    with pytest.raises(UserError, match="files that name no part, test"):
        read(tmp_path)


def test_damaged_files_are_refused_or_their_images_are(tmp_path):
    good = saved(tmp_path / "good.parquet", compression="gzip").read_bytes()
    cuts = [b"", b"PAR1", b"text", good[: len(good) // 2], good[:-4] + b"PARX", good[:-8] + b"\xff\xff\xff\x7fPAR1"]
    for number, content in enumerate([*cuts, good[:4] + good[-8:], good[:-4] + b"PARE"]):
        path = tmp_path / f"{number}.parquet"
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{number}.parquet is no Parquet file"):
            read(path)
    (tmp_path / "images.parquet").write_bytes(good[:100] + bytes(400) + good[500:])
    found = read(tmp_path / "images.parquet")
    assert labels_of(found) == LABELS
    with pytest.raises(BadImage, match="cannot be read"):
        next(found.items()).load()


def test_damaged_labels_are_refused(tmp_path):
    path = saved(tmp_path / "set.parquet", hugging_face(pa.table({"image": images(), "label": LABELS}), label="abc"))
    column = pq.ParquetFile(path).metadata.row_group(0).column(2)
    start = column.dictionary_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 12] = b"\xff" * 12
    path.write_bytes(content)
    with pytest.raises(UserError, match="set.parquet is damaged or encrypted in its column label"):
        list(read(path).items())


def test_any_flipped_byte_gives_bytes_or_one_sentence(tmp_path):
    good = saved(tmp_path / "good.parquet", row_group_size=5).read_bytes()
    random = np.random.default_rng(0)
    for number in range(150):
        content = bytearray(good)
        for place in random.integers(len(good) - (2000 if number % 2 else len(good)), len(good), 3):
            content[place] = random.integers(256)
        (tmp_path / "bad.parquet").write_bytes(content)
        try:
            for item in read(tmp_path / "bad.parquet").items():
                if not isinstance(item, Problem):
                    item.load()
        except (UserError, BadImage) as error:
            assert "\n" not in str(error), number


def test_files_in_two_places_are_refused(tmp_path):
    for name in ("a.parquet", "data/b.parquet"):
        saved(tmp_path / name)
    with pytest.raises(UserError, match="holds .parquet files, and so does its folder `data`"):
        read(tmp_path)


def test_paths_without_tables_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no .parquet file"):
        read(tmp_path)
    with pytest.raises(UserError, match="is not there"):
        read(tmp_path / "absent.parquet")
    os.mkfifo(tmp_path / "pipe.parquet")
    for path in (tmp_path, tmp_path / "pipe.parquet"):
        with pytest.raises(UserError, match="is no regular file|is not there"):
            read(path)
