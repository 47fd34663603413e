import pytest

from privimage.reporting.metrics import groups, heading, title, value_text


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
