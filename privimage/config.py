"""The whole configuration: sections of defaults, tables of rows, and what to run.

``load`` checks everything that can be checked before any work starts, and answers every question the workflow
asks: which settings does this stage have for this data set? Imports without torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from os.path import expanduser
from pathlib import Path
from typing import Any, get_type_hints

from privimage import evaluation_settings as e
from privimage import settings as s
from privimage.ablations import expand
from privimage.alike import MEANING as LIKE_MEANS
from privimage.alike import TABLES as LIKE
from privimage.alike import spelt_out
from privimage.config_checks import check, check_overrides
from privimage.errors import UserError
from privimage.methods import METHODS, Method
from privimage.networks import NETWORKS, Network
from privimage.rows import Ablation, Dataset, GeneratorSettings, Public, Run
from privimage.schema import ConfigError, build, overlay, plain, schema_of, validate

SECTIONS: dict[str, type] = {
    "preprocess": s.PreprocessSettings,
    "classifier": s.ClassifierSettings,
    "select": s.SelectSettings,
    "pretrain": s.PretrainSettings,
    "finetune": s.FinetuneSettings,
    "generators": GeneratorSettings,
    "sample": s.SamplingSettings,
    "quality": e.QualitySettings,
    "accuracy": e.AccuracySettings,
    "semantics": e.SemanticsSettings,
    "memorisation": e.MemorisationSettings,
    "membership": e.MembershipSettings,
    "audit": e.AuditSettings,
    "release": s.ReleaseSettings,
    "compute": s.ComputeSettings,
}
TABLES: dict[str, type] = {
    "publics": Public,
    "datasets": Dataset,
    "queries": s.QuerySettings,
    "methods": Method,
    "networks": Network,
    "ablations": Ablation,
}
RESERVED = {  # folders of the results that a row's own folder would run into, and rows that are always there
    "datasets": ("public", "internal", "ablation", "real"),
    "methods": ("query", "internal", "real", "features", *METHODS),
    "networks": tuple(NETWORKS),
}


@dataclass(frozen=True)
class Config:
    """A checked configuration. Rows are complete: overrides are merged over the sections' defaults."""

    run: Run
    publics: dict[str, Public]
    datasets: dict[str, Dataset]
    queries: dict[str, s.QuerySettings]
    methods: dict[str, Method]
    networks: dict[str, Network]
    ablations: dict[str, Ablation]
    state_dir: str
    warnings: tuple[str, ...] = field(default=())

    def declared(self, dataset: str) -> dict[str, Any]:
        """The public constants of a sensitive set, as JSON-like data."""
        row = plain(self.datasets[dataset])
        return {name: row[name] for name in s.Declared.__dataclass_fields__}

    def source(self, *, dataset: str | None = None, public: str | None = None) -> dict[str, Any]:
        """What `shard` needs to know of one row, as JSON-like data."""
        row = self.datasets[dataset] if dataset else self.publics[public]
        shape = self.publics[row.public] if dataset else row
        own = {f.name: getattr(row, f.name, f.default) for f in fields(s.Source)}
        for part in ("classes", "without_classes"):  # left out, so that rows of before are what they were
            if own[part] is None:
                del own[part]
        how = {key: value for key, value in plain(row.preprocess).items() if key in own}
        place = {"path": row.path or self.fetched(dataset=dataset, public=public)}
        return {**own, **how, **place, "resolution": shape.resolution, "channels": shape.channels}

    def fetched(self, *, dataset: str | None = None, public: str | None = None) -> str | None:
        """The folder into which `download` brings the row's images; None if they are drawn or the user's own."""
        row = self.datasets[dataset] if dataset else self.publics[public]
        return None if row.path or row.source in s.DRAWN else f"data/{row.source}"

    def join(self, *, dataset: str | None = None, public: str | None = None) -> dict[str, Any]:
        """The settings of `preprocess` for one row, as JSON-like data."""
        row = self.datasets[dataset] if dataset else self.publics[public]
        return {"on_bad_image": row.preprocess.on_bad_image}

    def validation_epsilons(self, dataset: str) -> tuple[float, ...]:
        """What each release of a sensitive set pays for the choice of its classifiers' epochs, one entry a choice."""
        row = self.datasets[dataset]
        return row.accuracy.validation_epsilons if len(row.class_names) > 1 else ()

    def query(self, dataset: str, name: str) -> s.QuerySettings:
        """One row of queries for a data set: overridden by its row.

        Raises:
            ConfigError: if the row overrides what is not there.
        """
        own = (self.datasets[dataset].queries or {}).get(name, {})
        if not isinstance(own, Mapping):
            raise ConfigError(f"`datasets.{dataset}.queries.{name}` is {own!r}; expected a section.")
        return build(s.QuerySettings, overlay(plain(self.queries[name]), own), f"datasets.{dataset}.queries.{name}")

    def sampling(self, dataset: str, method: str) -> dict[str, Any]:
        """The settings of `sample` for one method on a data set, as JSON-like data."""
        row = plain(self.of_method("sample", dataset, method))
        return {name: row[name] for name in s.SampleSettings.__dataclass_fields__}

    def features(self, dataset: str, network: str) -> dict[str, Any]:
        """The settings of `features` for one network, as JSON-like data."""
        return {
            "network": plain(self.networks[network]),
            "num_reference": self.datasets[dataset].quality.num_reference,
        }

    def comparison(self, dataset: str, network: str) -> dict[str, Any]:
        """The settings of `quality` for one network, as JSON-like data."""
        row = plain(self.datasets[dataset].quality)
        own = {name: row[name] for name in ("reference_split", "num_synthetic")}
        return {"network": plain(self.networks[network]), **own}

    def stage(self, section: str, *, dataset: str | None = None, public: str | None = None) -> dict[str, Any]:
        """A stage's complete settings for one row, as JSON-like data."""
        return plain(getattr(self.datasets[dataset] if dataset else self.publics[public], section))

    def of_method(self, section: str, dataset: str, method: str) -> Any:
        """A stage's settings for one method on a data set: its generator's, overridden by its row.

        Raises:
            ConfigError: if the row overrides what is not there.
        """
        row, method_row = self.datasets[dataset], self.methods[method]
        own = getattr(row.generators, method_row.generator, None)
        base = getattr(own, section, None) or getattr(row, section)
        overlaid = overlay(plain(base), (method_row.settings or {}).get(section, {}))
        return build(type(base), overlaid, f"methods.{method}.settings.{section}")

    def pretrained_as(self, dataset: str) -> dict[str, str]:
        """For each method the first of the table whose pretrained model on a data set is this method's too.

        All that makes the model is the same: policy, query, generator, settings of `select` and `pretrain`.
        """
        return self._first_alike(dataset, ("select", "pretrain"))

    def trained_as(self, dataset: str) -> dict[str, str]:
        """For each method the first of the table whose private model on a data set is this method's too.

        They pretrain alike, and their settings of `finetune` are the same: they differ in what is drawn from the model.
        """
        return self._first_alike(dataset, ("select", "pretrain", "finetune"))

    def _first_alike(self, dataset: str, sections: Sequence[str]) -> dict[str, str]:
        first: dict[str, str] = {}
        found = {}
        for name, row in self.methods.items():
            own = [plain(self.of_method(section, dataset, name)) for section in sections]
            found[name] = first.setdefault(canonical([row.policy, row.query, row.generator, *own]), name)
        return found


def load(raw: Mapping[str, Any]) -> Config:
    """The checked configuration from what YAML gave.

    Raises:
        ConfigError: one sentence that names the key.
    """
    raw = spelt_out(raw)
    validate(raw, config_schema())
    merged = {name: dict(raw[name]) for name in TABLES if name in raw}
    for table, row_class in (("publics", Public), ("datasets", Dataset)):
        names = [name for name in SECTIONS if name in row_class.__dataclass_fields__]
        for label, row in merged[table].items():
            merged[table][label] = {**row, **{n: overlay(raw[n], row.get(n, {})) for n in names}}
    for row in merged["datasets"].values():  # copies, as overlays are
        row["generators"] = _begun(row)
    for table in ("publics", "datasets", "networks"):
        for label, row in merged.get(table, {}).items():
            if row.get("path"):
                merged[table][label] = {**row, "path": expanduser(row["path"])}
    for semantics in (row["semantics"] for row in merged["datasets"].values()):  # copies, as overlays are
        if semantics.get("word_vectors"):
            semantics["word_vectors"] = expanduser(semantics["word_vectors"])
    rows = {
        table: {
            _name(table, label): build(cls, row, f"{table}.{label}") for label, row in merged.get(table, {}).items()
        }
        for table, cls in TABLES.items()
    }
    run = build(Run, raw["run"], "run")
    config = Config(
        run=run,
        publics=rows["publics"],
        datasets={n: _with_classes(n, row) if n in run.datasets else row for n, row in rows["datasets"].items()},
        queries=rows["queries"],
        methods={**METHODS, **rows["methods"]},
        networks={**rows["networks"], **NETWORKS},
        ablations=rows["ablations"],
        state_dir=_folder("state_dir", raw.get("state_dir", "state")),
    )
    check_overrides(config.methods)
    config = expand(config)
    return replace(config, warnings=tuple(check(config)))


def _begun(row: Mapping[str, Any]) -> dict[str, Any]:
    """The generators' own settings of a data set; where they say nothing, what its `pretrain` and `finetune` say."""
    begun: dict[str, Any] = {}
    for name, generator in get_type_hints(GeneratorSettings).items():
        for stage, own in get_type_hints(generator).items():
            shared, mine = get_type_hints(SECTIONS[stage]), get_type_hints(own)
            same = {key: value for key, value in row[stage].items() if key in mine and mine[key] == shared[key]}
            begun.setdefault(name, {})[stage] = same
    return overlay(begun, row["generators"])


def config_schema() -> dict[str, Any]:
    """The JSON schema of the configuration file; ``workflow/schemas/config.schema.json`` is its copy."""
    tables = {
        name: {"type": "object", "additionalProperties": schema_of(cls), "description": (cls.__doc__ or "").strip()}
        for name, cls in TABLES.items()
    }
    for name in LIKE:  # gone when the rows are checked, and so told here
        tables[name]["additionalProperties"]["properties"]["like"] = {"type": "string", "description": LIKE_MEANS}
    sections = {n: {**schema_of(cls), "description": (cls.__doc__ or "").strip()} for n, cls in SECTIONS.items()}
    state = {"type": "string", "description": "Folder of checkpoints, keys and the odometer; outlives results."}
    include = {"type": "array", "items": {"type": "string"}, "description": "Files that are merged before this one."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "privimage configuration",
        "type": "object",
        "additionalProperties": False,
        "required": ["run", "publics", "datasets", "queries", *SECTIONS],
        "properties": {
            "run": {**schema_of(Run), "description": (Run.__doc__ or "").strip()},
            **tables,
            **sections,
            "state_dir": state,
            "include": include,
        },
    }


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal data gives equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def stage_version(stage: str) -> int:
    """The ``VERSION`` of a stage's module, read without importing it (torch takes seconds)."""
    text = (Path(__file__).parent / f"{stage}.py").read_text(encoding="utf-8")
    return int(re.search(r"^VERSION = (\d+)$", text, flags=re.MULTILINE).group(1))


def _folder(key: str, path: str) -> str:
    """The folder, as commands and Snakemake's own patterns take it."""
    if not path.strip() or not path.isprintable() or path[0] == "-" or set(path) & set("{}<"):
        raise ConfigError(
            f"`{key}` is {path!r}; expected a path of printable characters without '{{', '}}', '<' or a leading '-'."
        )
    return path


def _name(table: str, label: str) -> str:
    reserved = RESERVED.get(table, ())
    if not re.fullmatch(s.NAME, str(label)) or label in reserved:
        raise ConfigError(
            f"`{table}.{label}` cannot be a name; use letters, digits, '_', '.', '-'"
            f"{' and none of ' + ', '.join(reserved) if reserved else ''}."
        )
    return str(label)


def _with_classes(label: str, row: Dataset) -> Dataset:
    """The row with its classes; where it declares none, those of the folders under its path."""
    if row.class_names is not None:
        return row
    if row.path and not Path(row.path).exists():
        raise ConfigError(f"`datasets.{label}.path` is {row.path!r}, which is not there; write where your images are.")
    if row.source not in ("auto", "folder") or not row.path or not Path(row.path).is_dir():
        raise ConfigError(
            f"`datasets.{label}.class_names` is missing; expected the names of the classes, which can only be left out "
            "where `path` is a folder of class folders."
        )
    from privimage.data.chosen import read

    part = {"classes": row.classes, "without_classes": row.without_classes}
    try:
        found = read(s.Source(source=row.source, path=row.path, resolution=8, channels=1, **part), None)
    except UserError as error:
        raise ConfigError(f"`datasets.{label}.path`: {error}") from error
    return replace(row, class_names=found.class_names)
