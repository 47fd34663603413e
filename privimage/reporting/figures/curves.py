"""Training curves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from privimage.measurements import Curve
from privimage.reporting.figures.style import DASHES, RULE, SERIES, WIDTH, legend_below, short, styled, svg

MAX_POINTS = 150


def curves_figure(curves: Mapping[tuple[str, str], Curve]) -> bytes:
    """A panel for each recorded quantity over the steps, a line for each run.

    ``curves`` maps a method, which fixes the colour, and its variant, which fixes the dashes, to its curve.
    """
    quantities = list(dict.fromkeys(name for curve in curves.values() for name in curve.columns[1:]))
    methods, variants = ([*dict.fromkeys(key[place] for key in curves)] for place in (0, 1))
    columns = min(2, len(quantities))
    rows = -(-len(quantities) // columns)
    with styled():
        figure = Figure(figsize=(WIDTH, 0.6 + 2.2 * rows + 0.16 * len(curves) / 3), layout="constrained")
        for place, quantity in enumerate(quantities, 1):
            axes = figure.add_subplot(rows, columns, place)
            for (method, variant), curve in curves.items():
                look = {
                    "color": SERIES[methods.index(method) % len(SERIES)],
                    "linestyle": DASHES[variants.index(variant) % len(DASHES)],
                }
                if quantity in curve.columns:
                    _draw_curve(axes, curve, quantity, f"{short(method)}, {variant}", look)
            axes.set_title(short(quantity, 40))
            axes.set_xlabel(curves[next(iter(curves))].columns[0])
            axes.grid(axis="y", color=RULE, linewidth=0.6)
        legend_below(figure, columns=3)
        return svg(figure)


def _draw_curve(axes: Axes, curve: Curve, quantity: str, label: str, look: Mapping[str, str]) -> None:
    table = np.asarray(curve.rows, dtype=float).reshape(-1, len(curve.columns))
    stretches = np.array_split(table, min(MAX_POINTS, max(len(table), 1)))
    means = np.array([stretch.mean(axis=0) for stretch in stretches if len(stretch)]).reshape(-1, len(curve.columns))
    axes.plot(means[:, 0], means[:, curve.columns.index(quantity)], label=label, linewidth=1.2, **look)
