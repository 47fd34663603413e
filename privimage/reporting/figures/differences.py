"""What each method is worth beside the first one: a line a method with its error, a panel a metric."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from privimage.reporting.figures.style import MUTED, RULE, WIDTH, legend_below, png, series, short, styled
from privimage.reporting.metrics import scale, title
from privimage.reporting.summary import Row
from privimage.rows import epsilon_label

APART = 0.22  # of two epsilons on one line


def differences_figure(rows: Sequence[Row], base: str, metrics: Sequence[str]) -> bytes:
    """The rows of ``differences`` as PNG: mean difference and standard error of each method, a mark an epsilon."""
    methods = [method for method in dict.fromkeys(row["method"] for row in rows) if method != base]
    epsilons = sorted({row["epsilon"] for row in rows})
    with styled():
        figure = Figure(figsize=(WIDTH, 1.3 + 0.3 * max(1, len(methods))), layout="constrained")
        for place, metric in enumerate(metrics, 1):
            axes = figure.add_subplot(1, len(metrics), place)
            axes.axvline(0, color=MUTED, linewidth=0.8)
            for number, epsilon in enumerate(epsilons):
                own = {r["method"]: r for r in rows if (r["metric"], r["epsilon"]) == (metric, epsilon)}
                _draw(axes, methods, own, number * APART, f"ε = {epsilon_label(epsilon)}", number)
            axes.set_yticks(range(len(methods)), [short(name, 20) for name in methods] if place == 1 else [])
            axes.invert_yaxis()
            axes.set_title(title(metric))
            axes.set_xlabel(f"difference to {short(base, 20)}")
            axes.grid(color=RULE, linewidth=0.6, axis="x")
        legend_below(figure)
        return png(figure)


def _draw(axes: Axes, methods: list[str], own: dict[str, Row], below: float, label: str, number: int) -> None:
    found = [(place, own[name]) for place, name in enumerate(methods) if name in own]
    told = [(place + below, row) for place, row in found if row["difference"] is not None]
    if told:
        by = scale(told[0][1]["metric"])
        across = [by * row["difference"] for _, row in told]
        errors = [by * (row["error"] or 0) for _, row in told]
        style = series(number)
        axes.errorbar(
            across,
            [place for place, _ in told],
            xerr=errors,
            fmt=style["marker"],
            color=style["color"],
            markersize=4,
            elinewidth=1,
            label=label,
        )
