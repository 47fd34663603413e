"""Label files: each image gets the label and part of its row, and every row or file that does not fit is told."""

import json
import os
import re
import tracemalloc

import pytest

from privimage.data import folder, labels
from privimage.data.record import Problem, Record
from privimage.errors import UserError
from privimage.settings import Source


def made(root, files, **tables):
    """A folder with files, and tables by name: text, or bytes."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"pixels of " + name.encode())
    for name, content in tables.items():
        path = root / name.replace("__", "/").replace("_csv", ".csv").replace("_jsonl", ".jsonl")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def collection(root, declared=None, **changes):
    return folder.read(
        Source(**{"source": "folder", "path": str(root), "resolution": 4, "channels": 3} | changes), declared
    )


def read(root, declared=None, **changes):
    """Class names, label and part by file name, and the problems."""
    found = collection(root, declared, **changes)
    items = list(found.items())
    records = {item.name: (item.label, item.split) for item in items if isinstance(item, Record)}
    return found.class_names, records, [item for item in items if isinstance(item, Problem)]


FILES = ["1.png", "2.png", "sub/3.png"]
NAMED = {"1.png": (0, None), "2.png": (1, None), "sub/3.png": (0, None)}


@pytest.mark.parametrize(
    "table",
    [
        "file_name,label\n1.png,cat\n2.png,dog\nsub/3.png,cat\n",
        "\ufefffile_name,label\n1.png,cat\n2.png,dog\nsub/3.png,cat\n",
        "label;extra;filename\r\ncat;x;1.png\r\ndog;;2.png\r\n\r\ncat;z;sub/3.png",
        "path\tclass\n./1.png\tcat\n./2.png\t dog \nsub//3.png\tcat\n",
        'File, Category\n"1.png","cat"\n"2.png",dog\n"sub/3.png",cat\n',
        "\n\nname,target\nsub/3.png,cat\n2.png,dog\n1.png,cat\n",
        "id,y\n1.png,cat\n2.png,dog\nsub/3.png,cat\n",
        "id,image,labels\n7,1.png,cat\n8,2.png,dog\n9,sub/3.png,cat\n",
    ],
)
def test_columns_and_delimiters_are_recognised(tmp_path, table):
    assert read(made(tmp_path, FILES, labels_csv=table)) == (("cat", "dog"), NAMED, [])
    assert read(tmp_path, ("dog", "cat"))[1]["2.png"] == (0, None)


@pytest.mark.parametrize("name", ["metadata_jsonl", "labels_jsonl"])
def test_json_lines_are_read(tmp_path, name):
    rows = [{"file_name": file, "label": "catdog"[3 * label : 3 * label + 3]} for file, (label, _) in NAMED.items()]
    lines = "\n\n".join(json.dumps(row | {"text": {"any": ["thing"]}}) for row in rows)
    assert read(made(tmp_path, FILES, **{name: lines})) == (("cat", "dog"), NAMED, [])


def test_names_with_delimiters_quotes_and_other_scripts_are_matched(tmp_path):
    files = ["a,b.png", 'say "x".png', "größe.png"]
    table = 'file_name,label\n"a,b.png",cat\n"say ""x"".png",cat\ngröße.png,dog\n'
    _, records, problems = read(made(tmp_path, files, labels_csv=table))
    assert set(records) == set(files) and problems == []


@pytest.mark.parametrize("values", [("0", "1", "0"), ("0.0", "1.0", "0.0"), ("00", "01", "00")])
def test_whole_numbers_are_numbers_of_classes(tmp_path, values):
    table = "file,label\n" + "".join(f"{file},{value}\n" for file, value in zip(FILES, values))
    assert read(made(tmp_path, FILES, labels_csv=table)) == (("0", "1"), NAMED, [])
    assert read(tmp_path, ("cat", "dog", "eel"))[:2] == (("cat", "dog", "eel"), NAMED)
    rows = [{"file": file, "label": float(value)} for file, value in zip(FILES, values)]
    (tmp_path / "labels.csv").unlink()
    made(tmp_path, [], labels_jsonl="\n".join(map(json.dumps, rows)))
    assert read(tmp_path) == (("0", "1"), NAMED, [])


def test_declared_names_that_are_numbers_are_names(tmp_path):
    made(tmp_path, FILES, labels_csv="file,label\n1.png,7\n2.png,8\nsub/3.png,7\n")
    assert read(tmp_path, ("7", "8")) == (("7", "8"), NAMED, [])


def test_without_labels_there_is_one_class(tmp_path):
    made(tmp_path, FILES, metadata_csv="file_name,age\n1.png,3\n2.png,4\nsub/3.png,5\n")
    assert read(tmp_path)[0] == ("image",) and read(tmp_path, ("face",))[0] == ("face",)
    assert {known for known in read(tmp_path)[1].values()} == {(0, None)}


@pytest.mark.parametrize(
    ("written", "splits"),
    [
        (("train", "test", "train"), ("train", "test", "train")),
        (("train", "VAL", "train"), ("train", "test", "train")),
        (("train", "validation", "test"), ("train", "train", "test")),
        (("train", "train", "train"), (None, None, None)),
    ],
)
def test_a_column_may_give_the_parts(tmp_path, written, splits):
    table = "file,label,split\n" + "".join(f"{file},cat,{part}\n" for file, part in zip(FILES, written))
    _, records, problems = read(made(tmp_path, FILES, labels_csv=table))
    assert tuple(records[file][1] for file in FILES) == splits and problems == []


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "test", "train"), ("train", "test", "train")),
        (("Training", "valid", "test"), ("train", "train", "test")),
        (("train", "test", "extra"), (None, None, None)),  # called like parts by chance
        (("val", "test", "test"), (None, None, None)),
    ],
)
def test_without_such_a_column_the_folders_of_all_files_may_give_them(tmp_path, folders, splits):
    files = [f"{folder}/{index}.png" for index, folder in enumerate(folders)]
    table = "file_name,label\n" + "".join(f"{file},cat\n" for file in files)
    _, records, problems = read(made(tmp_path, files, metadata_csv=table))
    assert tuple(records[file][1] for file in files) == splits and problems == []
    assert collection(tmp_path).form.endswith(", split by folders") == any(splits)


def test_each_part_may_have_a_label_file_of_its_own(tmp_path):
    files = ["train/1.png", "train/2.png", "validation/1.png"]
    made(tmp_path, [*files, "train/README.md"], train__metadata_csv="file_name,label\n1.png,cat\n2.png,dog\n")
    made(tmp_path, [], validation__metadata_jsonl='{"file_name": "1.png", "label": "dog"}\n')
    assert read(tmp_path) == (
        ("cat", "dog"),
        {"train/1.png": (0, "train"), "train/2.png": (1, "train"), "validation/1.png": (1, "test")},
        [],
    )


def test_a_wrapped_set_with_a_label_file_is_found(tmp_path):
    made(tmp_path, ["set/1.png"], set__labels_csv="file,label\n1.png,cat\n")
    assert read(tmp_path) == (("cat",), {"set/1.png": (0, None)}, [])


def table(*rows):
    return "file_name,label\n1.png,cat\n2.png,dog\nsub/3.png,cat\n" + "".join(f"{row}\n" for row in rows)


JSON = "".join(f'{{"file_name": "{file}", "label": "{label}"}}\n' for file, label in zip(FILES, ("cat", "dog", "cat")))
BAD_ROWS = {  # what the table holds, which files there are besides, what is told, whether it may be skipped
    "a missing file": (table("4.png,cat"), "4.png: a row of the label file names it, but there is no such file", True),
    "no ending": (table("1,cat"), "1: a row of the label file names it, but there is no such file", True),
    "wrong case": (table("1.PNG,cat"), "1.PNG: .*must match to the letter.*; add the file, or mend or remove", True),
    "twice": (table("1.png,cat"), "labels.csv, line 5: names 1.png a second time; mend or remove the row", False),
    "twice, otherwise spelt": (table("./1.png,cat"), "line 5: names 1.png a second time; mend", False),
    "contradiction": (
        table("1.png,dog"),
        "line 5: .*1.png a second time, with the labels 'cat' and 'dog'; mend",
        False,
    ),
    "absolute": (table("/etc/passwd,cat"), "line 5: names '/etc/passwd', a file with an absolute name; mend", True),
    "parent": (table("../x.png,cat"), r"line 5: names '../x.png', .*\(..\); mend or remove the row", True),
    "backslash": (table("sub\\3.png,cat"), "line 5: .*a backslash in its name; mend", True),
    "drive": (table("C:/3.png,cat"), "line 5: .*a drive letter; mend", True),
    "no name": (table(",cat"), "line 5: names '', a file without a proper name; mend", True),
    "too many columns": (table("2.png,cat,x"), "labels.csv, line 5: has 3 columns; expected 2", True),
    "too few columns": (table("2.png"), "labels.csv, line 5: has 1 columns; expected 2", True),
    "over two lines": (table('"2.png\n",cat'), "labels.csv, line 5: goes over 2 lines", False),
    "an open quote": (table('"2.png,cat', 'x",dog'), "line 5: goes over 2 lines", False),
    "no object": (JSON + "[1]\n", "labels.jsonl, line 4: is no JSON object", True),
    "broken JSON": (JSON + '{"file_name": \n', "labels.jsonl, line 4: is no JSON object like .*; mend", True),
    "deep JSON": (JSON + "[" * 5000 + "\n", "labels.jsonl, line 4: is no JSON object", True),
    "a list as label": (JSON + '{"file_name": "2.png", "label": [1]}\n', "line 4: has no label, or one that is", True),
    "truth as label": (JSON + '{"file_name": "2.png", "label": true}\n', "line 4: has no label, or one that is", True),
    "no file name": (JSON + '{"label": "cat"}\n', "line 4: has no file_name, or one that is neither text", True),
    "half a character": (JSON + '{"file_name": "\\ud800", "label": "cat"}\n', "line 4: .*which is no text; mend", True),
    "a zero byte": (JSON + '{"file_name": "a\\u0000", "label": "cat"}\n', "line 4: .*without a proper name", True),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_told_and_the_others_are_read(tmp_path, case):
    content, message, skippable = BAD_ROWS[case]
    made(tmp_path, FILES, **{"labels_jsonl" if content.startswith("{") else "labels_csv": content})
    names, records, (problem,) = read(tmp_path)
    assert (names, records) == (("cat", "dog"), NAMED)
    assert re.search(message, str(problem)) and str(problem).isprintable(), problem
    assert problem.skippable == skippable
    f"{problem.name}{problem.what}".encode("utf-8", "surrogateescape")


BAD_LABELS = {
    "a number among names": ("file,label\n1.png,cat\n2.png,dog\nx.png,3\n", "'3' in .*; expected a name and no number"),
    "a fraction among names": ("file,label\n1.png,cat\n2.png,dog\nx.png,1.5\n", "label '1.5' .*a name and no number"),
    "a name among numbers": (
        "file,label\n1.png,0\n2.png,1\nx.png,cat\n",
        "'cat' in .*; expected a whole number from 0",
    ),
    "a fraction": ("file,label\n1.png,0\n2.png,1\nx.png,1.5\n", "'1.5' in .*; expected a whole number from 0"),
    "a negative number": ("file,label\n1.png,0\n2.png,1\nx.png,-1\n", "'-1' in .*; expected a whole number from 0"),
    "a number too large": ("file,label\n1.png,0\n2.png,1\nx.png,999999999\n", "'999999999' in .*; expected a whole"),
    "no label": ("file,label\n1.png,0\n2.png,1\nx.png,\n", "x.png: has no label in the label file; expected a whole"),
    "blank label": ("file,label\n1.png,cat\n2.png,dog\nx.png,  \n", "has no label in the label file; expected a name"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_a_bad_label_is_told_with_its_file(tmp_path, case):
    content, message = BAD_LABELS[case]
    _, records, (problem,) = read(made(tmp_path, ["1.png", "2.png", "x.png"], labels_csv=content))
    assert records == {"1.png": (0, None), "2.png": (1, None)} and problem.skippable
    assert problem.name == "x.png" and re.search(message, str(problem)), problem
    assert str(problem).endswith("; mend or remove the row.")


def test_a_class_that_was_not_declared_is_told_for_each_row_and_one_without_rows_once(tmp_path):
    made(tmp_path, FILES, labels_csv=table())
    _, records, problems = read(tmp_path, ("cat", "eel"))
    assert records == {"1.png": (0, None), "sub/3.png": (0, None)}
    assert [str(problem) for problem in problems] == [
        "2.png: has the label 'dog' in the label file; expected one of the 2 declared classes; mend or remove the row.",
        "labels.csv: no row has the class eel; add rows, or do not declare it.",
    ]


def test_labels_that_differ_in_case_alone_are_refused_unless_both_are_declared(tmp_path):
    made(tmp_path, FILES, labels_csv="file,label\n1.png,cat\n2.png,Cat\nsub/3.png,dog\n")
    with pytest.raises(
        UserError, match="labels.csv has the labels Cat and cat, which differ in case alone; expected one"
    ):
        read(tmp_path)
    assert read(tmp_path, ("Cat", "cat", "dog")) == (
        ("Cat", "cat", "dog"), {"1.png": (1, None), "2.png": (0, None), "sub/3.png": (2, None)}, []
    )  # fmt: skip


def test_many_classes_without_rows_are_told_in_few_lines(tmp_path):
    made(tmp_path, FILES, labels_csv=table())
    told = [str(problem) for problem in read(tmp_path, ("cat", "dog", *map(str, range(300))))[2]]
    assert len(told) == 11
    assert told[-1] == "labels.csv: no row has one of 290 more classes; add rows, as above."


def test_a_file_that_no_row_names_is_told_unless_it_is_a_text(tmp_path):
    made(tmp_path, [*FILES, "4.png", "README.md", "sub/notes.txt"], labels_csv=table())
    assert [str(problem) for problem in read(tmp_path)[2]] == [
        "4.png: no row of the label file names it; add a row or remove it.",
        "sub/notes.txt: no row of the label file names it; add a row or remove it.",
    ]


def test_a_row_that_names_a_pipe_is_told(tmp_path):
    made(tmp_path, FILES, labels_csv=table("pipe.png,cat"))
    os.mkfifo(tmp_path / "pipe.png")
    assert all(problem.name == "pipe.png" for problem in read(tmp_path)[2])


def test_a_split_that_is_none_is_told(tmp_path):
    content = "file,label,split\n1.png,cat,train\n2.png,dog,test\nsub/3.png,cat,holdout\n"
    _, records, problems = read(made(tmp_path, FILES, labels_csv=content))
    assert set(records) == {"1.png", "2.png"}
    assert "labels.csv, line 4: has the split 'holdout'; expected one of train, training, test" in str(problems[0])


def test_a_table_without_labels_is_refused_where_there_are_classes(tmp_path):
    made(tmp_path, FILES, metadata_csv="file_name,age\n1.png,3\n2.png,4\nsub/3.png,5\n")
    for declared, changes in ((("a", "b"), {}), (None, {"num_classes": 2})):
        with pytest.raises(UserError, match="metadata.csv has no label column .*; expected 2 classes, so give each"):
            read(tmp_path, declared, **changes)


def test_numbers_beyond_the_declared_classes_and_other_class_names_are_refused(tmp_path):
    made(tmp_path, FILES, labels_csv="file,label\n1.png,0\n2.png,5\nsub/3.png,1\n")
    with pytest.raises(UserError, match=r"labels.csv numbers its classes up to 5 \(2.png\); expected at most 1,"):
        read(tmp_path, ("cat", "dog"))
    with pytest.raises(UserError, match=r"labels.csv numbers its classes up to 5 \(2.png\); expected at most 2, by"):
        read(tmp_path, num_classes=3)
    (tmp_path / "labels.csv").write_text(table())
    with pytest.raises(UserError, match=r'labels.csv has the classes .*write `class_names: \["cat", "dog"\]`'):
        read(tmp_path, ("Cat", "Dog"))


def test_parts_need_tables_of_one_kind(tmp_path):
    made(tmp_path, ["train/1.png", "test/2.png"], train__labels_csv="file,label\n1.png,cat\n")
    with pytest.raises(UserError, match="has no label file in test/,? but in another part; expected one of labels.csv"):
        read(tmp_path)
    made(tmp_path, [], test__labels_csv="file\n2.png\n")
    with pytest.raises(
        UserError,
        match="train/labels.csv and test/labels.csv do not both|test/labels.csv and train/labels.csv do not both",
    ):
        read(tmp_path)
    made(tmp_path, [], test__labels_csv="file,label,split\n2.png,cat,train\n")
    with pytest.raises(UserError, match="test/labels.csv has a column `split`, but its folder is a part; remove"):
        read(tmp_path)


def test_a_table_of_bad_rows_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(labels, "MAX_BAD_ROWS", 3)
    made(tmp_path, FILES, labels_csv=table("a", "b", "c", "d", "e"))
    with pytest.raises(UserError, match="labels.csv has more than 3 bad rows; the first: labels.csv, line 5: has 1"):
        read(tmp_path)


def test_a_row_takes_about_200_bytes(tmp_path):
    count = 20_000
    rows = "".join(f"images/part_{index % 7}/image_{index:08}.png,{index % 10}\n" for index in range(count))
    made(tmp_path, ["1.png"], labels_csv="file,label\n" + rows)
    tracemalloc.start()
    kept = collection(tmp_path)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / count < 250 and len(kept.class_names) == 10
