import xml.etree.ElementTree as ET

import numpy as np
import pytest

from privimage.measurements import Curve
from privimage.reporting.figures import (
    MAX_POINTS,
    MAX_PUBLIC_CLASSES,
    budget_figure,
    curves_figure,
    histogram_figure,
    strongest,
)

HOSTILE = ["$x_{", "<script>alert(1)</script>", "--><b>", "a" * 200, "", "naïve\nline", "\\frac"]


def elements(svg: bytes) -> list[str]:
    return [element.tag.rpartition("}")[2] for element in ET.fromstring(svg).iter() if isinstance(element.tag, str)]


def test_a_heatmap_takes_any_name_and_is_a_lone_picture():
    histogram = np.random.default_rng(0).normal(0, 10, (len(HOSTILE), 40))
    public = HOSTILE + [f"public {index}" for index in range(33)]
    svg = histogram_figure(histogram, HOSTILE, public, {HOSTILE[1]: [HOSTILE[2]]})
    found = elements(svg)
    assert "svg" in found
    assert not {"script", "text", "a", "b"} & set(found)
    assert b'href="http' not in svg


def test_a_heatmap_of_one_class_all_negative_is_drawn():
    assert b"<svg" in histogram_figure(np.full((1, 3), -5.0), ["all"], ["x", "y", "z"], {})


def test_the_strongest_public_classes_are_kept_and_grouped_by_sensitive_class():
    histogram = np.zeros((2, 50))
    histogram[0, [7, 3]] = 90, 100
    histogram[1, [40, 1]] = 80, 110
    shown = strongest(histogram)
    assert len(shown) == MAX_PUBLIC_CLASSES
    assert {3, 7, 40, 1} <= set(shown)
    assert [index for index in shown if index in (3, 7, 40, 1)] == [3, 7, 1, 40]


def test_selected_cells_are_framed():
    histogram, names = np.ones((2, 3)), ["a", "b"]
    without = histogram_figure(histogram, names, ["x", "y", "z"], {})
    framed = histogram_figure(histogram, names, ["x", "y", "z"], {"a": ["x", "y"], "b": ["z"]})
    assert framed.count(b"#d55e00") - without.count(b"#d55e00") == 3


def test_a_budget_shows_each_part_as_a_bar():
    two = budget_figure({"a": {"query": 0.3, "training": 0.8, "together": 0.9}})
    assert [two.count(colour) for colour in (b"#56b4e9", b"#e69f00", b"#0072b2")] == [1, 1, 1]
    assert "svg" in elements(budget_figure({"only": {"together": 1.0}}))


def test_curves_take_any_columns_and_stay_small():
    long = Curve(("step", "loss", "gradient norm"), tuple((float(i), 1 / (i + 1), 0.5) for i in range(20_000)))
    short = Curve(("step", "loss"), ((0.0, 1.0), (1.0, 0.5)))
    svg = curves_figure({"long $": long, "short": short})
    assert "svg" in elements(svg)
    assert len(svg) < 1000 * MAX_POINTS


@pytest.mark.parametrize("columns", [("step", "loss"), ("step", "a", "b", "c")])
def test_figures_are_the_same_each_time(columns):
    curve = Curve(columns, ((0.0,) * len(columns), (1.0,) * len(columns)))
    assert curves_figure({"run": curve}) == curves_figure({"run": curve})
