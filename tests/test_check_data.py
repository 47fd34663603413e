"""`privimage check-data`: what a person reads of their images, and what the exit code says."""

import os
import subprocess
import sys

import numpy as np
import pytest
from bad_inputs import good, png
from PIL import Image
from sets import collection_of, noise, record

from privimage import check_data, cli
from privimage.data.record import Problem
from privimage.settings import Source

SOURCE = Source(resolution=64, channels=3)


def grey(value):
    return np.full((8, 8), 10 + value, np.uint8)


def found_of(*items, class_names=("cat", "dog")):
    return check_data.run(collection_of(*items, class_names=class_names), SOURCE)


def test_the_table_counts_every_class_in_both_parts():
    items = [record(grey(n), n % 2, "test" if n % 3 == 0 else "train", str(n)) for n in range(30)]
    found = found_of(*items)
    assert found.counts.tolist() == [[10, 5], [10, 5]]
    lines = check_data.told(found, "somewhere").splitlines()
    assert lines[:2] == ["somewhere: list", "  20 training images, 10 test images"]
    assert [line.split() for line in lines[2:4]] == [["cat", "10", "5"], ["dog", "10", "5"]]
    assert lines[4:] == [
        "  pixels: width 8 to 8, height 8 to 8",
        "  stored as: uint8 array (30)",
        "0 problems, 0 warnings",
    ]


def test_copies_and_empty_classes_are_warnings_and_do_not_stop_the_workflow():
    found = found_of(record(grey(1), 0, "train", "a"), record(grey(1), 0, "test", "b"), record(grey(2), 0, name="c"))
    assert found.warnings == [
        'class "dog" has no training image.',
        "1 test images are copies of training images, which flatters every measurement (for instance a = b).",
    ]
    assert not found.fatal(skip=False)


def test_problems_stop_it_unless_each_may_be_skipped():
    sound = [record(grey(n), 0, part, str(n)) for n, part in enumerate(("train", "test"))]
    torn, twice = Problem("a", "is torn", "mend it"), Problem("b", "is there twice", "keep one", skippable=False)
    assert found_of(*sound, torn).fatal(skip=False) and not found_of(*sound, torn).fatal(skip=True)
    assert found_of(*sound, twice).fatal(skip=True)
    assert found_of(*sound[:1]).fatal(skip=True)  # nothing to test on


def test_one_class_is_told_to_be_unlabelled():
    found = found_of(record(grey(1)), record(grey(2), 0, "test"), class_names=("face",))
    assert "one class only" in found.warnings[0]


def test_a_sheet_of_many_classes_holds_few_images():
    items = [record(np.asarray(noise(n)), n % 100, name=str(n)) for n in range(3000)]
    found = found_of(*items, class_names=tuple(map(str, range(100))))
    assert len(found.sheet) == 20 * 10


@pytest.mark.parametrize(("broken", "flags", "code"), [(0, [], 0), (1, [], 1), (1, ["--on-bad-image", "skip"], 0)])
def test_the_command_tells_and_exits_so(tmp_path, broken, flags, code):
    root = good(tmp_path / "in")
    (root / "dog" / "11.png").write_bytes(png()[: -20 if broken else None])
    command = [sys.executable, "-c", "from privimage.cli import main; main()", "check-data", str(root), *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert f"{broken} problems" in done.stdout and "folder of class folders" in done.stdout
    assert ("problem: dog/11.png: cannot be decoded" in done.stdout) == bool(broken)
    assert "Traceback" not in done.stderr
    sheet = tmp_path / "contact-sheet.png"
    assert os.stat(sheet).st_mode & 0o777 == 0o600
    assert Image.open(sheet).size[0] > 200


def test_what_cannot_be_read_at_all_is_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.run(lambda: check_data.main([str(tmp_path / "absent")]))
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_an_unknown_source_is_refused_with_those_there_are(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.run(lambda: check_data.main([str(tmp_path), "--source", "mnits"]))
    assert "`source` is 'mnits'; expected one of auto, folder" in capsys.readouterr().err


def test_the_sheet_takes_no_image_s_place(tmp_path, capsys):
    root = good(tmp_path / "in")
    before = (root / "cat" / "00.png").read_bytes()
    for sheet, why in (
        (root / "cat" / "00.png", "lies among the images"),
        (root / "new.png", "lies among the images"),
        (tmp_path / "in", "lies among the images"),
        ("/dev/null", "is no file"),
    ):
        with pytest.raises(SystemExit):
            cli.run(lambda sheet=sheet: check_data.main([str(root), "--sheet", str(sheet)]))
        assert why in capsys.readouterr().err
    assert (root / "cat" / "00.png").read_bytes() == before and not (root / "new.png").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--source", "digits"], "source `digits` takes none"),
        (["--variant", "letters"], "only source `emnist` takes it"),
        (["--attribute", "Male"], "only source `celeba` takes it"),
    ],
)
def test_flags_that_do_not_fit_the_source_are_refused(tmp_path, capsys, flags, told):
    with pytest.raises(SystemExit):
        cli.run(lambda: check_data.main([str(good(tmp_path / "in")), *flags]))
    assert told in capsys.readouterr().err


def test_bytes_of_0_and_1_are_doubted():
    dark = [np.full((8, 8), n % 2, np.uint8) for n in range(10)]
    items = [record(dark[n], n % 2, "test" if n > 6 else "train", str(n)) for n in range(10)]
    assert any("10 of 10 images are bytes of 0 and 1" in warning for warning in found_of(*items).warnings)


@pytest.mark.parametrize("sheet", ["/proc/x/s.png", "/dev/null/s.png"])
@pytest.mark.parametrize("code", [0, 1])
def test_a_sheet_that_cannot_be_written_changes_no_exit_code(tmp_path, capsys, sheet, code):
    root = good(tmp_path / "in")
    if code:
        (root / "cat" / "bad.png").write_bytes(b"no image")
    assert cli.run(lambda: check_data.main([str(root), "--sheet", sheet])) == code
    out, err = capsys.readouterr()
    assert f"{code} problems, 0 warnings\nwarning: there is no contact sheet: " in out
    assert "cannot be written" in out and "error" not in err


def test_where_one_stands_among_the_images_no_sheet_is_written_unless_a_place_is_named(tmp_path, monkeypatch, capsys):
    root = good(tmp_path / "in")
    monkeypatch.chdir(root)
    assert cli.run(lambda: check_data.main(["."])) == 0
    assert capsys.readouterr().out.endswith(
        "no contact sheet was written, since contact-sheet.png lies among the images; `--sheet` names another place.\n"
    )
    assert cli.run(lambda: check_data.main([".", "--sheet", "../s.png"])) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "s.png"]
    assert sorted(path.name for path in root.iterdir()) == ["cat", "dog"]


def test_a_path_that_leads_back_to_itself_is_one_sentence(tmp_path, capsys):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(SystemExit):
        cli.run(lambda: check_data.main([str(tmp_path / "loop")]))
    assert capsys.readouterr().err.startswith("error: ")


def test_many_classes_without_images_are_told_in_few_lines():
    found = found_of(record(grey(1)), record(grey(2), 0, "test"), class_names=tuple(map(str, range(5000))))
    assert len(found.warnings) == 11
    assert found.warnings[-1] == "4989 more classes have no training image."
    assert len(check_data.told(found, "x").splitlines()) < 80
