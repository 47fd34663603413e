"""Whether synthetic images or the model betray training images: distances to them, and a membership attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from privimage.metrics.roc import permitted
from privimage.reporting.figures.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    RED,
    RULE,
    SERIES,
    WIDTH,
    legend_below,
    short,
    styled,
    svg,
)

DISTANCES = {
    "synthetic_to_train": ("synthetic image to the nearest training image", BLUE, "-"),
    "synthetic_to_test": ("synthetic image to the nearest test image", RED, "--"),
    "test_to_train": ("test image to the nearest training image", GREEN, ":"),
}
Roc = Sequence[Sequence[float]]


def distances_figure(panels: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """A panel a release: which share of images has a nearest neighbour within each distance.

    Each panel maps a name of ``DISTANCES`` to quantiles, evenly spaced from 0 to 100 %.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with styled():
        figure = Figure(figsize=(WIDTH if columns > 1 else 5.0, 0.6 + 2.2 * rows), layout="constrained")
        for place, (name, distances) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(rows, columns, place)
            for kind, quantiles in distances.items():
                label, colour, dash = DISTANCES.get(kind, (kind, MUTED, "-."))
                shares = np.linspace(0, 100, len(quantiles))
                axes.plot(quantiles, shares, label=label, color=colour, linestyle=dash, linewidth=1.5)
            axes.set_title(short(name, 44))
            axes.set_xlabel("distance")
            axes.set_ylabel("% of images within it")
            axes.set_xlim(left=0)
            axes.grid(color=RULE, linewidth=0.6)
        legend_below(figure, columns=2 if columns > 1 else 1)
        return svg(figure)


def roc_figure(panels: Sequence[tuple[str, tuple[float, float] | None, Mapping[str, Roc]]]) -> bytes:
    """A panel an epsilon: the attack's curve on each method, and the area that (epsilon, delta) excludes.

    ``panels`` holds title, (epsilon, delta) or None where no guarantee excludes anything, and the points
    [false-positive rate, true-positive rate] by method.
    """
    methods = list(dict.fromkeys(method for *_, curves in panels for method in curves))
    columns = min(3 if len(panels) > 2 else 2, len(panels))
    rows, side = -(-len(panels) // columns), min(WIDTH / columns, 3.4)
    with styled():
        figure = Figure(figsize=(side * columns, 0.6 + (side + 0.05) * rows), layout="constrained")
        for place, (name, limit, curves) in enumerate(panels, 1):
            axes = figure.add_subplot(rows, columns, place)
            if limit:
                _draw_limit(axes, *limit)
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":", label="guessing")
            for method, points in curves.items():
                index = methods.index(method)
                dash = ("-", "-.", (0, (4, 1.5)), (0, (1, 1)))[index % 4]
                x, y = np.asarray(points, dtype=float).T
                axes.plot(x, y, label=short(method), color=SERIES[index % len(SERIES)], linestyle=dash, linewidth=1.4)
            axes.set_title(short(name))
            axes.set_xlabel("false-positive rate")
            axes.set_ylabel("true-positive rate" if (place - 1) % columns == 0 else "")
            axes.set_aspect("equal")
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1.005)
        legend_below(figure, columns=4)
        return svg(figure)


def _draw_limit(axes: Axes, epsilon: float, delta: float) -> None:
    x = np.concatenate([[0], np.geomspace(1e-7, 1, 200)])
    limit = [permitted(false_positives, epsilon, delta) for false_positives in x]
    axes.fill_between(x, limit, 1.005, color="#e8ebef", linewidth=0, label="excluded by (ε, δ)")
    axes.plot(x, limit, color=INK, linestyle="--", linewidth=1)
