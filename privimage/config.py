"""The whole configuration: sections of defaults, tables of rows, and what to run.

``load`` checks everything that can be checked before any work starts, and answers every question the workflow
asks: which settings does this stage have for this data set? Imports without torch.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from math import sqrt
from os.path import expanduser, realpath
from pathlib import Path
from typing import Any

from privimage import settings as s
from privimage.data.published import PUBLISHED
from privimage.errors import UserError
from privimage.methods import METHODS, Method
from privimage.networks import NETWORKS, Network
from privimage.releasing.places import place_in
from privimage.schema import ConfigError, build, plain, schema_of, validate

SECTIONS: dict[str, type] = {
    "preprocess": s.PreprocessSettings,
    "classifier": s.ClassifierSettings,
    "select": s.SelectSettings,
    "pretrain": s.PretrainSettings,
    "finetune": s.FinetuneSettings,
    "sample": s.SamplingSettings,
    "quality": s.QualitySettings,
    "accuracy": s.AccuracySettings,
    "semantics": s.SemanticsSettings,
    "memorisation": s.MemorisationSettings,
    "membership": s.MembershipSettings,
    "audit": s.AuditSettings,
    "release": s.ReleaseSettings,
    "compute": s.ComputeSettings,
}
TABLES: dict[str, type] = {
    "publics": s.Public,
    "datasets": s.Dataset,
    "queries": s.QuerySettings,
    "methods": Method,
    "networks": Network,
}
RESERVED = {  # folders of the results that a row's own folder would run into, and rows that are always there
    "datasets": ("public", "internal", "ablation", "real"),
    "methods": ("query", "internal", "real", "features"),
    "networks": tuple(NETWORKS),
}


@dataclass(frozen=True)
class Config:
    """A checked configuration. Rows are complete: overrides are merged over the sections' defaults."""

    run: s.Run
    publics: dict[str, s.Public]
    datasets: dict[str, s.Dataset]
    queries: dict[str, s.QuerySettings]
    methods: dict[str, Method]
    networks: dict[str, Network]
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

    def query(self, name: str) -> dict[str, Any]:
        """The settings of one row of queries, as JSON-like data."""
        return plain(self.queries[name])

    def sampling(self, dataset: str) -> dict[str, Any]:
        """The settings of `sample` for one row, as JSON-like data."""
        row = plain(self.datasets[dataset].sample)
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


def load(raw: Mapping[str, Any]) -> Config:
    """The checked configuration from what YAML gave.

    Raises:
        ConfigError: one sentence that names the key.
    """
    validate(raw, config_schema())
    merged = {name: dict(raw[name]) for name in TABLES if name in raw}
    for table, row_class in (("publics", s.Public), ("datasets", s.Dataset)):
        names = [name for name in SECTIONS if name in row_class.__dataclass_fields__]
        for label, row in merged[table].items():
            merged[table][label] = {**row, **{n: _overlay(raw[n], row.get(n, {})) for n in names}}
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
    run = build(s.Run, raw["run"], "run")
    config = Config(
        run=run,
        publics=rows["publics"],
        datasets={n: _with_classes(n, row) if n in run.datasets else row for n, row in rows["datasets"].items()},
        queries=rows["queries"],
        methods={**METHODS, **rows["methods"]},
        networks={**rows["networks"], **NETWORKS},
        state_dir=_folder("state_dir", raw.get("state_dir", "state")),
    )
    return Config(**{**config.__dict__, "warnings": tuple(_check(config))})


def config_schema() -> dict[str, Any]:
    """The JSON schema of the configuration file; ``workflow/schemas/config.schema.json`` is its copy."""
    tables = {
        name: {"type": "object", "additionalProperties": schema_of(cls), "description": (cls.__doc__ or "").strip()}
        for name, cls in TABLES.items()
    }
    sections = {n: {**schema_of(cls), "description": (cls.__doc__ or "").strip()} for n, cls in SECTIONS.items()}
    state = {"type": "string", "description": "Folder of checkpoints, keys and the odometer; outlives results."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "privimage configuration",
        "type": "object",
        "additionalProperties": False,
        "required": ["run", "publics", "datasets", "queries", *SECTIONS],
        "properties": {
            "run": {**schema_of(s.Run), "description": (s.Run.__doc__ or "").strip()},
            **tables,
            **sections,
            "state_dir": state,
        },
    }


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal data gives equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def epsilon_label(epsilon: float) -> str:
    """The one spelling of an epsilon in paths: 1, 1.0 and 1.00 are all ``1``."""
    return format(float(epsilon), "g")


def stage_version(stage: str) -> int:
    """The ``VERSION`` of a stage's module, read without importing it (torch takes seconds)."""
    text = (Path(__file__).parent / f"{stage}.py").read_text(encoding="utf-8")
    return int(re.search(r"^VERSION = (\d+)$", text, flags=re.MULTILINE).group(1))


def _overlay(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in extra.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = _overlay(out[key], value) if both else value
    return out


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


def _check(config: Config) -> Iterable[str]:
    """Raise what contradicts itself; yield what is only unwise."""
    for key, wanted, table in (
        ("run.datasets", config.run.datasets, config.datasets),
        ("run.methods", config.run.methods, config.methods),
    ):
        for name in wanted:
            _known(key, name, table)
    for key in ("datasets", "methods", "epsilons", "seeds"):
        values = getattr(config.run, key)
        if len(set(values)) != len(values):
            raise ConfigError(f"`run.{key}` is {list(values)}; expected each entry once.")
    for epsilon in config.run.epsilons:
        if float(epsilon_label(epsilon)) != epsilon:
            raise ConfigError(f"`run.epsilons` has {epsilon!r}; expected at most six digits, as paths spell them.")
    for label, method in config.methods.items():
        if (method.policy == "query") != (method.query is not None):
            raise ConfigError(
                f"`methods.{label}.query` is {method.query!r} with policy `{method.policy}`; "
                "the policy `query` needs a row of `queries`, the others take none."
            )
        if method.query is not None:
            _known(f"methods.{label}.query", method.query, config.queries)
    for label, network in config.networks.items():
        _check_network(label, network)
    for label, row in config.publics.items():
        check_source(f"publics.{label}", row)
    for label, row in config.datasets.items():
        _known(f"datasets.{label}.public", row.public, config.publics)
        if row.class_names is None:  # of a row that is not run
            continue
        yield from _check_dataset(config, label, row)
    yield from _check_shared(config)


def _check_dataset(config: Config, label: str, row: s.Dataset) -> Iterable[str]:
    where, public = f"datasets.{label}", config.publics[row.public]
    check_source(where, row)
    if len(set(row.class_names)) != len(row.class_names):
        raise ConfigError(f"`{where}.class_names` names a class twice; expected each once.")
    _check_words(where, row)
    if label in config.run.datasets and row.source in s.OWN and row.budget is None:
        raise ConfigError(
            f"`{where}.budget` is missing; expected the largest epsilon that everything ever drawn from these images "
            f"may cost together, such as `budget: {max(config.run.epsilons):g}` for one release: what would exceed it "
            "is refused."
        )
    if row.delta * row.num_images >= 1:
        raise ConfigError(
            f"`{where}.delta` is {row.delta:g}; expected less than 1/num_images = {1 / row.num_images:.3g}, "
            "since a mechanism that publishes one whole image meets a larger one."
        )
    if label in config.run.datasets and row.delta * row.num_images > 0.1:
        yield f"`{where}.delta` is {row.delta:g}, above a tenth of 1/num_images = {0.1 / row.num_images:.3g}."
    wanted = row.select.classes_per_label * len(row.class_names)
    if wanted > public.num_classes:
        raise ConfigError(
            f"`{where}.select.classes_per_label` is {row.select.classes_per_label}; with {len(row.class_names)} "
            f"classes it takes {wanted} public classes, and `{row.public}` has {public.num_classes}."
        )
    read = {config.methods[method].query for method in config.run.methods}
    for name in sorted({m.query for m in config.methods.values() if m.query}):
        query = config.queries[name]
        if query.top_k > public.num_classes:
            raise ConfigError(
                f"`queries.{name}.top_k` is {query.top_k}; expected at most the {public.num_classes} classes of "
                f"the public set `{row.public}`."
            )
        per_class = row.num_images / len(row.class_names)
        if label in config.run.datasets and name in read and sqrt(query.top_k) * query.noise_multiplier > per_class / 8:
            yield (
                f"`queries.{name}.noise_multiplier` is {query.noise_multiplier:g}: noise of "
                f"{sqrt(query.top_k) * query.noise_multiplier:.0f} votes against {per_class:.0f} images per class "
                f"of `{label}` will hide much of the signal."
            )
    levels = len(row.pretrain.network.channel_multipliers)
    if public.resolution % 2 ** (levels - 1):
        raise ConfigError(
            f"`{where}.pretrain.network.channel_multipliers` has {levels} levels; they halve the resolution "
            f"{levels - 1} times, and {public.resolution} pixels cannot be halved so often."
        )
    if row.sample.sigma_min >= row.sample.sigma_max:
        raise ConfigError(f"`{where}.sample.sigma_min` is {row.sample.sigma_min:g}; expected less than sigma_max.")
    _check_quality(config, label, row)
    _check_audit(where, row.audit)
    vectors = row.semantics.word_vectors
    if label in config.run.datasets and vectors and not Path(vectors).is_file():
        raise ConfigError(
            f"`{where}.semantics.word_vectors` is {vectors!r}, which is not there; write where the file is, or "
            "leave it out."
        )


def _check_words(where: str, row: s.Dataset) -> None:
    """What is written into a release names no place: found here, not when the budget is spent."""
    words = [("class_names", name) for name in row.class_names]
    words += [(f"release.{key}", getattr(row.release, key)) for key in ("pretty_name", "license")]
    for key, text in words:
        if text and not text.isprintable():
            raise ConfigError(f"`{where}.{key}` has {text!r}; expected printable characters on one line.")
        if text and (place := place_in(text)):
            raise ConfigError(
                f"`{where}.{key}` has {text!r}, of which {place!r} reads as a path, and releases hold none; "
                f"write it in words, without slashes{', here and in the labels' if key == 'class_names' else ''}."
            )


def _check_quality(config: Config, label: str, row: s.Dataset) -> None:
    key = f"`datasets.{label}.quality"
    names, wanted, drawn = row.quality.networks, row.quality.num_synthetic, row.sample.num_images
    if len(set(names)) != len(names):
        raise ConfigError(f"{key}.networks` is {list(names)}; expected each entry once.")
    for name in names:
        _known(f"datasets.{label}.quality.networks", name, config.networks)
        path = config.networks[name].path
        if label in config.run.datasets and path and not Path(path).is_file():
            raise ConfigError(f"`networks.{name}.path` is {path!r}, which is not there; write where its file is.")
    if wanted and wanted > drawn:
        raise ConfigError(f"{key}.num_synthetic` is {wanted}; expected at most the {drawn} of `sample.num_images`.")


def _check_audit(where: str, audit: s.AuditSettings) -> None:
    if audit.num_guesses > audit.num_canaries > 0:
        raise ConfigError(
            f"`{where}.audit.num_guesses` is {audit.num_guesses}; expected at most the {audit.num_canaries} of "
            "`audit.num_canaries`."
        )


def _check_network(label: str, row: Network) -> None:
    if row is NETWORKS.get(label):
        return
    if row.built_in:
        raise ConfigError(
            f"`networks.{label}.kind` is `{row.kind}`; that row is always there, name it as `{row.kind}`."
        )
    if row.path is None:
        raise ConfigError(f"`networks.{label}.path` is missing; write where the file of this network is.")
    for key in ("mean", "std"):
        if len(getattr(row, key)) != 3:
            raise ConfigError(
                f"`networks.{label}.{key}` has {len(getattr(row, key))} entries; expected 3, one a colour."
            )


def _with_classes(label: str, row: s.Dataset) -> s.Dataset:
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
    from privimage.data import reader

    try:
        found = reader(row.source)(s.Source(path=row.path, resolution=8, channels=1), None)
    except UserError as error:
        raise ConfigError(f"`datasets.{label}.path`: {error}") from error
    return replace(row, class_names=found.class_names)


def _check_shared(config: Config) -> Iterable[str]:
    """A sentence for every set of images that several rows to be run draw from."""
    rows: dict[str, list[str]] = {}
    for label in config.run.datasets:
        row = config.datasets[label]
        rows.setdefault(realpath(row.path) if row.path else row.source, []).append(label)
    for labels in rows.values():
        if len(labels) > 1:
            yield (
                f"{', '.join(f'`datasets.{label}`' for label in labels)} draw from the same images: their costs add "
                "up, though the odometer, the budget and the report of each count its own alone."
            )


def check_source(where: str, row: Any) -> None:
    """The fields that say where the images come from fit each other."""
    if row.source in s.DRAWN and row.path is not None:
        raise ConfigError(f"`{where}.path` is {row.path!r}; source `{row.source}` takes none, leave it out.")
    published = PUBLISHED.get(row.source, "it is where your images are: a folder, an archive, or a file of arrays")
    if row.source not in s.DRAWN and row.path is None and isinstance(published, str):
        raise ConfigError(f"`{where}.path` is missing, and source `{row.source}` cannot be fetched; {published}.")
    for key, source in (("variant", "emnist"), ("attribute", "celeba")):
        if getattr(row, key) is not None and row.source != source:
            raise ConfigError(
                f"`{where}.{key}` is {getattr(row, key)!r}; only source `{source}` takes it, leave it out."
            )
    if row.source == "emnist" and row.variant is None:
        raise ConfigError(f"`{where}.variant` is missing; name the variant of EMNIST to read, such as `letters`.")


def _known(key: str, name: str, table: Mapping[str, Any]) -> None:
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1, cutoff=0.4)
        hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(table))}."
        raise ConfigError(f"`{key}` names `{name}`, which is not in its table; {hint}")
