import re
from pathlib import Path

import pytest

import privimage
from privimage.reporting.metrics import BALANCE, KINDS, groups, heading, title, value_text


def test_metrics_are_grouped_so_that_no_table_is_too_wide():
    names = ["accuracy_cnn", "fd_classifier", "recall_inception", "membership_auc", "is_inception", "new"]
    assert groups(names) == {
        "Accuracy": ["accuracy_cnn"],
        "Distances": ["fd_classifier", "is_inception", "new"],
        "Precision and recall": ["recall_inception"],
        "Memorisation and attacks": ["membership_auc"],
    }
    assert groups([]) == {}


@pytest.mark.parametrize(
    "metric, told, head",
    [
        ("accuracy_wrn-28-10", "accuracy, wrn-28-10 in % ↑", ("wrn-28-10", "")),
        ("fd_classifier", "Fréchet distance, classifier ↓", ("Fréchet distance ↓", "classifier")),
        ("fid_inception_clean", "FID, inception_clean ↓", ("FID ↓", "inception_clean")),
        ("fd_classifier_gap", "generalisation gap, classifier", ("generalisation gap", "classifier")),
        ("unheard_of", "unheard_of", ("unheard_of", "")),
    ],
)
def test_what_metrics_are_called(metric, told, head):
    assert (title(metric), heading(metric)) == (told, head)


@pytest.mark.parametrize(
    "metric, value, text",
    [
        ("accuracy_cnn", (0.4321, 0.0123), "43.2 ± 1.2 %"),
        ("fd_x", (17.774, None), "17.77"),
        ("kd_x", (0.0234, 0.001), "0.023 ± 0.001"),
        ("recall_x", (0.5, None), "0.50"),
        ("fd_x", None, "-"),
    ],
)
def test_how_values_are_written(metric, value, text):
    assert value_text(metric, value) == text


def test_every_kind_of_a_distance_is_one_that_is_measured():
    """Its key is written as the beginning of a name somewhere in the stages and metrics."""
    root = Path(privimage.__file__).parent
    text = "".join(path.read_text() for folder in (root, root / "metrics") for path in folder.glob("*.py"))
    shown = {kind for kind in KINDS if kind not in (*BALANCE, "accuracy", "gap")}
    assert {kind for kind in shown if not re.search(rf"['\"]{kind}(_|['\"])", text)} == set()
