"""The workflow itself, run on names that a shell, a pattern of Snakemake or a browser would take for something else."""

import csv
import json
import os
import re
import subprocess
import sys

import pytest
from bad_inputs import png
from checkout import TOY, copy_project, snakemake

pytestmark = pytest.mark.slow
NAMES = (
    "$(touch owned)",
    "it's; `touch owned` &",
    "</script><script>alert(4711);//",
    "=1+1|' x'!A0",
    "-rf *",
    "{dataset}",
)
FOLDER = 'a b\'; touch owned; $(touch owned) `touch owned` "{dataset}" #'
STATE = "st ate'; touch owned; $(touch owned) `touch owned` \" #"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose configuration names such a folder, such classes and such a state directory."""
    root = copy_project(tmp_path_factory.mktemp("project"))
    (root / FOLDER).mkdir()
    with open(root / FOLDER / "labels.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label"])
        for index in range(30 * len(NAMES)):
            (root / FOLDER / f"{index}.png").write_bytes(png(index))
            rows.writerow([f"{index}.png", NAMES[index % len(NAMES)]])
    toy = (root / "tests/toy.yaml").read_text().replace("  digits:\n", "  own:\n", 1)
    row = {
        "public": "glyphs8", "source": "folder", "path": FOLDER, "num_images": 144, "delta": 1e-3, "budget": 1e6,
        "class_names": NAMES,
    }  # fmt: skip
    lines = "".join(f"    {key}: {json.dumps(value)}\n" for key, value in row.items())
    toy = toy.replace("  own:\n", f"  own:\n{lines}", 1).replace("run:\n", "run:\n  datasets: [own]\n", 1)
    (root / "tests/toy.yaml").write_text(f"state_dir: {json.dumps(STATE)}\n{toy}")
    return root


def owned(root):
    return [path for path in root.rglob("owned*") if path.parent.name != STATE]


def test_a_whole_run_takes_them_for_names(project):
    before = {path.name for path in project.iterdir()}
    done = snakemake(project, "--cores", "2", *TOY, timeout=900)
    assert done.returncode == 0, done.stdout[-5000:]
    assert owned(project) == [] and {path.name for path in project.iterdir()} - before <= {STATE, ".snakemake"}
    assert (project / STATE / "own/odometer.jsonl").exists()
    page = (project / "results/own/internal/report.html").read_text()
    assert "<script" not in page and "&lt;/script&gt;&lt;script&gt;alert(4711)" in page
    cards = list((project / "results/own").rglob("release/README.md"))
    assert len(cards) == 2 and not [card for card in cards if "<script" in card.read_text()]


def test_neither_does_status_nor_snakemakes_own_report(project):
    test_a_whole_run_takes_them_for_names(project)
    environment = {**os.environ, "PRIVIMAGE_STATUS": "$(touch owned)`touch owned`"}
    told = subprocess.run(
        [sys.executable, "-c", "from privimage.cli import main; main()", "status", "results", "--state-dir", STATE],
        cwd=project, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    done = snakemake(project, "--report", "report.html", *TOY)
    assert done.returncode == 0, done.stdout[-3000:]
    page = (project / "report.html").read_text()
    assert "alert(4711)" in page and not re.search(r"</?script>\s*alert\(4711\)", page) and owned(project) == []


@pytest.mark.parametrize(
    "target",
    [
        "results/$(touch owned)/report.html",
        "results/own;touch owned/report.html",
        "results/own/`touch owned`/seed0/subset.json",
        "results/own/privimage/seed0/eps1$(touch owned)/privacy.json",
        "results/own/query/default.json\ntouch owned",
        "results/../owned/report.html",
        "-rf",
    ],
)
def test_targets_are_only_what_the_configuration_names(project, target):
    done = snakemake(project, "--cores", "1", *TOY, "--", target)
    assert done.returncode and owned(project) == [], done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "run: !!python/object/apply:os.system ['touch owned']",
        "run: !!python/object/new:os.system ['touch owned']",
        "run: !!python/name:os.system",
        "run: !!python/module:os",
        'run: {datasets: [\'?__import__("os").system("touch owned")\']}',
        "? !!python/tuple [a]\n: 1",
        "run: &a [*a]",
    ],
)
def test_tags_of_a_configuration_are_refused(project, tmp_path, text):
    (tmp_path / "hostile.yaml").write_text(text)
    done = snakemake(project, "--cores", "1", "--dry-run", *TOY, str(tmp_path / "hostile.yaml"))
    assert done.returncode and owned(project) == [], done.stdout
    assert not (tmp_path / "owned").exists()


def test_a_configuration_that_asks_to_be_a_program_is_one(project, tmp_path):
    """Snakemake evaluates it before any line of ours is read; SECURITY.md says so. If this fails, mend that page."""
    marker = tmp_path / "executed"
    (tmp_path / "hostile.yaml").write_text(f"__use_yte__: true\n?__import__('os').mkdir({str(marker)!r}): 1\n")
    snakemake(project, "--cores", "1", "--dry-run", *TOY, str(tmp_path / "hostile.yaml"))
    assert marker.exists()


def test_no_configuration_of_ours_is_a_program(project):
    files = [*project.glob("config/*.yaml"), *project.glob("profiles/**/*.yaml"), project / "tests/toy.yaml"]
    assert len(files) > 8 and not [path for path in files if "use_yte" in path.read_text()]
