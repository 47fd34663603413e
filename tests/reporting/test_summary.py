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


def test_the_table_is_aligned():
    accuracies, distances = (table.splitlines() for table in table_text(ROWS).partition("\n")[2].split("\n\n"))
    assert [len({len(line) for line in table}) for table in (accuracies, distances)] == [1, 1]
    assert "85.0 ± 7.1 %" in accuracies[3] and "real" in accuracies[4]
    assert "3.00" in distances[3] and len(distances) == 4  # real images have no distance to themselves


def test_what_is_no_summary_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="summary"):
        read_summary(tmp_path / "absent.csv")
