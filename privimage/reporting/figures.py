"""The report's figures, drawn from released or internal artifacts; each is one SVG, text drawn as outlines.

Colours are Okabe and Ito's, told apart by colour-blind readers; what a figure shows it also says in numbers or words.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from privimage.measurements import Curve

INK, MUTED, RULE = "#1d2733", "#5b6673", "#dfe4ea"
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"
VOTES = LinearSegmentedColormap.from_list("votes", ["#ffffff", "#cfe3ef", "#5fa3cb", "#0b5c8e", "#06304d"])
STYLE = {
    "svg.fonttype": "path",  # no reader needs our font, and no text of ours is markup
    "svg.hashsalt": "privimage",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$"
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}
MAX_PUBLIC_CLASSES = 30
MAX_POINTS = 400


def histogram_figure(
    histogram: np.ndarray,
    class_names: Sequence[str],
    public_class_names: Sequence[str],
    chosen: Mapping[str, Sequence[str]],
) -> bytes:
    """A heatmap of the noisy votes: the strongest public classes against the sensitive ones.

    ``chosen`` maps a sensitive class to its selected public classes; their cells are framed.

    Shapes: ``histogram`` float [sensitive classes, public classes].
    """
    shown = strongest(histogram)
    votes = histogram[:, shown].T  # [public classes shown, sensitive classes]
    height, width = votes.shape
    names = [_short(name) for name in class_names]
    upright = max(map(len, names)) * width > 60
    head = 0.08 * max(map(len, names)) if upright else 0.2  # inches
    size = (min(9.0, 2.6 + max(0.52 * width, 2.4)), 0.8 + head + 0.22 * height)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        top = max(float(votes.max()), 1.0)
        mesh = axes.pcolormesh(votes, cmap=VOTES, vmin=0, vmax=top, edgecolors="#eef1f4", linewidth=0.6)
        axes.set_yticks(np.arange(height) + 0.5, [_short(public_class_names[index]) for index in shown])
        axes.set_xticks(np.arange(width) + 0.5, names, rotation=90 if upright else 0)
        axes.tick_params(length=0, labelcolor=INK, labeltop=True, labelbottom=False)
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        _frame_chosen(axes, [public_class_names[index] for index in shown], class_names, chosen)
        if width <= 12:
            _write_votes(axes, votes, top)
        bar = figure.colorbar(mesh, ax=axes, fraction=0.04, pad=0.02, aspect=40)
        bar.outline.set_visible(False)
        bar.set_label("noisy votes")
        return _svg(figure)


def strongest(histogram: np.ndarray) -> list[int]:
    """The public classes with the most votes from any one sensitive class, grouped by that class."""
    best = np.argsort(-histogram.max(axis=0), kind="stable")[:MAX_PUBLIC_CLASSES]
    return sorted(best.tolist(), key=lambda index: (int(histogram[:, index].argmax()), -histogram[:, index].max()))


def budget_figure(parts: Mapping[str, Mapping[str, float]]) -> bytes:
    """Bars of epsilon: for each release its parts alone, and what they cost together."""
    colours = {"query": SKY, "training": ORANGE, "together": BLUE}
    rows = [(label, name, value) for label, costs in parts.items() for name, value in costs.items()]
    places = np.cumsum([0.0] + [1.0 if b[0] == a[0] else 1.7 for a, b in zip(rows, rows[1:], strict=False)])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.5 + 0.25 * (places[-1] + 1)), layout="constrained")
        axes = figure.add_subplot()
        values = [value for _, _, value in rows]
        axes.barh(places, values, height=0.8, color=[colours[name] for _, name, _ in rows])
        for place, value in zip(places, values, strict=True):
            axes.text(value + 0.01 * max(values), place, f"{value:.3g}", va="center", fontsize=8)
        firsts = {label: next(iter(costs)) for label, costs in parts.items()}
        axes.set_yticks(places, [f"{label}   {name}" if name == firsts[label] else name for label, name, _ in rows])
        axes.tick_params(length=0, axis="y", labelcolor=INK)
        axes.invert_yaxis()
        axes.set_xlim(0, max(values) * 1.1)
        axes.set_xlabel("ε")
        axes.spines["left"].set_visible(False)
        return _svg(figure)


def curves_figure(curves: Mapping[str, Curve]) -> bytes:
    """Training curves: a panel for each recorded quantity over the steps, a line for each run."""
    quantities = list(dict.fromkeys(name for curve in curves.values() for name in curve.columns[1:]))
    columns = min(2, len(quantities))
    rows = -(-len(quantities) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 0.5 + 2.3 * rows), layout="constrained")
        for place, quantity in enumerate(quantities, 1):
            axes = figure.add_subplot(rows, columns, place)
            for index, (label, curve) in enumerate(curves.items()):
                if quantity in curve.columns:
                    _draw_curve(axes, curve, quantity, label, index)
            axes.set_title(quantity, loc="left", fontsize=9, color=INK)
            axes.set_xlabel(curve.columns[0])
            axes.grid(axis="y", color=RULE, linewidth=0.6)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
        return _svg(figure)


def _draw_curve(axes: Axes, curve: Curve, quantity: str, label: str, index: int) -> None:
    table = np.asarray(curve.rows, dtype=float).reshape(-1, len(curve.columns))
    table = table[:: max(1, len(table) // MAX_POINTS)]
    colours, dashes = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY), ("-", "--", ":", "-.")
    axes.plot(
        table[:, 0],
        table[:, curve.columns.index(quantity)],
        label=label,
        color=colours[index % len(colours)],
        linestyle=dashes[index // len(colours) % len(dashes)],
        linewidth=1.2,
    )


def _frame_chosen(axes: Axes, rows: Sequence[str], columns: Sequence[str], chosen: Mapping[str, Sequence[str]]) -> None:
    for x, name in enumerate(columns):
        for y, public in enumerate(rows):
            if public in chosen.get(name, ()):
                frame = Rectangle((x, y), 1, 1, fill=False, edgecolor=RED, linewidth=1.6, zorder=3, clip_on=False)
                axes.add_patch(frame)


def _write_votes(axes: Axes, votes: np.ndarray, top: float) -> None:
    for (y, x), value in np.ndenumerate(votes):
        colour = "white" if value > 0.5 * top else INK if value > 0.15 * top else MUTED
        axes.text(x + 0.5, y + 0.5, str(round(value)), ha="center", va="center", fontsize=7, color=colour)


def _short(name: str, length: int = 26) -> str:
    name = " ".join(name.split())
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()
