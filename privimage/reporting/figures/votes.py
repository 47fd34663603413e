"""Which public classes the sensitive images vote for: noisy counts, what was selected, and for the owner the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from privimage.reporting.figures.style import BLUE, INK, RULE, SKY, WIDTH, legend_below, short, styled, svg

MAX_CLASSES = 12
MAX_BARS = 8
FEWEST_BARS = 5


def votes_figure(
    histogram: np.ndarray,
    class_names: Sequence[str],
    public_class_names: Sequence[str],
    chosen: Mapping[str, Sequence[str]],
    true: np.ndarray | None = None,
) -> bytes:
    """A panel a sensitive class (the first ``MAX_CLASSES``): bars of the noisy votes for its strongest public classes.

    ``chosen`` maps a sensitive class to its selected public classes, whose bars are hatched. ``true`` marks the
    counts without noise: for the owner alone.

    Shapes: ``histogram`` and ``true`` float [sensitive classes, public classes].
    """
    shown = [
        (name, strongest(histogram[index], [public_class_names.index(c) for c in chosen.get(name, ())]))
        for index, name in enumerate(class_names[:MAX_CLASSES])
    ]
    longest = max(len(short(public_class_names[bar])) for _, bars in shown for bar in bars)
    columns = min(len(shown), 3 if longest <= 14 else 2)
    rows, bars = -(-len(shown) // columns), max(len(bars) for _, bars in shown)
    counts = histogram if true is None else np.stack([histogram, true])
    top = max(float(counts.max()), 1.0)
    with styled():
        size = (WIDTH if columns > 1 else 4.6, 0.5 + rows * (0.32 + 0.155 * bars))
        figure = Figure(figsize=size, layout="constrained")
        for place, (name, indices) in enumerate(shown):
            axes = figure.add_subplot(rows, columns, place + 1)
            hatched = [public_class_names[bar] in chosen.get(name, ()) for bar in indices]
            _draw_bars(axes, histogram[place, indices], hatched, None if true is None else true[place, indices])
            axes.set_yticks(range(len(indices)), [short(public_class_names[bar]) for bar in indices], fontsize=7.5)
            axes.set_ylim(bars - 0.4, -0.6)
            axes.set_xlim(0, top * 1.04)
            axes.set_title(short(name, 40), fontweight="bold", fontsize=8.5, pad=2)
            axes.tick_params(axis="x", labelsize=7, labelbottom=place >= len(shown) - columns)
        legend_below(figure)
        return svg(figure)


def strongest(votes: np.ndarray, chosen: Sequence[int] = ()) -> list[int]:
    """The public classes to show of one sensitive class, most votes first: its selected ones before all others.

    Shapes: ``votes`` float [public classes].
    """
    order = np.argsort(-votes, kind="stable").tolist()
    first = [index for index in order if index in set(chosen)][:MAX_BARS]
    others = [index for index in order if index not in set(chosen)][: max(FEWEST_BARS - len(first), 2)]
    return sorted((first + others)[:MAX_BARS], key=lambda index: -votes[index])


def _draw_bars(axes: Axes, votes: np.ndarray, hatched: Sequence[bool], true: np.ndarray | None) -> None:
    selected, places = np.array(hatched, dtype=bool), np.arange(len(votes))
    plain = {"height": 0.72, "linewidth": 0}
    axes.barh(places[~selected], votes[~selected].clip(0), color=SKY, label="noisy votes", **plain)
    label = "noisy votes, class selected" if selected.any() else "_"
    axes.barh(places[selected], votes[selected].clip(0), color=BLUE, hatch="///", edgecolor="w", label=label, **plain)
    if true is not None:
        axes.plot(true, places, "|", color=INK, markersize=8, markeredgewidth=1.6, label="votes without noise")
    axes.tick_params(length=0, axis="y", labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
