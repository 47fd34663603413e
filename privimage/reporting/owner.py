"""What the internal edition adds: everything measured on real images, for the owner alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from privimage.measurements import Accuracy, Memorisation, Quality, Semantics
from privimage.metrics.roc import permitted
from privimage.privacy.auditing import lower_bound
from privimage.reporting import summary
from privimage.reporting.cells import Cell, Measured
from privimage.reporting.figures.attacks import distances_figure, roc_figure
from privimage.reporting.figures.confusion import confusion_figure, recalls_figure
from privimage.reporting.figures.curves import curves_figure
from privimage.reporting.figures.quality import balance_figure, quality_figure
from privimage.reporting.figures.votes import votes_figure
from privimage.reporting.gallery import neighbour_picture
from privimage.reporting.metrics import MEMORY, groups, heading
from privimage.reporting.page import Queries, first_of_each, selected_by, uri
from privimage.rows import epsilon_label
from privimage.settings import Declared

NEAREST = 12  # synthetic images shown beside their neighbours
PROTOCOLS = {
    "last-epoch": "The last epoch counts: no epoch was selected on test images.",
    "synthetic-validation": "The epoch that counts was selected on held-out synthetic images, at no privacy cost.",
    "noisy-validation": "The epoch that counts was selected by noisy counts on all sensitive training images, which "
    "the generator was trained on; that selection is part of ε, the accuracy itself is not covered by it.",
    "validation on held-out real images": "The epoch that counts was selected on held-out real training images.",
}
ORACLE = "oracle"
ERROR = 0.025  # beside either end of a 95 % interval
HALF_COPIES = 2 / 3  # the weighed share of half copies and half unseen images, at least: with the fewest test images


def internal(
    measured: Measured,
    cells: Sequence[Cell],
    queries: Queries,
    rows: Sequence[summary.Row],
    declared: Declared,
) -> dict[str, Any]:
    """All that only the internal template is given, under the one name ``internal``."""
    shown = first_of_each(cells, lambda cell: cell.name)
    return {
        **_utility(measured, cells, rows),
        **_by_class(measured, cells),
        **_semantics(measured, cells, queries),
        **_memorisation(measured, cells, shown),
        **_membership(measured, cells, shown),
        "audits": _audits(measured, cells),
        **_training(measured, shown),
        "num_train": len(measured.train.labels),
        "num_test": len(measured.test.labels),
        "undeclared": len(measured.train.labels) != declared.num_images,
        "odometer_epsilon": measured.odometer_epsilon,
        "odometer_void": measured.odometer_epsilon == math.inf,
        "odometer_lost": measured.odometer_lost,
    }


def _utility(measured: Measured, cells: Sequence[Cell], rows: Sequence[summary.Row]) -> dict[str, Any]:
    lines = summary.lines_of(rows)
    grouped = {name: members for name, members in groups(summary.metrics_of(rows)).items() if name != MEMORY}
    grouped = {
        name: [m for m in members if any(m in line.metrics for line in lines)] for name, members in grouped.items()
    }
    known = [metric for members in grouped.values() for metric in members]
    several = len({line.epsilon for line in lines if line.epsilon is not None}) > 1
    accuracies = [found.accuracy for found in map(measured.of, cells) if found.accuracy] + measured.references
    qualities = [quality for cell in cells for quality in measured.of(cell).qualities]
    return {
        "tables": [
            {
                "name": name,
                "metrics": [(metric, *heading(metric)) for metric in members],
                "lines": [line for line in lines if any(metric in line.metrics for metric in members)],
            }
            for name, members in grouped.items()
            if members
        ],
        "protocols": _protocols([a for a in accuracies if a not in measured.references], measured.references),
        "oracles": sorted({a.protocol for a in accuracies if a.protocol not in PROTOCOLS}),
        "not_valid": any(a.protocol.startswith(ORACLE) for a in accuracies),
        "spread": any(line.seeds > 1 for line in lines),
        "networks": list(dict.fromkeys(_network(quality) for quality in qualities)),
        "notes": sorted({quality.note for quality in qualities if quality.note}),
        "against_epsilon": _svg(quality_figure(lines, known) if several and known else None),
        "balance": _svg(balance_figure(lines, known)),
    }


def _protocols(synthetic: Sequence[Accuracy], real: Sequence[Accuracy]) -> list[str]:
    """What decided which epoch counts, for the rows of synthetic and of real images."""
    told = []
    for rows, accuracies in (("Trained on synthetic images", synthetic), ("Trained on real images", real)):
        words = [PROTOCOLS[name] for name in PROTOCOLS if any(a.protocol == name for a in accuracies)]
        told += [f"{rows}: {words[0][0].lower()}{words[0][1:]}", *words[1:]] if words else []
    return told


def _network(quality: Quality) -> tuple[str, int, int, str]:
    return quality.feature_network, quality.num_synthetic, quality.num_reference, quality.reference_split


def _by_class(measured: Measured, cells: Sequence[Cell]) -> dict[str, Any]:
    """Confusion of the classifier that is best on real images, at each method's largest epsilon, over all seeds."""
    largest = _largest(cells)
    pooled = {"trained on real images": measured.references}
    for cell in largest:
        of_name = [measured.of(other).accuracy for other in cells if other.name == cell.name]
        pooled[f"trained on {cell.name}"] = [accuracy for accuracy in of_name if accuracy]
    names = [set(accuracy.confusion) for accuracies in pooled.values() for accuracy in accuracies]
    common = set.intersection(*names) if names else set()
    judge = (measured.references or [a for accuracies in pooled.values() for a in accuracies])[:1]
    if not common:
        return {"confusion": None, "recalls": None, "classifier": None}
    classifier = max(sorted(common), key=lambda name: judge[0].classifiers[name]["mean"])
    panels = {name: _pooled(accuracies, classifier) for name, accuracies in pooled.items() if accuracies}
    class_names = measured.train.class_names
    return {
        "confusion": _svg(confusion_figure(panels, class_names)),
        "recalls": _svg(recalls_figure(panels, class_names)) if len(panels) > 1 else None,
        "classifier": classifier,
    }


def _pooled(accuracies: Sequence[Accuracy], classifier: str) -> np.ndarray:
    return sum(np.asarray(accuracy.confusion[classifier], dtype=float) for accuracy in accuracies)


def _semantics(measured: Measured, cells: Sequence[Cell], queries: Queries) -> dict[str, Any]:
    """The query's figure with the true counts, and how far each method's selection agrees with the classes."""
    votes = {}
    for sha, (name, query) in queries.items():
        shape = np.shape(query.histogram)
        true = [
            measured.of(cell).semantics.histogram
            for cell in cells
            if measured.of(cell).semantics and cell.subset.provenance.parents.get("query") == sha
        ]
        if true and np.shape(true[0]) == shape:
            noisy, chosen = np.asarray(query.histogram), selected_by(sha, cells)
            votes[name] = _svg(
                votes_figure(noisy, query.class_names, query.public_class_names, chosen, np.asarray(true[0]))
            )
    found = [(cell.method, measured.of(cell).semantics) for cell in cells if measured.of(cell).semantics]
    return {
        "votes": votes,
        "agreements": [_agreement(method, semantics) for method, semantics in dict(reversed(found)).items()][::-1],
        "semantics_notes": sorted({semantics.note for _, semantics in found if semantics.note}),
    }


def _agreement(method: str, semantics: Semantics) -> dict[str, Any]:
    agreement, cosine = semantics.agreement, semantics.cosine
    return {
        "method": method,
        "mean": fmean(agreement.values()) if agreement else None,
        "worst": min(agreement, key=agreement.get) if agreement else None,
        "least": min(agreement.values(), default=None),
        "chance": semantics.chance,
        "cosine": fmean(cosine.values()) if cosine else None,
    }


def _memorisation(measured: Measured, cells: Sequence[Cell], shown: Sequence[Cell]) -> dict[str, Any]:
    found = [(cell, measured.of(cell).memorisation) for cell in cells if measured.of(cell).memorisation]
    strongest = {cell.coordinates for cell in _largest(shown)}
    largest = [(cell, memory) for cell, memory in found if cell.coordinates in strongest]
    return {
        "memories": [
            {"name": cell.name, "seed": cell.seed, "result": memory, **_finding(memory)} for cell, memory in found
        ],
        "neighbours": [
            {"name": cell.name, "picture": _neighbours(cell, memory, measured)}
            for cell, memory in largest
            if memory.nearest
        ],
        "distances": _svg(distances_figure({cell.name: memory.distances for cell, memory in largest}))
        if largest
        else None,
    }


def _finding(memory: Memorisation) -> dict[str, Any]:
    """What the numbers say in words, and whether the owner should look."""
    copies, control = memory.copies, memory.control.get("interval", [0.0, 1.0])
    explained = control[1] if control[0] > 0.5 else 0.5  # a control that may be one half explains nothing
    overall = [memory.interval, *([memory.weighed["interval"]] if memory.weighed else [])]
    if copies and copies["num_train"] and (not copies["num_test"] or copies["p_value"] < ERROR):
        return {"words": "copies of training images", "alarming": True}
    if any(interval[0] > explained for interval in overall):
        return {"words": "nearer than chance explains", "alarming": True}
    if memory.closest and _sign(memory.closest["interval"]) > 0:
        return {"words": "the closest ones are near training images", "alarming": True}
    if max(map(_sign, overall)) > 0:
        return {"words": "nearer, as unseen images are too", "alarming": False}
    if overall[-1][1] >= HALF_COPIES:
        return {"words": "too uncertain to tell", "alarming": False}
    words = {0: "no sign of copying", -1: "nearer to unseen images"}
    return {"words": words[_sign(memory.interval)], "alarming": False}


def _sign(interval: Sequence[float]) -> int:
    """1 if a 95 % interval lies above one half, -1 if below, 0 if it holds it."""
    return (interval[0] > 0.5) - (interval[1] < 0.5)


def _neighbours(cell: Cell, memory: Memorisation, measured: Measured) -> str:
    picture = neighbour_picture(cell.images.images, measured.train.images, memory.nearest[:NEAREST])
    return uri(picture.kind, picture.content)


def _membership(measured: Measured, cells: Sequence[Cell], shown: Sequence[Cell]) -> dict[str, Any]:
    found = [(cell, measured.of(cell).membership) for cell in cells if measured.of(cell).membership]
    rates = list(dict.fromkeys(rate for _, attack in found for rate in attack.tpr))
    panels, first = [], {cell.coordinates for cell in shown}
    for epsilon in sorted({cell.epsilon for cell, _ in found}):
        members = [(cell, attack) for cell, attack in found if cell.coordinates in first and cell.epsilon == epsilon]
        if members:
            statement = max((cell.statement for cell, _ in members), key=lambda statement: statement.epsilon)
            curves = {cell.method: attack.roc for cell, attack in members}
            private = all(cell.statement.private for cell, _ in members)
            limit = (statement.epsilon, statement.delta) if private else None
            panels.append((f"ε = {epsilon_label(epsilon)}", limit, curves))
    return {
        "rates": rates,
        "checks": 1 + len(rates),
        "attacks": [
            {
                "name": cell.name,
                "seed": cell.seed,
                "result": attack,
                "betrays": attack.auc_interval[0] > 0.5
                or any(found["interval"][0] > float(rate) for rate, found in attack.tpr.items()),
                "limits": {rate: permitted(float(rate), cell.statement.epsilon, cell.statement.delta) for rate in rates}
                if cell.statement.private
                else {},
            }
            for cell, attack in found
        ],
        "roc": _svg(roc_figure(panels)) if panels else None,
    }


def _audits(measured: Measured, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Each audit, what its number of guesses could show at most, and whether the claim of the release is refuted."""
    found = [(cell, measured.of(cell).audit) for cell in cells if measured.of(cell).audit]
    return [
        {
            "name": cell.name,
            "seed": cell.seed,
            "result": audit,
            "most": lower_bound(
                audit.num_guesses,
                num_guesses=audit.num_guesses,
                num_canaries=audit.num_canaries,
                delta=audit.delta,
                confidence=audit.confidence,
            ),
            "alarming": audit.lower_bound > audit.claimed_epsilon,
        }
        for cell, audit in found
    ]


def _training(measured: Measured, shown: Sequence[Cell]) -> dict[str, Any]:
    curves = {
        (cell.method, f"ε = {epsilon_label(cell.epsilon)}"): measured.of(cell).curve
        for cell in shown
        if measured.of(cell).curve
    }
    names = measured.train.class_names
    return {
        "curves": _svg(curves_figure(curves)) if curves else None,
        "times": _times(measured.benchmarks),
        "counts": list(zip(names, measured.train.counts, measured.test.counts, shown[0].images.counts, strict=True)),
        "counted": shown[0].name,
    }


def _times(benchmarks: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """Per stage: its runs, their time together, also as a share of the longest stage's, the longest, peak memory."""
    stages: dict[str, list[tuple[float, float]]] = {}
    for label, cost in benchmarks.items():
        stages.setdefault(label.split("/")[0], []).append(cost)
    most = max((sum(seconds for seconds, _ in costs) for costs in stages.values()), default=0) or 1
    return [
        {
            "stage": stage,
            "runs": len(costs),
            "seconds": sum(seconds for seconds, _ in costs),
            "share": sum(seconds for seconds, _ in costs) / most,
            "longest": max(seconds for seconds, _ in costs),
            "megabytes": max(megabytes for _, megabytes in costs),
        }
        for stage, costs in stages.items()
    ]


def _largest(cells: Sequence[Cell]) -> list[Cell]:
    """Of each method, its first cell at its largest epsilon."""
    ordered = sorted(cells, key=lambda cell: -cell.epsilon)  # stable: seeds keep their order
    largest = {id(cell) for cell in first_of_each(ordered, lambda cell: cell.method)}
    return [cell for cell in cells if id(cell) in largest]


def _svg(content: bytes | None) -> str | None:
    return uri("image/svg+xml", content) if content else None
