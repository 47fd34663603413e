"""What the metrics are called, whether more of one is better, and which belong in one table.

A metric's name is its kind, an underscore, and what it was measured with: ``fd_classifier``, ``accuracy_cnn``; a
distance's generalisation gap adds ``_gap``.
"""

from __future__ import annotations

from collections.abc import Iterable

LOWER, HIGHER = "↓", "↑"
GAP = "gap"
KINDS = {  # kind: (what a reader calls it, whether lower or higher is better)
    "accuracy": ("accuracy", HIGHER),
    "fd": ("Fréchet distance", LOWER),
    "fid": ("FID", LOWER),
    "kd": ("kernel distance", LOWER),
    "is": ("inception score", HIGHER),
    GAP: ("generalisation gap", ""),
    "precision": ("precision", HIGHER),
    "recall": ("recall", HIGHER),
    "density": ("density", HIGHER),
    "coverage": ("coverage", HIGHER),
}
BALANCE = ("precision", "recall", "density", "coverage")
ACCURACIES, DISTANCES, BALANCES = "Accuracy", "Distances", "Precision and recall"
ATTACKS = {"closer_to_train": "nearer to training", "membership_auc": "membership, area"}
MEMORY = "Memorisation and attacks"
PERCENT = 100


def kind(metric: str) -> str:
    """What stands before the first underscore, or that it is a gap."""
    return GAP if metric.endswith(f"_{GAP}") else metric.partition("_")[0]


def instrument(metric: str) -> str:
    """What it was measured with: a feature network or a classifier."""
    return metric.removesuffix(f"_{GAP}").partition("_")[2]


def title(metric: str) -> str:
    """The metric as a figure's title says it."""
    told, better = KINDS.get(kind(metric), (metric, ""))
    unit = " in %" if kind(metric) == "accuracy" else ""
    by = f", {instrument(metric)}" if kind(metric) in KINDS and instrument(metric) else ""
    return f"{told}{by}{unit} {better}".rstrip()


def heading(metric: str) -> tuple[str, str]:
    """The metric as a column's head says it: its name, and below that its instrument."""
    if kind(metric) == "accuracy":
        return instrument(metric), ""
    if metric in ATTACKS:
        return ATTACKS[metric], ""
    told, better = KINDS.get(kind(metric), (metric, ""))
    return f"{told} {better}".rstrip(), instrument(metric) if kind(metric) in KINDS else ""


def scale(metric: str) -> int:
    """What to multiply a value by: accuracies are shown in per cent."""
    return PERCENT if kind(metric) == "accuracy" else 1


def value_text(metric: str, value: tuple[float, float | None] | None) -> str:
    """A metric's mean and deviation as a reader wants them: accuracies in per cent, small values with more digits."""
    if value is None:
        return "-"
    mean, deviation = value[0] * scale(metric), value[1]
    digits = 1 if scale(metric) == PERCENT else 2 if abs(mean) >= 1 or kind(metric) in BALANCE else 3
    spread = f" ± {deviation * scale(metric):.{digits}f}" if deviation is not None else ""
    return f"{mean:.{digits}f}{spread}{' %' if scale(metric) == PERCENT else ''}"


def groups(metrics: Iterable[str]) -> dict[str, list[str]]:
    """The metrics by table: accuracies, distances and scores, precision and recall, attacks; no empty ones."""
    tables: dict[str, list[str]] = {ACCURACIES: [], DISTANCES: [], BALANCES: [], MEMORY: []}
    for metric in metrics:
        tables[_group(metric)].append(metric)
    return {name: members for name, members in tables.items() if members}


def _group(metric: str) -> str:
    if metric in ATTACKS:
        return MEMORY
    return ACCURACIES if kind(metric) == "accuracy" else BALANCES if kind(metric) in BALANCE else DISTANCES
