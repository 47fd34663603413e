"""A proxy's verdict against the real one: a point a method, a panel an epsilon."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from privimage.reporting.figures.style import RULE, WIDTH, png, series, short, styled
from privimage.reporting.metrics import scale
from privimage.reporting.ranking import correlation
from privimage.reporting.study import MEAN
from privimage.reporting.summary import Row
from privimage.rows import epsilon_label


def ranking_figure(rows: Sequence[Row], dataset: str) -> bytes:
    """Mean accuracy on the proxy across, on the data set up, as PNG; the rank correlation stands above."""
    epsilons = list(dict.fromkeys(row["epsilon"] for row in rows))
    with styled():
        figure = Figure(figsize=(WIDTH * max(1, len(epsilons)) / 2, 3.4), layout="constrained")
        for place, epsilon in enumerate(epsilons, 1):
            own = [row for row in rows if row["epsilon"] == epsilon]
            axes = figure.add_subplot(1, len(epsilons), place)
            x, y = ([scale(MEAN) * row[column] for row in own] for column in ("proxy", "real"))
            axes.plot(x, y, linestyle="", markersize=5, **series(0))
            upwards = sorted(zip(y, x, (row["method"] for row in own), strict=True))
            for number, (up, across, method) in enumerate(upwards):  # neighbours' names on either side of their points
                at = (4, 3) if number % 2 else (4, -8)
                axes.annotate(short(method, 14), (across, up), at, textcoords="offset points", fontsize=6)
            axes.margins(x=0.15)
            found = correlation(own)
            axes.set_title(
                f"ε = {epsilon_label(epsilon)}" + ("" if found is None else f", rank correlation {found:.2f}")
            )
            axes.set_xlabel("accuracy on the proxy in %")
            axes.set_ylabel(f"accuracy on {dataset} in %" if place == 1 else "")
            axes.grid(color=RULE, linewidth=0.6)
        return png(figure)
