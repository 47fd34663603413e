"""What each release spends its budget on: shares of a quantity that adds up, never epsilons on top of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from privimage.reporting.figures.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    SKY,
    WIDTH,
    legend_below,
    short,
    styled,
    svg,
)
from privimage.reporting.wording import rounded_up

LOOKS = {
    "query": (SKY, "///"),
    "training": (BLUE, ""),
    "votes": (GREEN, "\\\\\\"),
    "choice of epochs": (ORANGE, "..."),
}
OTHER = (MUTED, "xx")


def shares_figure(rows: Sequence[tuple[str, Mapping[str, float], float]]) -> bytes:
    """A bar a release, cut into the shares of its parts, which add up to one; its epsilon stands beside it.

    ``rows`` holds name, shares by part, epsilon; the last row, everything together, stands apart.
    """
    parts = list(dict.fromkeys(part for _, shares, _ in rows for part in shares))
    places = [index + 0.6 * (0 < index == len(rows) - 1) for index in range(len(rows))]
    with styled():
        figure = Figure(figsize=(WIDTH, 0.9 + 0.27 * (places[-1] + 1)), layout="constrained")
        axes = figure.add_subplot()
        left = [0.0] * len(rows)
        for part in parts:
            colour, hatch = LOOKS.get(part, OTHER)
            widths = [shares.get(part, 0.0) for _, shares, _ in rows]
            axes.barh(places, widths, left=left, color=colour, hatch=hatch, edgecolor="w", linewidth=0.4, label=part)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for place, (_, shares, epsilon) in zip(places, rows, strict=True):
            told = " + ".join(f"{part} {100 * share:.1f} %" for part, share in shares.items())
            axes.text(1.015, place, f"ε = {rounded_up(epsilon)}", va="center", fontweight="bold", fontsize=8.5)
            axes.text(1.27, place, told, va="center", fontsize=8, color=MUTED)
        axes.set_yticks(places, [short(name, 34) for name, _, _ in rows])
        axes.tick_params(length=0, axis="y", labelcolor=INK)
        axes.set_ylim(places[-1] + 0.6, -0.6)
        axes.set_xlim(0, 1.95)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.spines[:].set_visible(False)
        legend_below(figure)
        return svg(figure)
