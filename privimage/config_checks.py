"""What a configuration may contradict itself in: refused with one sentence, or only warned of. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt
from os.path import realpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privimage import ablations
from privimage import evaluation_settings as e
from privimage import settings as s
from privimage.data.published import PUBLISHED
from privimage.generators import GENERATORS
from privimage.methods import OVERRIDABLE, Method
from privimage.networks import NETWORKS, Network
from privimage.releasing.places import place_in
from privimage.rows import Dataset, Public, epsilon_label
from privimage.schema import ConfigError, known

if TYPE_CHECKING:
    from privimage.config import Config


BEFORE_AND_AFTER = ("select", "pretrain", "sample")  # private training


def check(config: Config) -> Iterable[str]:
    """Raise what contradicts itself; yield what is only unwise."""
    for key, wanted, table in (
        ("run.datasets", config.run.datasets, config.datasets),
        ("run.methods", config.run.methods, config.methods),
    ):
        for name in wanted:
            known(key, name, table)
    for name in config.run.first_seed_only or ():
        known("run.first_seed_only", name, dict.fromkeys((*config.run.methods, *(config.run.ablations or ()))))
    for key in ("datasets", "methods", "epsilons", "seeds", "ablations"):
        values = getattr(config.run, key) or ()
        if len(set(values)) != len(values):
            raise ConfigError(f"`run.{key}` is {list(values)}; expected each entry once.")
    for epsilon in ablations.epsilons(config):
        if float(epsilon_label(epsilon)) != epsilon:
            raise ConfigError(f"`run.epsilons` has {epsilon!r}; expected at most six digits, as paths spell them.")
    for label, method in config.methods.items():
        if (method.policy == "query") != (method.query is not None):
            raise ConfigError(
                f"`methods.{label}.query` is {method.query!r} with policy `{method.policy}`; "
                "the policy `query` needs a row of `queries`, the others take none."
            )
        if method.query is not None:
            known(f"methods.{label}.query", method.query, config.queries)
        known(f"methods.{label}.generator", method.generator, GENERATORS)
    ablations.check(config)
    for label, network in config.networks.items():
        _check_network(label, network)
    for label, row in config.publics.items():
        check_source(f"publics.{label}", row)
    for label, row in config.datasets.items():
        known(f"datasets.{label}.public", row.public, config.publics)
        if row.class_names is None:  # of a row that is not run
            continue
        yield from _check_dataset(config, label, row)
    yield from _check_shared(config)


def check_overrides(methods: Mapping[str, Method]) -> None:
    """Return if methods override sections, and those alone that they may."""
    for label, method in methods.items():
        for section, changed in (method.settings or {}).items():
            known(f"methods.{label}.settings", section, dict.fromkeys(OVERRIDABLE))
            if not isinstance(changed, Mapping):
                raise ConfigError(f"`methods.{label}.settings.{section}` is {changed!r}; expected a section.")


def _check_dataset(config: Config, label: str, row: Dataset) -> Iterable[str]:
    where, public = f"datasets.{label}", config.publics[row.public]
    check_source(where, row)
    if len(set(row.class_names)) != len(row.class_names):
        raise ConfigError(f"`{where}.class_names` names a class twice; expected each once.")
    _check_words(where, row)
    if row.proxy is not None:
        _check_proxy(config, label, row)
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
    read = {config.methods[method].query for method in config.run.methods}
    for name in row.queries or {}:
        known(f"{where}.queries", name, config.queries)
    for name in sorted({m.query for m in config.methods.values() if m.query}):
        query = config.query(label, name)
        if query.top_k > public.num_classes:
            raise ConfigError(
                f"`queries.{name}.top_k` is {query.top_k} for `{label}`; expected at most the "
                f"{public.num_classes} classes of the public set `{row.public}`."
            )
        per_class = row.num_images / len(row.class_names)
        if label in config.run.datasets and name in read and sqrt(query.top_k) * query.noise_multiplier > per_class / 8:
            yield (
                f"`queries.{name}.noise_multiplier` is {query.noise_multiplier:g}: noise of "
                f"{sqrt(query.top_k) * query.noise_multiplier:.0f} votes against {per_class:.0f} images per class "
                f"of `{label}` will hide much of the signal."
            )
    _check_stages(where, row.select, row.pretrain, row.sample, row, config.publics)
    if label in config.run.datasets:
        _check_methods(config, label)
    _check_quality(config, label, row)
    _check_audit(where, row.audit)
    vectors = row.semantics.word_vectors
    if label in config.run.datasets and vectors and not Path(vectors).is_file():
        raise ConfigError(
            f"`{where}.semantics.word_vectors` is {vectors!r}, which is not there; write where the file is, or "
            "leave it out."
        )


def _check_methods(config: Config, label: str) -> None:
    """What methods override for themselves is there, and what is run of them fits the set."""
    for name, method in config.methods.items():
        for section in method.settings or {}:
            config.of_method(section, label, name)
    points = [point for name in config.run.ablations or () for point in ablations.points(config, label, name)]
    for name in dict.fromkeys((*config.run.methods, *(point.method for point in points))):
        select, pretrain, sample = (
            config.of_method(section, label, name) for section in OVERRIDABLE if section != "finetune"
        )
        _check_stages(f"methods.{name}.settings", select, pretrain, sample, config.datasets[label], config.publics)
        _check_num_images(config, label, name)
        _check_guidance(config, label, name)
        _check_damping(config, label, name)
        if config.methods[name].generator == "evolution":
            _check_evolution(config, label, name)


def _check_evolution(config: Config, label: str, name: str) -> None:
    """There is a model to draw by, and nobody will want more images than there are once they are paid for."""
    if config.methods[name].policy == "none":
        raise ConfigError(
            f"`methods.{name}.policy` is `none`; expected another with the generator `evolution`, which trains nothing "
            "and would draw noise."
        )
    size, wanted = (
        config.of_method("finetune", label, name).population_size,
        config.of_method("sample", label, name).num_images,
    )
    if size < wanted:
        raise ConfigError(
            f"`datasets.{label}.generators.evolution.finetune.population_size` is {size} for the method `{name}`; "
            f"expected at least `sample.num_images`, {wanted}: no more images can be drawn than there are."
        )


def _check_stages(
    where: str, select: s.SelectSettings, pretrain: Any, sample: s.SampleSettings, row: Dataset,
    publics: Mapping[str, Public],
) -> None:  # fmt: skip
    public = publics[row.public]
    wanted = select.classes_per_label * len(row.class_names)
    if wanted > public.num_classes:
        raise ConfigError(
            f"`{where}.select.classes_per_label` is {select.classes_per_label}; with {len(row.class_names)} "
            f"classes it takes {wanted} public classes, and `{row.public}` has {public.num_classes}."
        )
    if type(pretrain) is s.PretrainSettings:
        _check_levels(f"{where}.pretrain.network.channel_multipliers", pretrain.network, public.resolution)
    if sample.sigma_min >= sample.sigma_max:
        raise ConfigError(f"`{where}.sample.sigma_min` is {sample.sigma_min:g}; expected less than sigma_max.")


def _check_levels(where: str, network: s.NetworkSettings, resolution: int) -> None:
    levels = len(network.widths(resolution)[1])
    if resolution % 2 ** (levels - 1):
        raise ConfigError(
            f"`{where}` has {levels} levels; they halve the resolution {levels - 1} times, and {resolution} pixels "
            "cannot be halved so often."
        )


def _check_num_images(config: Config, label: str, name: str) -> None:
    wanted, drawn = config.datasets[label].quality.num_synthetic, config.of_method("sample", label, name).num_images
    if wanted and wanted > drawn:
        raise ConfigError(
            f"`datasets.{label}.quality.num_synthetic` is {wanted}; expected at most the {drawn} of "
            f"`sample.num_images` of the method `{name}`."
        )


def unguided(sample: s.SampleSettings) -> str:
    """What is wrong with a window of guidance that holds no noise level."""
    levels = ", ".join(f"{level:.2g}" for level in sample.levels())
    return (
        f"guidance_sigma_min is {sample.guidance_sigma_min:g}, guidance_sigma_max {sample.guidance_sigma_max}, and the "
        f"{sample.num_steps} steps are at {levels}; expected one of these between the two."
    )


def _check_guidance(config: Config, label: str, name: str) -> None:
    """Some model can guess without a label, some noise level is guided, and there is something to be guided from."""
    sample, method, row = config.of_method("sample", label, name), config.methods[name], config.datasets[label]
    if not sample.guidance_scale or not GENERATORS[method.generator].GUIDED:
        return
    public = sample.guidance == "domain" and method.policy != "none"
    if len(row.class_names) == 1 and not public:
        raise ConfigError(
            f"`datasets.{label}.sample` has a guidance_scale of {sample.guidance_scale:g} for the method `{name}`, and "
            "one class, which is drawn without labels; expected guidance `domain`, for a method with public images, or "
            "a guidance_scale of 0."
        )
    stage = "pretrain" if public else "finetune"  # of the model that guesses without a label
    how = config.of_method(stage, label, name)
    labelled = len(row.class_names) > 1 and getattr(how, "conditional", True)
    if labelled and how.label_dropout == 0:
        raise ConfigError(
            f"`datasets.{label}.{stage}.label_dropout` is 0 for the method `{name}`, whose sample.guidance is "
            f"`{sample.guidance}` with a scale of {sample.guidance_scale:g}; expected more, which teaches the model to "
            "draw without a label, or a guidance_scale of 0."
        )
    if not sample.guided_levels():
        raise ConfigError(f"`datasets.{label}.sample` guides the method `{name}` at no noise level: {unguided(sample)}")


def _check_damping(config: Config, label: str, name: str) -> None:
    """Gradients are damped by public images, so by those of a method that uses some, and there are enough."""
    directions = getattr(config.of_method("finetune", label, name), "damped_directions", 0)
    own = "damped_directions" in (config.methods[name].settings or {}).get("finetune", {})
    where = f"{f'methods.{name}.settings' if own else f'datasets.{label}'}.finetune.damped_directions"
    if directions and config.methods[name].policy == "none":
        raise ConfigError(
            f"`{where}` is {directions} for the method `{name}`, which uses no public images; set "
            f"`methods.{name}.settings.finetune.damped_directions` to 0."
        )
    public = config.publics[config.datasets[label].public]
    wanted, drawn = s.IMAGES_PER_DIRECTION * directions, public.num_classes * (public.images_per_class or 0)
    if 0 < drawn < wanted:  # of other sources the number is not known here
        raise ConfigError(
            f"`{where}` is {directions} for the method `{name}`, which takes {wanted} public images; "
            f"`{config.datasets[label].public}` has at most {drawn}; lower it, or raise `images_per_class` there."
        )


def _check_proxy(config: Config, label: str, row: Dataset) -> None:
    """What stands in for a sensitive set holds none of its images, as far as rows tell, and has its constants."""
    where = f"datasets.{label}.proxy"
    known(where, row.proxy, config.datasets)
    other = config.datasets[row.proxy]
    if other.proxy is not None:
        raise ConfigError(f"`{where}` is `{row.proxy}`, which has a proxy itself; expected a row of public images.")
    if _same_images(row, other):
        raise ConfigError(
            f"`{where}` is `{row.proxy}`, which draws from the same images; expected a row of public images: what is "
            "chosen on sensitive ones is not covered by the guarantee."
        )
    if _same_images(other, config.publics[other.public]):
        raise ConfigError(
            f"`{where}` is `{row.proxy}`, whose images are in its public set `{other.public}`; expected a public row "
            "`without_classes` that the proxy has."
        )
    if (row.num_images, row.delta) != (other.num_images, other.delta):
        raise ConfigError(
            f"`{where}` is `{row.proxy}`, which declares {other.num_images} images and delta {other.delta:g}; expected "
            f"{row.num_images} and {row.delta:g}, so that its noise is that of `{label}`."
        )


def _same_images(one: s.Place, other: s.Place) -> bool:
    """Whether two rows may share images, as far as paths and classes tell."""
    places = []
    for row in (one, other):
        drawn = row.source in s.DRAWN
        places.append((row.source if drawn else realpath(row.path or f"data/{row.source}"), row.variant))
    return places[0] == places[1] and not (_apart(one, other) or _apart(other, one))


def _apart(one: s.Place, other: s.Place) -> bool:
    """Whether the one names classes of which the other takes none."""
    taken = set(one.classes or ())
    if not taken:
        return False
    return taken.isdisjoint(other.classes) if other.classes else taken <= set(other.without_classes or ())


def _check_words(where: str, row: Dataset) -> None:
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


def _check_quality(config: Config, label: str, row: Dataset) -> None:
    names = row.quality.networks
    if len(set(names)) != len(names):
        raise ConfigError(f"`datasets.{label}.quality.networks` is {list(names)}; expected each entry once.")
    for name in names:
        known(f"datasets.{label}.quality.networks", name, config.networks)
        path = config.networks[name].path
        if label in config.run.datasets and path and not Path(path).is_file():
            raise ConfigError(f"`networks.{name}.path` is {path!r}, which is not there; write where its file is.")


def _check_audit(where: str, audit: e.AuditSettings) -> None:
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
    if row.classes is not None and row.without_classes is not None:
        raise ConfigError(f"`{where}` has `classes` and `without_classes`; expected one of them, leave out the other.")
    if row.source == "emnist" and row.variant is None:
        raise ConfigError(f"`{where}.variant` is missing; name the variant of EMNIST to read, such as `letters`.")
    if row.source not in s.DRAWN and row.images_per_class is not None:
        raise ConfigError(
            f"`{where}.images_per_class` is for images that are drawn; source `{row.source}` has its own."
        )
