"""Which classes are mistaken for which, by classifiers trained on synthetic and on real images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from privimage.reporting.figures.style import INK, MUTED, RULE, SHARES, WIDTH, legend_below, series, short, styled, svg

NAMED = 20  # classes whose names fit beside a panel
COUNTED = 12  # classes whose shares fit into the cells
MAX_RECALLS = 30


def confusion_figure(panels: Mapping[str, np.ndarray], class_names: Sequence[str]) -> bytes:
    """A panel a training set: the share of each real class that is taken for each class, rows adding up to one.

    Shapes: each panel counts [class, predicted class].
    """
    columns = min(2 if len(class_names) > 4 else 3, len(panels))
    rows = -(-len(panels) // columns)
    names = [short(name, 14) for name in class_names]
    margin = 0.07 * max(map(len, names)) if len(names) <= NAMED else 0.2
    side = WIDTH / columns if columns > 1 else 4.4
    with styled():
        figure = Figure(figsize=(side * columns, rows * (side - 0.1)), layout="constrained")
        for place, (name, counts) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(rows, columns, place)
            _draw_shares(axes, row_shares(counts), names, upright=margin > 0.25)
            axes.set_title(short(name, 44), fontsize=8.5)
        return svg(figure)


def recalls_figure(panels: Mapping[str, np.ndarray], class_names: Sequence[str]) -> bytes:
    """The share of each class that is recognised, a mark a training set; the first panel, of real images, is a ring.

    Of many classes those are shown that are recognised worst.

    Shapes: each panel counts [class, predicted class].
    """
    recalls = {name: np.diagonal(row_shares(counts)) for name, counts in panels.items()}
    others = list(recalls.values())[1:] or list(recalls.values())
    worst = np.argsort(np.mean(others, axis=0), kind="stable")[:MAX_RECALLS]
    shown = worst if len(class_names) > MAX_RECALLS else np.arange(len(class_names))
    places = np.arange(len(shown))
    with styled():
        figure = Figure(figsize=(WIDTH, 0.8 + 0.2 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        for index, (name, values) in enumerate(recalls.items()):
            real = {"color": "none", "marker": "o", "markeredgecolor": INK, "markersize": 8, "markeredgewidth": 1.3}
            look = real if index == 0 else {**series(index - 1), "markersize": 5, "alpha": 0.9}
            axes.plot(100 * values[shown], places, linestyle="", label=short(name, 44), **look)
        axes.set_yticks(places, [short(class_names[index], 30) for index in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("% of the real test images of the class that are recognised")
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(color=RULE, linewidth=0.6)
        axes.set_axisbelow(True)
        legend_below(figure, columns=2)
        return svg(figure)


def row_shares(counts: np.ndarray) -> np.ndarray:
    """Each row as shares of its sum; a class without images is all zero. Shapes: [class, predicted class]."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _draw_shares(axes: Axes, shares: np.ndarray, names: Sequence[str], *, upright: bool) -> None:
    faint = 1 if len(names) <= NAMED else 0.4  # many classes: what is rare is made visible
    axes.imshow(shares, cmap=SHARES, norm=PowerNorm(faint, vmin=0, vmax=1), interpolation="nearest")
    axes.set_xlabel("taken for", labelpad=2)
    axes.set_ylabel("real class", labelpad=2)
    axes.spines[:].set_visible(True)
    axes.tick_params(length=0, labelcolor=INK, labelsize=7.5)
    if len(names) <= NAMED:
        axes.set_xticks(range(len(names)), names, rotation=90 if upright else 0)
        axes.set_yticks(range(len(names)), names)
    else:
        axes.set_xticks([]), axes.set_yticks([])
    if len(names) <= COUNTED:
        for (y, x), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = "white" if share > 0.5 else INK if share > 0.1 else MUTED
                axes.text(x, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
