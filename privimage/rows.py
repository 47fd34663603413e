"""The rows of the configuration's tables, and what to run: every setting of ``settings``, collected. No torch."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from typing import Any, Literal

from privimage import evaluation_settings as e
from privimage import settings as s
from privimage.generators import GENERATORS
from privimage.setting import REQUIRED, setting

GeneratorSettings = make_dataclass(
    "GeneratorSettings",
    [
        (name, module.Settings, setting(module.Settings(), (module.Settings.__doc__ or "").strip()))
        for name, module in GENERATORS.items()
        if module.Settings
    ],
    frozen=True,
)
GeneratorSettings.__doc__ = "Settings of generators that train otherwise than `pretrain` and `finetune` say, by name."


@dataclass(frozen=True)
class Public(s.Place):
    """A row of the table of public sets: fixes resolution, channels and the semantic query function."""

    resolution: int = setting(REQUIRED, "Side of the square images.", unit="pixels", minimum=4)
    channels: Literal[1, 3] = setting(REQUIRED, "1 for grey, 3 for RGB.")
    num_classes: int = setting(REQUIRED, "Public classes.", minimum=2)
    preprocess: s.PreprocessSettings = setting(s.PreprocessSettings(), "Overrides of `preprocess`.")
    classifier: s.ClassifierSettings = setting(s.ClassifierSettings(), "Overrides of `classifier`.")
    compute: s.ComputeSettings = setting(s.ComputeSettings(), "Overrides of `compute`.")


@dataclass(frozen=True)
class Dataset(s.Place):
    """A row of the table of sensitive sets: declared public constants, and what differs from the defaults."""

    public: str = setting(REQUIRED, "Row of `publics`: the public set, which fixes resolution and channels.")
    num_images: int = setting(REQUIRED, "Training images, declared: a public constant.", unit="images", minimum=1)
    class_names: tuple[str, ...] | None = setting(
        None,
        "Classes, declared: public constants. One name: unconditional. Left out: the names of the class folders under "
        "`path`, which are then taken to be public.",
    )
    delta: float = setting(REQUIRED, "Delta of the guarantee; well below 1 / num_images.", above=0, below=1)
    images_per_unit: int = setting(1, "Images that one person may have in the set, for a second epsilon.", minimum=1)
    budget: float | None = setting(
        None,
        "Epsilon that everything drawn from this set may cost together; required for images of one's own.",
        above=0,
    )
    proxy: str | None = setting(
        None, "Row of `datasets` of public images that stands in for this one where methods are chosen (`pick`)."
    )
    reproducible_noise: bool = setting(False, "For tests only: noise from the seed. Voids the guarantee, and says so.")
    preprocess: s.PreprocessSettings = setting(s.PreprocessSettings(), "Overrides of `preprocess`.")
    select: s.SelectSettings = setting(s.SelectSettings(), "Overrides of `select`.")
    pretrain: s.PretrainSettings = setting(s.PretrainSettings(), "Overrides of `pretrain`.")
    finetune: s.FinetuneSettings = setting(s.FinetuneSettings(), "Overrides of `finetune`.")
    queries: dict[str, Any] | None = setting(None, "Overrides of rows of `queries`, for this set alone.")
    generators: GeneratorSettings = setting(GeneratorSettings(), "Overrides of `generators`.")
    sample: s.SamplingSettings = setting(s.SamplingSettings(), "Overrides of `sample`.")
    quality: e.QualitySettings = setting(e.QualitySettings(), "Overrides of `quality`.")
    accuracy: e.AccuracySettings = setting(e.AccuracySettings(), "Overrides of `accuracy`.")
    semantics: e.SemanticsSettings = setting(e.SemanticsSettings(), "Overrides of `semantics`.")
    memorisation: e.MemorisationSettings = setting(e.MemorisationSettings(), "Overrides of `memorisation`.")
    membership: e.MembershipSettings = setting(e.MembershipSettings(), "Overrides of `membership`.")
    audit: e.AuditSettings = setting(e.AuditSettings(), "Overrides of `audit`.")
    release: s.ReleaseSettings = setting(s.ReleaseSettings(), "Overrides of `release`.")
    compute: s.ComputeSettings = setting(s.ComputeSettings(), "Overrides of `compute`.")


@dataclass(frozen=True)
class Ablation:
    """One setting of a method at several values, each of which is a method of its own: `<ablation>.<value>`."""

    method: str = setting(
        REQUIRED, "Row of `methods` that is ablated; what the ablation does not name stays as it has it."
    )
    values: tuple[Any, ...] = setting(REQUIRED, "Its values. That which the method has anyway is the method itself.")
    epsilons: tuple[float, ...] | None = setting(
        None, "Privacy budgets at which it varies; none: those of `run`, or the values where `epsilon` varies.", above=0
    )
    setting: str = setting(  # the last: it hides the function
        REQUIRED,
        "What varies: a key of the method's settings, such as `select.classes_per_label` or "
        "`pretrain.network.base_channels`, of its query, such as `query.noise_multiplier`, or `epsilon`.",
    )


@dataclass(frozen=True)
class Run:
    """What to run: names of rows, and numbers. Every combination is run."""

    datasets: tuple[str, ...] = setting(REQUIRED, "Rows of `datasets`.")
    methods: tuple[str, ...] = setting(REQUIRED, "Rows of `methods`.")
    epsilons: tuple[float, ...] = setting(REQUIRED, "Privacy budgets; each is a release of its own.", above=0)
    seeds: tuple[int, ...] = setting((0,), "Seeds of initialisation and sampling; never of privacy noise.", minimum=0)
    first_seed_only: tuple[str, ...] | None = setting(
        None, "Methods and ablations that are run with the first of the seeds alone; none: all with every seed."
    )
    ablations: tuple[str, ...] | None = setting(
        None, "Rows of `ablations` that the run releases too, by that target; cards and reports count them."
    )

    def seeds_of(self, name: str) -> tuple[int, ...]:
        """The seeds with which a method or an ablation is run."""
        return self.seeds[:1] if name in (self.first_seed_only or ()) else self.seeds

    def releases(self) -> list[tuple[str, int, float]]:
        """Method, seed and epsilon of everything that is run on each data set, in order."""
        return [
            (method, seed, epsilon)
            for method in self.methods
            for seed in self.seeds_of(method)
            for epsilon in self.epsilons
        ]


def epsilon_label(epsilon: float) -> str:
    """The one spelling of an epsilon in paths: 1, 1.0 and 1.00 are all ``1``."""
    return format(float(epsilon), "g")
