"""What a setting does: its values against accuracy and distance, a point a seed and a line through the means."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from privimage.reporting.figures.style import RULE, WIDTH, legend_below, png, series, short, styled
from privimage.reporting.metrics import scale, title
from privimage.reporting.summary import Row
from privimage.rows import epsilon_label


def ablation_figure(setting: str, rows: Sequence[Row], metrics: Sequence[str]) -> bytes:
    """A panel a metric as PNG: the rows' ``value`` across, in their order, evenly spaced; a line an epsilon."""
    values = list(dict.fromkeys(row["value"] for row in rows))
    varied = setting == "epsilon"
    epsilons = [None] if varied else sorted({row["epsilon"] for row in rows})
    with styled():
        figure = Figure(figsize=(WIDTH * max(1, len(metrics)) / 2, 3.0), layout="constrained")
        for place, metric in enumerate(metrics, 1):
            axes = figure.add_subplot(1, len(metrics), place)
            for number, epsilon in enumerate(epsilons):
                own = [row for row in rows if epsilon in (None, row["epsilon"]) and row.get(metric) is not None]
                label = None if epsilon is None else f"ε = {epsilon_label(epsilon)}"
                _draw(axes, values, own, metric, label, series(number))
            axes.set_xticks(range(len(values)), [short(value, 14) for value in values])
            axes.set_xlabel(setting)
            axes.set_title(title(metric))
            axes.grid(color=RULE, linewidth=0.6, axis="y")
        legend_below(figure)
        return png(figure)


def _draw(
    axes: Axes, values: list[str], rows: Sequence[Row], metric: str, label: str | None, style: dict[str, Any]
) -> None:
    found = {value: [scale(metric) * row[metric] for row in rows if row["value"] == value] for value in values}
    points = [(place, y) for place, value in enumerate(values) for y in found[value]]
    means = [(place, fmean(found[value])) for place, value in enumerate(values) if found[value]]
    if points:
        axes.plot(*zip(*points), linestyle="", alpha=0.5, markersize=4, **style)
        axes.plot(*zip(*means), color=style["color"], linewidth=1.4, label=label)
