import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from privimage.measurements import Curve
from privimage.reporting.figures import quality
from privimage.reporting.figures.attacks import distances_figure, roc_figure
from privimage.reporting.figures.budget import shares_figure
from privimage.reporting.figures.confusion import confusion_figure, recalls_figure, row_shares
from privimage.reporting.figures.curves import MAX_POINTS, curves_figure
from privimage.reporting.figures.quality import balance_figure, quality_figure
from privimage.reporting.figures.votes import MAX_BARS, strongest, votes_figure
from privimage.reporting.summary import Line

FEW = 4  # of them in figures that are slow to draw
HOSTILE = ["$x_{", "<script>alert(1)</script>", "--><b>", "a" * 200, "", "naïve\nline", "\\frac"]


def elements(svg: bytes) -> list[str]:
    return [element.tag.rpartition("}")[2] for element in ET.fromstring(svg).iter() if isinstance(element.tag, str)]


def line(method: str, epsilon: float | None, **metrics: float) -> Line:
    return Line(method, epsilon, epsilon, 2, {name: (value, 0.01) for name, value in metrics.items()})


LINES = [
    *(
        line(m, e, accuracy_cnn=0.5, fd_classifier=300 / e, precision_x=0.4, recall_x=0.3)
        for m in HOSTILE[:FEW]
        for e in (1, 9)
    ),
    line("real", None, accuracy_cnn=0.9),
]
CONFUSION = np.eye(len(HOSTILE)) * 5
FIGURES = {
    "votes": lambda: votes_figure(
        np.ones((7, 40)), HOSTILE, HOSTILE + [f"p{i}" for i in range(33)], {HOSTILE[1]: ["p1"]}
    ),
    "budget": lambda: shares_figure([(name, {"query": 0.1, "training": 0.9}, 1.0) for name in HOSTILE]),
    "quality": lambda: quality_figure(LINES, ["accuracy_cnn", "fd_classifier", "precision_x", "unknown"]),
    "balance": lambda: balance_figure(LINES, ["precision_x", "recall_x"]),
    "confusion": lambda: confusion_figure({name: CONFUSION for name in HOSTILE[:FEW]}, HOSTILE),
    "recalls": lambda: recalls_figure({name: CONFUSION for name in HOSTILE}, HOSTILE),
    "curves": lambda: curves_figure({(name, name): Curve(("step", name), ((0.0, 1.0),)) for name in HOSTILE[:FEW]}),
    "distances": lambda: distances_figure({name: {name: [0.0, 1.0]} for name in HOSTILE}),
    "roc": lambda: roc_figure([(name, (1.0, 1e-5), {name: [[0, 0], [1, 1]]}) for name in HOSTILE[:FEW]]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_takes_any_name_is_a_lone_picture_and_the_same_each_time(name):
    svg = FIGURES[name]()
    assert not {"script", "text", "a", "b", "foreignObject"} & set(elements(svg)) and "svg" in elements(svg)
    assert b'href="http' not in svg and all(
        reference.startswith((b"#", b"data:image/png")) for reference in re.findall(rb'href="([^"]*)"', svg)
    )
    assert svg == FIGURES[name]()


def test_votes_of_one_class_all_negative_are_drawn():
    assert b"<svg" in votes_figure(np.full((1, 3), -5.0), ["all"], ["x", "y", "z"], {})


def test_selected_classes_are_shown_first_and_no_class_shows_too_many():
    votes = np.array([5.0, 9, 1, 7, 0, 3])
    assert strongest(votes) == [1, 3, 0, 5, 2]
    assert 4 in strongest(votes, [4]) and strongest(votes, [4])[0] == 1
    assert len(strongest(np.arange(50.0), range(30))) == MAX_BARS
    assert set(strongest(np.arange(50.0), range(30))) == set(range(22, 30))


def test_the_true_votes_change_the_picture_only_where_they_are_given():
    noisy, names = np.array([[5.0, 2.0]]), ["x", "y"]
    plain = votes_figure(noisy, ["a"], names, {"a": ["x"]})
    assert plain != votes_figure(noisy, ["a"], names, {"a": ["x"]}, true=noisy + 1)


def bar_widths(svg: bytes, colour: str) -> list[float]:
    """Widths of the rectangles of a colour."""
    paths = re.findall(rf'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+)[^"]*"[^>]*style="fill: {colour}'.encode(), svg)
    return [abs(float(right) - float(left)) for left, right in paths]


def test_the_shares_of_a_bar_make_the_whole_bar():
    half = shares_figure([("a", {"choice of epochs": 0.25, "training": 0.75}, 1.0), ("all", {"training": 1.0}, 1.0)])
    three, four = bar_widths(half, "#0072b2")[:2]  # the other part is hatched, which has no colour of its own
    assert three / four == pytest.approx(0.75, abs=0.01)


def test_confusion_is_by_row_and_an_absent_class_is_no_division_by_zero():
    np.testing.assert_array_equal(row_shares(np.array([[3, 1], [0, 0]])), [[0.75, 0.25], [0, 0]])


def test_two_hundred_classes_stay_a_small_picture():
    counts = np.random.default_rng(0).integers(0, 50, (200, 200))
    names = [f"class {index}" for index in range(200)]
    panels = {"real": counts, "synthetic": counts}
    assert len(confusion_figure(panels, names)) < 300_000
    assert len(recalls_figure(panels, names)) < 300_000


def test_without_a_guarantee_nothing_is_excluded():
    curves = {"scratch": [[0, 0], [1, 1]]}
    assert b"#e8ebef" in roc_figure([("a", (1.0, 1e-5), curves)])
    assert b"#e8ebef" not in roc_figure([("a", None, curves)])


def test_curves_take_any_columns_and_stay_small():
    long = Curve(("step", "loss", "gradient norm"), tuple((float(i), 1 / (i + 1), 0.5) for i in range(20_000)))
    short = Curve(("step", "loss"), ((0.0, 1.0), (1.0, 0.5)))
    svg = curves_figure({("long $", "ε = 1"): long, ("short", "ε = 1"): short})
    assert len(svg) < 1000 * MAX_POINTS


def test_without_precision_there_is_nothing_to_weigh_against_recall():
    assert balance_figure(LINES, ["accuracy_cnn", "fd_classifier"]) is None


def test_numbers_on_a_logarithmic_axis_are_numbers(monkeypatch):
    monkeypatch.setattr(quality, "svg", lambda figure: figure)
    lines = [
        Line("m", epsilon, epsilon, 1, {"fd_classifier": (value, None)}) for epsilon, value in ((1, 92), (10, 2.8))
    ]
    figure = quality.quality_figure(lines, ["fd_classifier"])
    figure.draw_without_rendering()
    told = [tick.get_text() for tick in figure.axes[0].get_yticklabels(which="both") if tick.get_text()]
    assert {"5", "10", "50"} <= set(told) and all(float(text) > 0 for text in told)
