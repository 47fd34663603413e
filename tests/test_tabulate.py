"""Many releases as one table: a row a release with what was measured, means over seeds, ours beside the published."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import stdev

import pytest
from PIL import Image

from privimage import tabulate
from privimage.artifacts import Accountant, ArtifactError, PrivacyStatement, Provenance
from privimage.errors import UserError
from privimage.measurements import Accuracy, Quality
from privimage.privacy.event import Event
from privimage.reporting import study, summary

MADE = Provenance("test", 1)
TSV = "s\th:m:s\tmax_rss\n{}\t0:00:01\t100\n"


def write_release(folder: Path, method: str, seed: int, epsilon: float, logistic: float, cnn: float, fd: float) -> dict:
    """One release's measurements on disk, and the entry that names them."""
    folder = folder / f"{method}-{seed}-{epsilon}"
    folder.mkdir()
    statement = PrivacyStatement(
        *(
            epsilon - 1e-3,
            1e-5,
            epsilon,
            "add_or_remove_one",
            [Event("poisson_gaussian", 2.0, 0.1, 10)],
            2 * epsilon,
            1,
        ),
        *(epsilon, 100, [Accountant("pld", "1", epsilon)], True, ["tuning"], MADE),
    )
    statement.write(folder / "privacy.json")
    each = {"logistic": {"mean": logistic, "values": [logistic]}, "cnn": {"mean": cnn, "values": [cnn]}}
    Accuracy(each, (logistic + cnn) / 2, "last-epoch", 9, 9, MADE).write(folder / "accuracy.json")
    Quality("classifier", {"fd_classifier": fd, "recall_classifier": 0.5}, 9, 9, "train", MADE).write(folder / "q.json")
    (folder / "finetune.tsv").write_text(TSV.format(12.5))
    for shard in (0, 1):
        (folder / f"sample{shard}.tsv").write_text(TSV.format(2 + shard))
    return {
        **{"method": method, "seed": seed, "epsilon": epsilon, "privacy": str(folder / "privacy.json")},
        **{"accuracy": str(folder / "accuracy.json"), "quality": [str(folder / "q.json")]},
        "seconds": {
            "pretrain": [str(folder / "absent.tsv")],
            "finetune": [str(folder / "finetune.tsv")],
            "sample": [str(folder / "sample0.tsv"), str(folder / "sample1.tsv")],
        },
    }


@pytest.fixture
def entries(tmp_path) -> list[dict]:
    return [
        write_release(tmp_path, "privimage", 0, 1.0, 0.5, 0.7, 3.0),
        write_release(tmp_path, "privimage", 1, 1.0, 0.6, 0.8, 5.0),
        write_release(tmp_path, "scratch", 0, 10.0, 0.2, 0.4, 9.0),
    ]


def ran(monkeypatch, *args: str | Path) -> None:
    monkeypatch.setattr("sys.argv", ["tabulate", "--dataset", "d", *map(str, args)])
    tabulate.main()


def test_the_table_has_a_row_a_release_with_what_was_measured(entries, tmp_path, monkeypatch, capsys):
    ran(monkeypatch, "--cells", json.dumps(entries), "--table", tmp_path / "table.csv")
    head, *body = csv.reader((tmp_path / "table.csv").open())
    assert head == [
        *("dataset", "method", "seed", "epsilon", "epsilon_spent", "protocol", "accuracy_logistic", "accuracy_cnn"),
        *("accuracy_mean", "fd_classifier", "recall_classifier", "seconds_pretrain", "seconds_finetune"),
        "seconds_sample",
    ]
    assert body[0] == [
        "d",
        "privimage",
        "0",
        "1",
        "0.999",
        "last-epoch",
        "0.5",
        "0.7",
        "0.6",
        "3",
        "0.5",
        "",
        "12.5",
        "5",
    ]
    assert [row[1:4] for row in body] == [["privimage", "0", "1"], ["privimage", "1", "1"], ["scratch", "0", "10"]]
    for read, made in zip(summary.read_summary(tmp_path / "table.csv"), tabulate.run("d", entries), strict=True):
        assert read == {key: pytest.approx(value) for key, value in made.items()}
    text = capsys.readouterr().out
    assert "ε = 1" in text and "65.0 ± 7.1 %" in text and "4.00 ± 1.41" in text  # over two seeds
    assert "30.0 ± 14.1 %" in text  # of one seed, over its classifiers


def test_means_are_over_seeds_and_of_one_seed_over_classifiers(entries):
    rows = tabulate.run("d", entries)
    mean, deviation = study.spread(rows[:2], "accuracy_mean")
    assert (mean, deviation) == (pytest.approx(0.65), pytest.approx(stdev([0.6, 0.7])))
    assert study.spread(rows[2:], "accuracy_mean") == (pytest.approx(0.3), pytest.approx(stdev([0.2, 0.4])))
    assert study.spread(rows[2:], "fd_classifier") == (9.0, None) and study.spread(rows, "fid_inception") is None


def test_an_ablation_has_its_value_beside_each_release_and_a_picture(entries, tmp_path, monkeypatch, capsys):
    varied = [{**entry, "value": value} for entry, value in zip(entries, (True, True, [1, 2]))]
    files = ("--table", tmp_path / "a.csv", "--figure", tmp_path / "a.png")
    ran(monkeypatch, "--cells", json.dumps(varied), "--setting", "pretrain.conditional", *files)
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert [(row["setting"], row["value"]) for row in rows] == [
        *[("pretrain.conditional", "true")] * 2,
        ("pretrain.conditional", "[1, 2]"),
    ]
    assert Image.open(tmp_path / "a.png").size[0] > 500
    assert "pretrain.conditional" in capsys.readouterr().out
    first = (tmp_path / "a.png").read_bytes()
    ran(monkeypatch, "--cells", json.dumps(varied), "--setting", "pretrain.conditional", *files)
    assert (tmp_path / "a.png").read_bytes() == first


def test_a_set_of_one_class_has_distances_alone(entries):
    (row,) = tabulate.run("d", [{key: value for key, value in entries[0].items() if key != "accuracy"}])
    assert study.shown(summary.metrics_of([row])) == ["fd_classifier"] and "fd" not in row
    assert "Fréchet distance" in study.grid([row]) and "accuracy" not in study.grid([row]).split("\n", 1)[1]


def test_where_epsilon_varies_each_is_a_line(entries):
    rows = tabulate.run("d", [{**entry, "value": entry["epsilon"]} for entry in entries], "epsilon")
    lines = [" ".join(line.split()) for line in study.grid(rows).splitlines()]
    assert {"epsilon mean", "1.0 65.0 ± 7.1 %", "10.0 30.0 ± 14.1 %"} <= set(lines)


PUBLISHED = """\
experiment,dataset,method,epsilon,metric,value,source
paper,d,privimage,1,accuracy_cnn,0.688,somebody
paper,d,dpgan,1,accuracy_cnn,0.1,somebody
paper,d,real,,accuracy_cnn,0.9,somebody
paper,other,privimage,1,accuracy_cnn,0.3,somebody
"""


def test_ours_stand_beside_the_published_numbers_and_what_is_missing_is_a_dash(entries, tmp_path, monkeypatch, capsys):
    (tmp_path / "published.csv").write_text(PUBLISHED)
    ran(monkeypatch, "--cells", json.dumps(entries), "--table", tmp_path / "t.csv")
    capsys.readouterr()
    twice = ("--tables", tmp_path / "t.csv", tmp_path / "t.csv")  # a release may stand in an ablation's table too
    ran(monkeypatch, *twice, "--published", tmp_path / "published.csv", "--paper", tmp_path / "paper.csv")
    rows = list(csv.DictReader((tmp_path / "paper.csv").open()))
    assert tuple(rows[0]) == study.COMPARED
    assert [(r["method"], r["published"], r["ours"], r["seeds"]) for r in rows[:3]] == [
        ("privimage", "0.688", "0.75", "2"),
        ("dpgan", "0.1", "", ""),
        ("real", "0.9", "", ""),
    ]
    assert {r["metric"] for r in rows[3:]} == {"accuracy_logistic", "accuracy_cnn", "accuracy_mean", "fd_classifier"}
    assert all(r["published"] == "" and r["ours"] for r in rows[3:]) and "other" not in {r["dataset"] for r in rows}
    lines = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()) for line in lines if line.startswith(("privimage", "dpgan"))][:2] == [
        "privimage 1 accuracy_cnn 68.8 % 75.0 ± 7.1 % 2",
        "dpgan 1 accuracy_cnn 10.0 % - -",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"secret": 1}, "keys"), ({"value": 1}, "keys"), ({"epsilon": 2.0}, "is for epsilon 1; expected 2")],
)
def test_an_entry_that_is_wrong_is_refused(entries, change, words):
    with pytest.raises((UserError, ArtifactError), match=words):
        tabulate.run("d", [{**entries[0], **change}])


def test_flags_of_one_table_alone(monkeypatch, tmp_path):
    for args in (
        ("--cells", "[]"),
        ("--cells", "[]", "--table", "t", "--paper", "p"),
        ("--cells", "[]", "--table", "t", "--setting", "s"),
        ("--cells", "[]", "--table", "t"),
    ):
        with pytest.raises(UserError):
            ran(monkeypatch, *args)


def test_published_numbers_with_other_columns_are_refused(tmp_path):
    (tmp_path / "p.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ArtifactError, match="expected experiment, dataset"):
        study.read_published(tmp_path / "p.csv")
