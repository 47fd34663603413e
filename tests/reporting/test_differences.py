"""Differences to the first method: paired by seed, with the standard error of their mean, at each epsilon."""

import io
from math import sqrt
from statistics import stdev

import pytest
from PIL import Image

from privimage.reporting.differences import differences, differences_text
from privimage.reporting.figures.differences import differences_figure


def row(method, seed, epsilon, accuracy, seconds=None, fd=None):
    made = {"dataset": "d", "method": method, "seed": seed, "epsilon": epsilon, "accuracy_mean": accuracy}
    return made | {"seconds_finetune": seconds, "seconds_sample": 1.0 if seconds else None, "fd_classifier": fd}


ROWS = [
    *(row("base", seed, 1.0, accuracy, 10.0, 3.0) for seed, accuracy in ((0, 0.5), (1, 0.7), (2, 0.6))),
    *(row("lever", seed, 1.0, accuracy, 16.0, 2.0) for seed, accuracy in ((1, 0.75), (0, 0.6), (2, 0.6))),
    row("base", 0, 10.0, 0.9),
    row("lever", 0, 10.0, 0.8),
    row("lone", 5, 10.0, 0.4),
]


def found(method, epsilon, metric="accuracy_mean"):
    (one,) = [r for r in differences(ROWS) if (r["method"], r["epsilon"], r["metric"]) == (method, epsilon, metric)]
    return one


def test_seeds_are_compared_pair_by_pair_whatever_their_order():
    gains = [0.1, 0.05, 0.0]
    one = found("lever", 1.0)
    assert one["difference"] == pytest.approx(sum(gains) / 3)
    assert one["error"] == pytest.approx(stdev(gains) / sqrt(3))
    assert (one["seeds"], one["mean"]) == (3, pytest.approx(0.65))


def test_a_seed_that_the_first_method_lacks_is_in_no_number():
    more = [*ROWS, row("lever", 9, 1.0, 0.0)]
    (one,) = [
        r for r in differences(more) if (r["method"], r["epsilon"], r["metric"]) == ("lever", 1.0, "accuracy_mean")
    ]
    assert (one["mean"], one["seeds"]) == (pytest.approx(0.65), 3)


def test_a_single_seed_has_no_error_and_a_method_without_a_partner_no_difference():
    assert found("lever", 10.0)["difference"] == pytest.approx(-0.1) and found("lever", 10.0)["error"] is None
    assert (found("lone", 10.0)["difference"], found("lone", 10.0)["mean"]) == (None, 0.4)
    assert found("base", 1.0)["difference"] is None


def test_seconds_are_those_of_all_stages_and_what_a_method_takes_more():
    assert (found("lever", 1.0)["seconds"], found("lever", 1.0)["more_seconds"]) == (17.0, 6.0)
    assert found("lever", 10.0)["seconds"] is None and found("lever", 10.0)["more_seconds"] is None


def test_the_text_has_points_of_accuracy_and_distances_as_they_are():
    lines = [line.split() for line in differences_text(differences(ROWS)).splitlines()]
    assert ["base", "60.0", "90.0"] in lines
    assert ["lever", "+5.0", "±", "2.9", "-10.0"] in lines
    assert ["lone", "-", "40.0"] in lines
    assert ["lever", "-1.00", "±", "0.00", "-"] in lines


def test_the_picture_has_a_panel_a_metric_whatever_is_missing():
    found = differences(ROWS)
    picture = Image.open(io.BytesIO(differences_figure(found, "base", ["accuracy_mean", "fd_classifier"])))
    assert picture.size[0] > 1000
    assert differences_figure([row for row in found if row["method"] == "base"], "base", ["accuracy_mean"])
