"""How good the images are: metrics against epsilon, and what is gained of precision against what is lost of recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from privimage.reporting.figures.style import INK, RULE, WIDTH, legend_below, series, short, styled, svg
from privimage.reporting.metrics import scale, title
from privimage.reporting.summary import Line
from privimage.rows import epsilon_label

PANELS = 3  # a row
PAIRS = (("precision", "recall"), ("density", "coverage"))
STEEP = 20  # values that far apart are drawn on a logarithmic axis
Points = list[tuple[float, float, float]]


def quality_figure(lines: Sequence[Line], metrics: Sequence[str]) -> bytes:
    """A panel a metric over epsilon: mean and standard deviation of each method, a dashed line for the reference."""
    methods = _methods(lines)
    columns, rows = min(PANELS, len(metrics)), -(-len(metrics) // PANELS)
    with styled():
        figure = Figure(
            figsize=(WIDTH * columns / PANELS + 0.4 * (columns < PANELS), 0.6 + 1.9 * rows), layout="constrained"
        )
        for place, metric in enumerate(metrics, 1):
            axes = figure.add_subplot(rows, columns, place)
            _draw_metric(axes, lines, metric, methods)
        legend_below(figure, columns=min(4, columns + 1))
        return svg(figure)


def balance_figure(lines: Sequence[Line], metrics: Sequence[str]) -> bytes | None:
    """Precision against recall and density against coverage: a point a method and epsilon, its epsilon beside it."""
    networks = dict.fromkeys(m.partition("_")[2] for m in metrics if m.startswith(("precision_", "density_")))
    panels = [(*pair, network) for network in networks for pair in PAIRS if f"{pair[0]}_{network}" in metrics]
    if not panels:
        return None
    rows = -(-len(panels) // 2)
    with styled():
        figure = Figure(figsize=(WIDTH if len(panels) > 1 else WIDTH / 2, 0.5 + 3.2 * rows), layout="constrained")
        for place, (down, across, network) in enumerate(panels, 1):
            axes = figure.add_subplot(rows, min(2, len(panels)), place)
            for method, style in _methods(lines).items():
                _draw_path(axes, _path(lines, method, f"{across}_{network}", f"{down}_{network}"), short(method), style)
            axes.set_xlabel(f"{across}: share of real images that are met" if across == "recall" else across)
            axes.set_ylabel(f"{down}: share of good images" if down == "precision" else down)
            axes.set_title(f"{down} and {across}, features: {short(network, 20)}")
            axes.margins(0.2)
            axes.grid(color=RULE, linewidth=0.6)
        legend_below(figure)
        return svg(figure)


def _methods(lines: Sequence[Line]) -> dict[str, dict[str, str]]:
    names = dict.fromkeys(line.method for line in lines if not line.is_reference)
    return {name: series(index) for index, name in enumerate(names)}


def _draw_metric(axes: Axes, lines: Sequence[Line], metric: str, methods: Mapping[str, dict[str, str]]) -> None:
    drawn: list[float] = []
    for index, (method, style) in enumerate(methods.items()):
        points = _points(lines, method, metric, 1.03 ** (index - (len(methods) - 1) / 2))
        if points:
            x, y, spread = zip(*points, strict=True)
            drawn += y
            look = {"linewidth": 1.2, "markersize": 4.5, "capsize": 2.5, **style}
            axes.errorbar(x, y, yerr=spread if any(spread) else None, label=short(method), **look)
    for line in lines:
        if line.is_reference and metric in line.metrics:
            level = scale(metric) * line.metrics[metric][0]
            axes.axhline(level, color=INK, linestyle=(0, (5, 3)), linewidth=1.1, label="trained on real images")
    epsilons = sorted({line.epsilon for line in lines if line.epsilon is not None})
    axes.set_xscale("log")
    axes.set_xticks(epsilons, [epsilon_label(epsilon) for epsilon in epsilons])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(epsilons[0] / 1.35, epsilons[-1] * 1.35)
    if drawn and min(drawn) > 0 and max(drawn) > STEEP * min(drawn):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")  # the default writes formulas, which are not set here
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("ε", labelpad=1)
    axes.set_title(title(metric))
    axes.grid(axis="y", color=RULE, linewidth=0.6)


def _points(lines: Sequence[Line], method: str, metric: str, shift: float) -> Points:
    """Epsilon, mean and deviation, the epsilons shifted a little so that error bars do not hide each other."""
    found = [line for line in lines if line.method == method and metric in line.metrics]
    return [
        (line.epsilon * shift, scale(metric) * mean, scale(metric) * (deviation or 0.0))
        for line in found
        for mean, deviation in [line.metrics[metric]]
    ]


def _path(lines: Sequence[Line], method: str, across: str, down: str) -> list[tuple[str, float, float]]:
    return [
        (epsilon_label(line.epsilon), line.metrics[across][0], line.metrics[down][0])
        for line in lines
        if line.method == method and across in line.metrics and down in line.metrics
    ]


def _draw_path(axes: Axes, path: Sequence[tuple[str, float, float]], method: str, style: Mapping[str, Any]) -> None:
    if not path:
        return
    labels, x, y = zip(*path, strict=True)
    axes.plot(x, y, label=method, linewidth=0.8, markersize=5.5, markeredgecolor="w", markeredgewidth=0.5, **style)
    for label, at, height in path:
        axes.annotate(label, (at, height), (4, 3), textcoords="offset points", fontsize=7, color=style["color"])
