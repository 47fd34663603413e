"""The page: what the template is given, and the template filled in. One template serves both editions.

Nothing measured on real images reaches the template unless ``measured`` is given, and only its ``internal`` blocks
read that.
"""

from __future__ import annotations

import base64
import io
import math
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np
from PIL import Image

from privimage.artifacts import ImageSet, QueryResult
from privimage.config import epsilon_label
from privimage.privacy import accounting
from privimage.reporting import figures, summary
from privimage.reporting.cells import Cell, Measured
from privimage.reporting.cost import Verdict, parts, split
from privimage.reporting.grid import default_per_class, image_grid
from privimage.settings import Declared

IMAGE_BYTES = 3_000_000  # of all grids together, before base64: keeps the page below 5 MB
PNG_OVERHEAD = 1.3  # enlarged noise, the worst case, against its raw pixels
MAX_CLASSES = 20
PACKAGES = ("privimage", "torch", "dp-accounting", "opacus", "numpy", "snakemake")
POLICIES = {
    "query": "chosen by the noisy query",
    "random": "chosen at random",
    "whole": "the whole public set",
    "none": "no public data",
}


def render(
    dataset: str,
    declared: Declared,
    cells: Sequence[Cell],
    queries: Mapping[str, tuple[str, QueryResult]],
    verdict: Verdict,
    measured: Measured | None,
    rows: Sequence[summary.Row],
) -> str:
    """The page as HTML; ``queries`` maps the SHA-256 of a query's file to its name and result."""
    shown = _first_of_each(cells, lambda cell: cell.name)
    costs = {cell.name: parts(cell.statement) for cell in shown}
    images = [cell.images for cell in shown] + ([measured.train] if measured else [])
    per_class = _per_class_within(images, len(declared.class_names))
    return _template().render(
        dataset=dataset,
        today=datetime.now(UTC).date().isoformat(),
        verdict=verdict,
        class_names=declared.class_names[:MAX_CLASSES],
        num_classes=len(declared.class_names),
        releases=[_release(cell) for cell in cells],
        gallery=[{"cell": cell, "grid": _uri("image/png", _grid(cell.images, per_class))} for cell in shown],
        queries=[_query(sha, name, query, declared, cells) for sha, (name, query) in queries.items()],
        selections=[
            {"method": cell.method, "policy": cell.subset.policy, "classes": cell.subset.classes}
            for cell in _first_of_each(cells, lambda cell: cell.method)
        ],
        costs=costs,
        budget=_svg(figures.budget_figure({**costs, "everything here": {"together": verdict.epsilon}})),
        policies=POLICIES,
        versions={"Python": platform.python_version(), **_versions()},
        internal=_internal(measured, shown, rows, per_class, declared) if measured else None,
    )


def _release(cell: Cell) -> dict[str, Any]:
    query, training = split(cell.statement.events)
    return {
        "cell": cell,
        "statement": cell.statement,
        "query": query,
        "training": training,
        "copies": cell.statement.provenance.settings.get("noise_levels_per_image"),
    }


def _query(sha: str, name: str, query: QueryResult, declared: Declared, cells: Sequence[Cell]) -> dict[str, Any]:
    chosen = next((c.subset.classes for c in cells if c.subset.provenance.parents.get("query") == sha), {})
    histogram = np.asarray(query.histogram)
    figure = figures.histogram_figure(histogram, query.class_names, query.public_class_names, chosen)
    return {
        "name": name,
        "result": query,
        "epsilon": accounting.epsilon([query.event], declared.delta),
        "figure": _svg(figure),
        "chosen": bool(chosen),
        "shown": len(figures.strongest(histogram)),
    }


def _internal(
    measured: Measured, shown: Sequence[Cell], rows: Sequence[summary.Row], per_class: int, declared: Declared
) -> dict[str, Any]:
    curves = {cell.name: cell.curve for cell in shown if cell.curve}
    names = measured.train.class_names
    lines = summary.lines_of(rows)
    return {
        "lines": lines,
        "metrics": list(dict.fromkeys(metric for line in lines for metric in line.metrics)),
        "spread": any(line.seeds > 1 for line in lines),
        "notes": sorted({quality.note for cell in shown for quality in cell.qualities if quality.note}),
        "quality": next((quality for cell in shown for quality in cell.qualities), None),
        "real": _stored(measured.train, per_class),
        "counts": list(zip(names, measured.train.counts, measured.test.counts, strict=True)),
        "num_train": len(measured.train.labels),
        "num_test": len(measured.test.labels),
        "undeclared": len(measured.train.labels) != declared.num_images,
        "curves": _svg(figures.curves_figure(curves)) if curves else None,
        "times": _times(measured.benchmarks),
        "odometer_epsilon": measured.odometer_epsilon,
        "odometer_void": measured.odometer_epsilon == math.inf,
        "odometer_lost": measured.odometer_lost,
    }


def _times(benchmarks: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """Per stage: its runs, their time together, the longest, and the peak memory."""
    stages: dict[str, list[tuple[float, float]]] = {}
    for label, cost in benchmarks.items():
        stages.setdefault(label.split("/")[0], []).append(cost)
    return [
        {
            "stage": stage,
            "runs": len(costs),
            "seconds": sum(seconds for seconds, _ in costs),
            "longest": max(seconds for seconds, _ in costs),
            "megabytes": max(megabytes for _, megabytes in costs),
        }
        for stage, costs in stages.items()
    ]


def _grid(images: ImageSet, per_class: int) -> bytes:
    return image_grid(images.images, images.labels, images.class_names[:MAX_CLASSES], per_class)


def _stored(images: ImageSet, per_class: int) -> dict[str, Any]:
    """A grid that stands once in the page and is shown many times, so that it needs its size in pixels."""
    png = _grid(images, per_class)
    width, height = Image.open(io.BytesIO(png)).size
    return {"uri": _uri("image/png", png), "width": width, "height": height}


def _per_class_within(images: Sequence[ImageSet], num_classes: int) -> int:
    """Images of each class that every grid can show without the page growing too large."""
    raw = sum(int(np.prod(s.images.shape[1:])) for s in images) * min(num_classes, MAX_CLASSES)
    return max(1, min(default_per_class(num_classes), int(IMAGE_BYTES / (raw * PNG_OVERHEAD))))


def _first_of_each(cells: Sequence[Cell], key: Any) -> list[Cell]:
    firsts: dict[str, Cell] = {}
    for cell in cells:
        firsts.setdefault(key(cell), cell)
    return list(firsts.values())


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _svg(content: bytes) -> str:
    return _uri("image/svg+xml", content)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,  # a field that is not there fails to render
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "up": _rounded_up,
        "power": _power_of_ten,
        "factor": _factor,
        "duration": _duration,
        "marked": _marked,
        "label": epsilon_label,
        "metric": summary.value_text,
    }
    return environment.get_template("template.html.j2")


def _rounded_up(epsilon: float) -> str:
    """Three decimals, never less than it is."""
    return f"{math.ceil(epsilon * 1000 - 1e-9) / 1000:.3f}"


def _power_of_ten(value: float) -> str:
    """As 5×10⁻⁵."""
    mantissa, exponent = f"{value:.3g}" if value >= 0.01 else f"{value:.2e}", ""
    if "e" in mantissa:
        mantissa, exponent = mantissa.split("e")
        superscript = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{float(mantissa):g}×10{superscript}"
    return mantissa


def _factor(epsilon: float) -> str:
    """e to the epsilon, in two digits, rounded up."""
    if epsilon > 13:
        return f"10{str(math.ceil(epsilon / math.log(10))).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    value = math.exp(epsilon)
    step = 10 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / step) * step:,.{1 if value < 10 else 0}f}"


def _marked(sentence: str) -> markupsafe.Markup:
    """The sentence, escaped, with what stands between backticks as code."""
    pieces = map(markupsafe.escape, sentence.split("`"))
    return markupsafe.Markup("").join(
        markupsafe.Markup(f"<code>{piece}</code>") if index % 2 else piece for index, piece in enumerate(pieces)
    )


def _duration(seconds: float) -> str:
    """As 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
