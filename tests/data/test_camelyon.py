"""Camelyon17 of WILDS: the official split by hospital, labels from the table, and rows that are malformed."""

import io

import numpy as np
import pytest
from PIL import Image

from privimage.data import camelyon
from privimage.data.record import BadImage, Problem, Record
from privimage.errors import UserError
from privimage.settings import Source

HEADER = ",patient,node,x_coord,y_coord,tumor,slide,center,split\n"
ROWS = [  # patient, node, x, y, tumor, slide, center, split
    (4, 4, 3328, 21792, 1, 0, 0, 0),
    (4, 4, 3200, 22272, 0, 0, 0, 0),
    (10, 1, 96, 0, 1, 1, 0, 1),  # validation in the hospitals to train with
    (20, 2, 64, 32, 0, 10, 1, 0),  # another hospital, for validation
    (20, 2, 64, 64, 1, 10, 1, 1),
    (46, 3, 15168, 7904, 1, 23, 2, 0),  # the test hospital
    (46, 3, 15168, 7936, 0, 23, 2, 1),
    (60, 3, 1, 2, 0, 31, 3, 0),
    (100, 0, 5, 6, 1, 49, 4, 0),
]
EXPECTED = [
    ("patches/patient_004_node_4/patch_patient_004_node_4_x_3328_y_21792.png", "tumor", "train"),
    ("patches/patient_004_node_4/patch_patient_004_node_4_x_3200_y_22272.png", "normal", "train"),
    ("patches/patient_046_node_3/patch_patient_046_node_3_x_15168_y_7904.png", "tumor", "test"),
    ("patches/patient_046_node_3/patch_patient_046_node_3_x_15168_y_7936.png", "normal", "test"),
    ("patches/patient_060_node_3/patch_patient_060_node_3_x_1_y_2.png", "normal", "train"),
    ("patches/patient_100_node_0/patch_patient_100_node_0_x_5_y_6.png", "tumor", "train"),
]


def source(path, **changes):
    return Source(**{"source": "camelyon17", "path": str(path), "resolution": 96, "channels": 3, **changes})


def png(seed):
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(data, "PNG")
    return data.getvalue()


def line(index, row):
    patient, *rest = row
    return f"{index},{patient:03},{','.join(map(str, rest))}\n"


def fill(root, rows=None, header=HEADER):
    """The release; ``rows`` are lines in place of the proper ones."""
    lines = [line(index, row) for index, row in enumerate(ROWS)] if rows is None else rows
    for number, (name, _, _) in enumerate(EXPECTED):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(number))
    (root / "metadata.csv").write_text(header + "".join(lines))
    return root


def listed(collection):
    items = list(collection.items())
    assert all(isinstance(item, Record) for item in items)
    return [(item.name, collection.class_names[item.label], item.split) for item in items]


def problems(root):
    return [item for item in camelyon.read(source(root)).items() if isinstance(item, Problem)]


def test_the_split_is_by_hospital_and_the_validation_sets_are_left_out(tmp_path):
    collection = camelyon.read(source(fill(tmp_path), num_classes=2))
    assert collection.class_names == ("normal", "tumor")
    assert listed(collection) == listed(collection) == EXPECTED
    assert [item.load() for item in collection.items()] == [png(number) for number in range(6)]


def test_the_releases_own_folder_is_found(tmp_path):
    fill(tmp_path / "camelyon17_v1.0")
    assert listed(camelyon.read(source(tmp_path))) == EXPECTED


def test_columns_may_stand_in_another_order_and_lines_end_in_any_way(tmp_path):
    order = ("split", "center", "tumor", "y_coord", "x_coord", "node", "patient")
    place = dict(zip(("patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split"), range(8)))
    rows = [",".join(str(row[place[name]]) for name in order) + "\r\n" for row in ROWS]
    root = fill(tmp_path, rows, ",".join(order) + "\r\n")
    assert listed(camelyon.read(source(root))) == EXPECTED


def test_the_header_is_the_first_line_that_is_not_empty(tmp_path):
    fill(tmp_path, header="\n" + HEADER)
    assert len(list(camelyon.read(source(tmp_path)).items())) == len(EXPECTED)
    assert problems(tmp_path) == []


def test_declared_classes_keep_their_declared_order(tmp_path):
    collection = camelyon.read(source(fill(tmp_path)), ("tumor", "normal"))
    assert collection.class_names == ("tumor", "normal")
    assert listed(collection) == EXPECTED


def test_a_patch_that_is_missing_is_a_bad_image(tmp_path):
    root = fill(tmp_path)
    (root / EXPECTED[1][0]).unlink()
    records = list(camelyon.read(source(root)).items())
    with pytest.raises(BadImage, match="metadata.csv lists it, but there is no such file"):
        records[1].load()
    assert records[2].load() == png(2)


@pytest.mark.parametrize(
    "row",
    [
        "1,004,4,3200,22272,0,0,0\n",
        "1,004,4,3200,22272,0,0,0,0,0\n",
        "1,four,4,3200,22272,0,0,0,0\n",
        "1,004,4,,22272,0,0,0,0\n",
        "1,004,4,-3200,22272,0,0,0,0\n",
        "1,004,4,3200.5,22272,0,0,0,0\n",
        "1,004,4,3200,22272,2,0,0,0\n",
        "1,004,4,3200,22272,0,0,5,0\n",
        "1,004,4,3200,22272,0,0,0,2\n",
        "1,../../../etc,4,3200,22272,0,0,0,0\n",
        "1,004,4,٣,22272,0,0,0,0\n",
        "what is \0 this\n",
    ],
)
def test_a_malformed_row_is_told_with_its_line_and_the_others_stay(tmp_path, row):
    rows = [line(index, row) for index, row in enumerate(ROWS)]
    root = fill(tmp_path, [rows[0], row, *rows[2:]])
    (problem,) = problems(root)
    assert problem.name == "metadata.csv, line 3" and problem.skippable
    assert "whole numbers as in the other rows" in problem.what and "\0" not in str(problem)
    left = [item.name for item in camelyon.read(source(root)).items() if isinstance(item, Record)]
    assert left == [name for name, _, _ in EXPECTED if name != EXPECTED[1][0]]


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(tmp_path):
    collection = camelyon.read(source(fill(tmp_path, ["1" * 100_000])))
    with pytest.raises(UserError, match="line 2 is longer than any table's"):
        list(collection.items())


def test_missing_tables_columns_and_other_classes_are_refused(tmp_path):
    with pytest.raises(UserError, match="has no metadata.csv; `path` must name the folder camelyon17_v1.0"):
        camelyon.read(source(tmp_path))
    with pytest.raises(UserError, match="lacks the columns tumor, split; copy"):
        camelyon.read(source(fill(tmp_path / "a", header="patient,node,x_coord,y_coord,slide,center\n")))
    with pytest.raises(UserError, match="lacks the columns patient, node"):
        camelyon.read(source(fill(tmp_path / "b", [], header="")))
    with pytest.raises(UserError, match="has the classes"):
        camelyon.read(source(fill(tmp_path / "c")), ("healthy", "ill"))
    with pytest.raises(UserError, match="has 2 classes; expected 3"):
        camelyon.read(source(fill(tmp_path / "d"), num_classes=3))
