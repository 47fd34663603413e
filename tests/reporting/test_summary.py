import pytest

from privimage.artifacts import ArtifactError
from privimage.reporting.summary import lines_of, read_summary, table_text, write_summary

ROWS = [
    {"dataset": "d", "method": "real", "seed": 0, "accuracy_cnn": 0.98},
    {"dataset": "d", "method": "b", "seed": 0, "epsilon": 10.0, "epsilon_spent": 9.9, "accuracy_cnn": 0.8, "fd": 3.0},
    {"dataset": "d", "method": "b", "seed": 1, "epsilon": 10.0, "epsilon_spent": 9.8, "accuracy_cnn": 0.9, "fd": None},
    {"dataset": "d", "method": "b", "seed": 0, "epsilon": 1.0, "epsilon_spent": 0.9, "accuracy_cnn": 0.5, "fd": 7.0},
]


def test_seeds_are_averaged_and_the_reference_stands_last():
    lines = lines_of(ROWS)
    assert [(line.method, line.epsilon, line.seeds) for line in lines] == [
        ("b", 1.0, 1),
        ("b", 10.0, 2),
        ("real", None, 1),
    ]
    assert lines[1].metrics["accuracy_cnn"] == pytest.approx((0.85, 0.005**0.5))
    assert lines[1].metrics["fd"] == (3.0, None)
    assert lines[1].epsilon_spent == 9.9
    assert lines[2].is_reference


def test_a_summary_reads_back_as_it_was_written(tmp_path):
    write_summary(tmp_path / "summary.csv", ROWS)
    again = read_summary(tmp_path / "summary.csv")
    assert lines_of(again) == lines_of(ROWS)
    assert table_text(again) == table_text(ROWS)


def test_the_first_table_has_accuracies_and_frechet_distances_and_is_aligned():
    lines = table_text(ROWS).splitlines()[1:]
    assert lines[0].split() == ["method", "epsilon", "spent", "seeds", "cnn", "fd"]
    assert len({len(line) for line in lines}) == 1 and len(lines) == 5
    assert "85.0 ± 7.1 %" in lines[3] and lines[3].endswith(" 3.00") and lines[4].startswith("real ")


def test_other_tables_say_what_was_measured_with_once_and_leave_out_the_reference():
    more = {"kd_classifier": 0.25, "fd_classifier_gap": 0.5, "kid_inception": 0.125, "membership_auc": 0.5}
    _, *tables = table_text([ROWS[0], *({**row, **more} for row in ROWS[1:])]).split("\n\n")
    heads = [table.splitlines()[:2] for table in tables]
    assert [(name, head.split()) for name, head in heads] == [
        ("in the features of classifier", ["method", "epsilon", "kd", "fd_gap"]),
        ("in the features of inception", ["method", "epsilon", "kid"]),
        ("copies and membership", ["method", "epsilon", "membership,", "area"]),
    ]
    assert [len(table.splitlines()) for table in tables] == [5, 5, 5]  # two heads, a rule, two releases


def test_what_does_not_fit_into_a_line_goes_into_a_table_below():
    many = {f"accuracy_classifier{i}": 0.5 + i / 100 for i in range(12)}
    rows = [{**row, **many} for row in ROWS]
    text = table_text(rows)
    assert max(map(len, text.splitlines()[1:])) <= 100
    assert [sum(line.startswith(word) for line in text.splitlines()) for word in ("method", "b", "real")] == [3, 6, 3]
    assert all(text.count(f"classifier{i} ") + text.count(f"classifier{i}\n") == 1 for i in range(12))


def test_what_is_no_summary_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="summary"):
        read_summary(tmp_path / "absent.csv")


def test_a_result_that_was_selected_on_test_images_is_stamped():
    row = {"dataset": "d", "method": "m", "seed": 0, "epsilon": 1.0, "epsilon_spent": 1.0, "accuracy_mean": 0.5}
    assert "NOT VALID: oracle (x)" in table_text([row | {"protocol": "oracle (x)"}])
    assert "NOT VALID" not in table_text([row | {"protocol": "last-epoch"}])
