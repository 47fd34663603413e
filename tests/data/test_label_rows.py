"""Tables of labels: rows as they are written, whatever the dialect, and no table that is only half understood."""

import json
import re

import pytest

from privimage.data import folder, label_rows
from privimage.data.label_rows import BadRow, Columns, Row, table_rows
from privimage.errors import UserError
from privimage.settings import Source


def parsed(content, file="labels.csv"):
    columns, rows = table_rows(content.encode(), file)
    return columns, list(rows)


def test_rows_keep_their_lines_and_their_texts_as_written():
    columns, rows = parsed('id;file;y;split\n\n7; 1.png ;"a;b";train\n8;2.png;;\n')
    assert columns == Columns("file", "y", "split")
    assert rows == [Row(3, " 1.png ", "a;b", "train"), Row(4, "2.png", "", "")]


def test_what_a_table_does_not_have_is_none():
    assert parsed("file_name\n1.png\n") == (Columns("file_name", None, None), [Row(2, "1.png", None, None)])


def test_values_of_json_are_texts_or_numbers():
    values = ["cat", 3, 3.0, None, float("nan")]
    lines = "".join(json.dumps({"file": "x", "label": value}) + "\n" for value in values)
    assert [row.label for row in parsed(lines, "a.jsonl")[1]] == ["cat", "3", "3.0", "", ""]


def test_a_long_json_line_is_a_bad_row(monkeypatch):
    monkeypatch.setattr(label_rows, "MAX_LINE", 100)
    good, long = json.dumps({"file": "1.png"}), json.dumps({"file": "2.png", "label": "x" * 100})
    _, rows = parsed(f"{good}\n{long}\n", "a.jsonl")
    assert rows[0] == Row(1, "1.png", None, None) and isinstance(rows[1], BadRow)


REFUSED = {
    "empty": ("", "labels.csv is empty; expected a header and a row for each image"),
    "blank": ("\n \n", "labels.csv is empty; expected a header"),
    "a mark only": (b"\xef\xbb\xbf", "labels.csv is empty; expected a header"),
    "header only": ("file_name,label\n", "labels.csv has no row that can be used; add a row for each image"),
    "only bad rows": ("file_name,label\n1.png\n", "no row that can be used; labels.csv, line 2: has 1 columns"),
    "no header": ("1.png,cat\n2.png,dog\n", r"has the columns \['1.png', 'cat'\]; expected one of file_name.*name its"),
    "unknown header": (
        "picture,kind\n1.png,cat\n",
        r"columns \['picture', 'kind'\]; expected one of file_name, .*label",
    ),
    "zero bytes": ("file,label\n1.png,c\0t\n", "labels.csv holds zero bytes; expected text in UTF-8, save it anew"),
    "UTF-16": ("file,label\n1.png,cat\n".encode("utf-16"), "labels.csv holds zero bytes; expected text in UTF-8"),
    "Latin-1": (
        "file,label\n1.png,gr\xf6\xdfe\n".encode("latin-1"),
        r"labels.csv is not in UTF-8 \(.*\); save it anew",
    ),
    "Latin-1 header": ("gr\xf6\xdfe,file\n1,1.png\n".encode("latin-1"), "labels.csv is not in UTF-8"),
    "quote to the end": ('file,label\n"1.png,cat\n', r"labels.csv is no proper CSV \(.*\); look for a quote"),
    "endless field": ("file,label\n" + "x" * 200_000 + ",cat\n", "labels.csv is no proper CSV .*field"),
    "two labels": ("file,label,label\n1.png,cat,dog\n", "labels.csv has columns of the same name in .*; keep one"),
    "no usable label": (
        "file,label\n1.png,-1\n2.png,1.5\n",
        r"no usable label, for instance \['-1', '1.5'\]; expected",
    ),
    "JSON list": ("[]\n", r"labels.jsonl, line 1, is no JSON object like .*; mend it"),
    "JSON without a file": ('{"a": 1}\n', r"labels.jsonl has the columns \['a'\]; expected one of file_name"),
    "no train": ("file,split\n1.png,test\n2.png,test\n", "labels.csv has no row of the split train; expected train"),
    "unprintable class": ('{"file": "1.png", "label": "a\\u001bb"}\n', "labels.jsonl has a class called .*rename it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_label_table_is_refused_in_a_sentence_that_names_it(tmp_path, case):
    content, message = REFUSED[case]
    table = tmp_path / ("labels.jsonl" if "labels.jsonl" in message else "labels.csv")
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"pixels")
    with pytest.raises(UserError) as caught:
        folder.read(Source(source="folder", path=str(tmp_path), resolution=4, channels=3))
    assert re.search(message, str(caught.value)) and str(caught.value).isprintable(), caught.value
    assert str(tmp_path) in str(caught.value)
