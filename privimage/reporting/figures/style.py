"""What all figures share: colours, marks, names cut to fit. Each figure is one SVG, its text drawn as outlines.

Colours are Okabe and Ito's, told apart by colour-blind readers; lines differ in their marks and dashes too, bars in
their hatching, so that a figure can be read in grey.
"""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

INK, MUTED, RULE = "#1d2733", "#5b6673", "#dfe4ea"
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"
SERIES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
MARKS = "osD^vPX"
DASHES = ("-", "--", ":", "-.")
SHARES = LinearSegmentedColormap.from_list("shares", ["#ffffff", "#cfe3ef", "#5fa3cb", "#0b5c8e", "#06304d"])
WIDTH = 7.6  # inches, of a figure across the page
STYLE = {
    "svg.fonttype": "path",  # no reader needs our font, and no text of ours is markup
    "svg.hashsalt": "privimage",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$"
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def styled() -> Any:
    """The context in which every figure is drawn."""
    return mpl.rc_context(STYLE)


def series(index: int) -> dict[str, str]:
    """Colour and mark of a method, the ``index``-th of those shown."""
    return {"color": SERIES[index % len(SERIES)], "marker": MARKS[index % len(MARKS)]}


def short(name: str, length: int = 26) -> str:
    """The name on one line, cut in the middle: what tells names apart often stands at their end."""
    name = " ".join(name.split())
    head, tail = length // 2, (length - 1) // 2
    return name if len(name) <= length else f"{name[:head]}…{name[-tail:]}"


def legend_below(figure: Figure, *, columns: int = 4) -> None:
    """One legend under all panels, of everything that any of them draws."""
    found = {label: h for axes in figure.axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if found:
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns)


def svg(figure: Figure) -> bytes:
    """The figure as SVG, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="svg", dpi=150, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    return buffer.getvalue()


def png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
