"""The dataset card: what a stranger must know of a release, with the privacy statement in words."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import yaml

from privimage.artifacts import ArtifactError, ImageSet, PrivacyStatement, QueryResult, Stated, Subset
from privimage.generators import words_of
from privimage.methods import POLICIES
from privimage.privacy.event import Event
from privimage.privacy.purposes import Purpose, purposes
from privimage.reporting.cost import Verdict
from privimage.rows import epsilon_label
from privimage.settings import ReleaseSettings

PACKAGES = ("torch", "dp-accounting", "opacus", "numpy")
SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
TOLD: tuple[Purpose, ...] = ("query", "training", "votes", "choice of epochs")  # those that the card has words for


@dataclass(frozen=True)
class Facts:
    """All that the card tells; every one of them is released, declared, or computed from these.

    ``persons`` holds (m, epsilon of a person with up to m images); ``joint`` is the cost of this release and the
    ``others`` together, None where there are none.
    """

    dataset: str
    method: str
    seed: int
    images: ImageSet
    kind: str  # of the model's weights
    folders: Sequence[str]
    statement: PrivacyStatement
    subset: Subset
    query: QueryResult | None
    persons: Sequence[tuple[int, float]]
    others: Sequence[Stated]
    joint: Verdict | None
    settings: ReleaseSettings


def render(facts: Facts) -> str:
    """The card as Markdown, with front matter for Hugging Face.

    Raises:
        ArtifactError: if a mechanism was used for which the card has no words.
        ConfigError: if the settings of training are not those of what makes such weights.
    """
    named = list(zip(purposes(facts.statement), facts.statement.events, strict=True))
    unknown = [purpose for purpose, _ in named if purpose not in TOLD]
    if unknown:
        raise ArtifactError(f"the card has no words for the mechanism {unknown[0]!r}, so nothing is released.")
    if (facts.query is None) == any(purpose == "query" for purpose, _ in named):
        raise ArtifactError("the query's file and the statement's events do not belong together; rerun finetune.")
    if "\n" in _title(facts) + facts.settings.license:
        raise ArtifactError("release.pretty_name or release.license has several lines; expected one; write it in one.")
    front = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True, width=1000)
    shape, counts = facts.images.images.shape, facts.images.counts
    body = _template().render(
        facts=facts,
        statement=facts.statement,
        events=named,
        voted=any(purpose == "votes" for purpose, _ in named),
        words=words_of(facts.kind, facts.statement.provenance.settings),
        query=facts.query,
        training=facts.statement.provenance.settings,
        sampling=facts.images.provenance.settings,
        public_model=facts.images.provenance.parents.get("pretrained"),
        versions={"privimage": facts.statement.provenance.privimage, **_versions()},
        classes=list(zip(facts.images.class_names, facts.folders, counts)),
        num_images=shape[0],
        size=shape[1],
        channels=shape[3],
        policy=POLICIES.get(facts.subset.policy, facts.subset.policy),
        title=_title(facts),
    )
    return f"---\n{front}---\n\n{body}"


def _title(facts: Facts) -> str:
    return facts.settings.pretty_name or f"{facts.dataset}, synthetic, differentially private"


def _front_matter(facts: Facts) -> dict[str, Any]:
    number, one_class = len(facts.images.labels), len(facts.images.class_names) == 1
    return {
        "license": facts.settings.license,
        "pretty_name": _title(facts),
        "task_categories": ["unconditional-image-generation" if one_class else "image-classification"],
        "tags": ["synthetic", "differential-privacy", "privimage"],
        "size_categories": [next((label for limit, label in SIZES if number < limit), "n>10M")],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]},
        ],
    }


def _versions() -> dict[str, str]:
    return {"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,  # a field that is not there fails to render
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, in which `name` and `sentence` escape
    )
    environment.filters |= {
        "up": lambda epsilon: f"{math.ceil(epsilon * 1000 - 1e-9) / 1000:.3f}",  # never less than it is
        "name": _name,
        "sentence": _sentence,
        "label": epsilon_label,
        "std": _std,
    }
    return environment.get_template("card.md.j2")


def _name(text: str) -> str:
    """A name that means nothing to Markdown or HTML, on one line."""
    escaped = "".join(f"\\{c}" if c in "\\`*_{}[]()#+!|~$" else c for c in " ".join(str(text).split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _sentence(text: str) -> str:
    """A sentence on one line without HTML; backticks stay."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _std(event: Event, query: QueryResult) -> str:
    """The noise on each count of the query."""
    return f"{event.query_multiplier * query.sensitivity:.4g}"
