"""Ablations: each value is a method of its own by overlay; what a method has anyway is that method; included files."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import yaml
from checkout import ROOT, dry_run, snakemake
from leaks import is_internal, leaks, loose
from snakemake.utils import update_config

from privimage import config as c
from privimage.ablations import epsilons, points
from privimage.includes import included
from privimage.schema import ConfigError, plain

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
SELECTION = {"method": "privimage", "setting": "select.classes_per_label", "values": [1, 2, 5], "epsilons": [10]}
NOISE = {"method": "privimage", "setting": "query.noise_multiplier", "values": [5, 10, 50.5]}
WIDTH = {"method": "pdp", "setting": "pretrain.network.channel_multipliers", "values": [[1, 1], [1, 2, 2]]}
EPSILON = {"method": "scratch", "setting": "epsilon", "values": [0.2, 1, 20]}


def overlaid(*files: str, **extra) -> dict:
    """The default with the files' settings and others merged over it, as the workflow merges them."""
    raw = copy.deepcopy(DEFAULT)
    for name in files:
        update_config(raw, yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8")))
    update_config(raw, copy.deepcopy(extra))
    return raw


def loaded(**rows: dict) -> c.Config:
    """The default with these ablations, all of them to be run."""
    return c.load(overlaid(ablations=rows, run={"ablations": list(rows)}))


def refused(**rows: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(**rows)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.count("expected") <= 1
    return sentence


def test_a_value_is_the_methods_own_row_with_one_setting_changed():
    config = loaded(classes=SELECTION, width=WIDTH)
    for value in SELECTION["values"]:
        changed = config.of_method("select", "digits", f"classes.{value}")
        assert plain(changed) == {
            **plain(config.of_method("select", "digits", "privimage")),
            "classes_per_label": value,
        }
        assert config.methods[f"classes.{value}"].query == "default"
        for section in ("pretrain", "finetune", "sample"):
            assert config.of_method(section, "digits", f"classes.{value}") == getattr(
                config.datasets["digits"], section
            )
    deep = config.of_method("pretrain", "digits", "width.1-2-2")
    assert deep.network.channel_multipliers == (1, 2, 2) and config.methods["width.1-2-2"].policy == "whole"
    assert deep.network.base_channels == config.datasets["digits"].pretrain.network.base_channels


def test_a_method_s_own_overrides_stay_under_an_ablation_of_another_setting():
    row = {"method": "privimage-2stage", "setting": "pretrain.num_steps", "values": [7]}
    changed = loaded(steps=row).of_method("pretrain", "digits", "steps.7")
    assert (changed.num_steps, changed.whole_fraction) == (7, 0.5)


def test_a_query_s_value_is_a_query_of_its_own_that_its_method_reads_and_pays_for():
    config = loaded(noise=NOISE)
    for value, label in ((5, "noise.5"), (50.5, "noise.50.5")):
        method = config.methods[label]
        assert (method.query, method.releases) == (label, ("query", "finetune"))
        assert plain(config.query("digits", label)) == {"top_k": 1, "noise_multiplier": value}
    assert config.query("digits", "default").noise_multiplier == 10


def test_where_a_set_overrides_the_query_the_ablation_is_of_what_it_has():
    own = {"digits": {"queries": {"default": {"top_k": 3}}}}
    config = c.load(overlaid(ablations={"noise": NOISE}, run={"ablations": ["noise"]}, datasets=own))
    assert plain(config.query("digits", "noise.5")) == {"top_k": 3, "noise_multiplier": 5}
    assert config.query("digits", "default").top_k == 3 and config.queries["default"].top_k == 1


def test_what_the_method_has_anyway_is_the_method_and_is_not_paid_for_twice():
    config = loaded(classes=SELECTION, noise=NOISE)  # the default selects one class and has noise of 10
    assert [p.method for p in points(config, "digits", "classes")] == ["privimage", "classes.2", "classes.5"]
    assert [(p.method, p.epsilon) for p in points(config, "digits", "noise")] == [
        ("noise.5", 1), ("noise.5", 10), ("privimage", 1), ("privimage", 10), ("noise.50.5", 1), ("noise.50.5", 10),
    ]  # fmt: skip
    own = {"digits": {"select": {"classes_per_label": 2}}}
    config = c.load(overlaid(ablations={"classes": SELECTION}, run={"ablations": ["classes"]}, datasets=own))
    assert [p.method for p in points(config, "digits", "classes")] == ["classes.1", "privimage", "classes.5"]


def test_epsilon_varies_without_a_method_more():
    config = loaded(epsilon=EPSILON)
    assert set(config.methods) == set(c.load(DEFAULT).methods)
    assert [(p.method, p.epsilon, p.value) for p in points(config, "digits", "epsilon")] == [
        ("scratch", 0.2, 0.2), ("scratch", 1, 1), ("scratch", 20, 20),
    ]  # fmt: skip
    assert epsilons(config) == [1, 10, 0.2, 20]


def test_seeds_are_the_run_s_or_the_first_alone():
    rows = {"classes": SELECTION, "noise": NOISE}
    methods = ["privimage", "scratch"]
    run = {"ablations": list(rows), "methods": methods, "seeds": [3, 4], "first_seed_only": ["noise", "scratch"]}
    config = c.load(overlaid(ablations=rows, run=run))
    assert {p.seed for p in points(config, "digits", "classes")} == {3, 4}
    assert {p.seed for p in points(config, "digits", "noise")} == {3}
    assert {seed for method, seed, _ in config.run.releases() if method == "scratch"} == {3}


def test_rows_that_are_not_run_add_nothing():
    config = c.load(overlaid(ablations={"classes": SELECTION}))
    assert set(config.methods) == set(c.load(DEFAULT).methods) and config.queries.keys() == DEFAULT["queries"].keys()


REFUSED = {
    "a typo in the setting": ({"setting": "select.classes_per_labl"}, "`ablations.classes`", "value 1: ", "did you"),
    "no such section": ({"setting": "accuracy.repetitions"}, "`ablations.classes.setting` is 'accuracy.repetitions'"),
    "a section whole": ({"setting": "select"}, "`ablations.classes.setting` is 'select'"),
    "a wrong type": ({"values": [1, "two"]}, "the value 'two'", "expected a whole number"),
    "out of bounds": ({"values": [0]}, "the value 0", "expected at least 1"),
    "too many": ({"values": [7]}, "takes 70 public classes"),
    "no such method": ({"method": "privimag"}, "`ablations.classes.method`", "did you mean `privimage`?"),
    "a value twice": ({"values": [1, 1.0, 1]}, "gives the name `classes.1` twice"),
    "a value that is no name": ({"values": ["a/b"]}, "'a/b'; expected letters"),
    "a section as value": ({"values": [{"a": 1}]}, "expected numbers, words"),
    "no values": ({"values": []}, "`ablations.classes.values` is []; expected at least one entry"),
    "a query that is not read": ({"method": "pdp", "setting": "query.top_k"}, "the method `pdp` reads none"),
    "a typo in the query": ({"setting": "query.top"}, "`ablations.classes.query.top` is not a setting"),
    "an epsilon of 0": ({"setting": "epsilon", "values": [0], "epsilons": None}, "has 0; expected epsilons"),
    "epsilon as text": ({"setting": "epsilon", "values": ["much"], "epsilons": None}, "'much'; expected epsilons"),
    "epsilons of epsilon": ({"setting": "epsilon", "epsilons": [1]}, "`ablations.classes.epsilons` is given"),
    "an epsilon too fine": ({"epsilons": [1.0000001]}, "at most six digits"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_is_one_sentence(mistake):
    change, *words = REFUSED[mistake]
    sentence = refused(classes={**SELECTION, **change})
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize("key", ["run.ablations", "run.first_seed_only"])
def test_an_unknown_ablation_is_named(key):
    with pytest.raises(ConfigError, match=f"`{key}` names `clases`"):
        run = {key.partition(".")[2]: ["clases"], "ablations": ["classes"], **{key.partition(".")[2]: ["clases"]}}
        c.load(overlaid(ablations={"classes": SELECTION}, run=run))


def test_the_files_of_the_configuration_folder_load():
    """Each ablation varies on the data set that its file runs, and none is warned of but by the published numbers."""
    ablations = c.load(overlaid("ablations"))
    assert set(ablations.run.ablations) == set(ablations.ablations) and ablations.warnings == ()
    study = c.load(overlaid("ablations", "study"))
    noises = points(study, "digits", "query-noise")
    assert [p.seed for p in noises] == [0, 1, 2] * (len(noises) // 3) and noises[0].method == "privimage"
    assert min(p.value for p in noises) == noises[0].value < noises[-1].value
    assert study.run.ablations == ("query-noise",) and study.warnings == ()
    for config in (ablations, study):
        for name in config.run.ablations:
            found = points(config, "digits", name)
            assert len({(p.method, p.seed, p.epsilon) for p in found}) == len(found) >= 6


def test_what_the_paper_includes_does_not_leak_from_one_data_set_into_another():
    """Each data set of the paper is what its own file makes it, but for the query's noise, as the file says."""
    whole = c.load(overlaid("cifar10", "celeba32", "celeba64", "paper"))
    for name in whole.run.datasets:
        alone = c.load(overlaid(name))
        ours, theirs = plain(whole.datasets[name]), plain(alone.datasets[name])
        assert {k: v for k, v in ours.items() if k not in ("quality", "queries")} == {
            k: v for k, v in theirs.items() if k not in ("quality", "queries")
        }
        query = whole.query(name, "default")
        assert query.top_k == alone.query(name, "default").top_k
        assert query.noise_multiplier == (50 if name == "cifar10" else alone.query(name, "default").noise_multiplier)


def test_included_files_are_there_and_include_none(tmp_path):
    (tmp_path / "a.yaml").write_text("run: {}")
    (tmp_path / "b.yaml").write_text("include: [a.yaml]")
    (tmp_path / "c.yaml").write_text("a: [")
    (tmp_path / "d.yaml").write_text("1")
    assert included({"include": ["a.yaml"]}, tmp_path) == [tmp_path / "a.yaml"] and included({}, tmp_path) == []
    for named, words in (
        ("a.yaml", "expected a list"),
        (["absent.yaml"], "cannot be read (No such file"),
        (["b.yaml"], "includes others"),
        (["c.yaml"], "is no YAML"),
        (["d.yaml"], "holds no settings"),
    ):
        with pytest.raises(ConfigError, match=re.escape(words)):
            included({"include": named}, tmp_path)


def study(folder: Path, text: str, *args: str) -> tuple[str, ...]:
    """Arguments for a target with the toy configuration and the text merged over it."""
    (folder / "overlay.yaml").write_text(text)
    return ("study", "--forceall", "-p", "--configfile", "tests/toy.yaml", str(folder / "overlay.yaml"), *args)


def test_a_study_waits_for_no_attack_no_release_folder_and_no_report_and_leaks_nothing(fresh, tmp_path):
    """And the file that includes others wins over them, as `--config` does over it."""
    text = """
include: [config/ablations.yaml]
run: {ablations: [query-noise], methods: [privimage, scratch], epsilons: [2], seeds: [5]}
ablations: {query-noise: {values: [10, 50], epsilons: [4]}}
state_dir: here
"""
    jobs = dry_run(fresh, *study(tmp_path, text, "--config", "state_dir=there"))
    assert {"there" in job.command for job in jobs if job.rule == "finetune"} == {True}
    made = {path for job in jobs for path in job.output}
    inside = "results/digits/internal"
    assert {f"{inside}/table.csv", f"{inside}/ablation/query-noise.csv", f"{inside}/ablation/query-noise.png"} <= made
    cells = {(j.wildcards["method"], j.wildcards["seed"], j.wildcards["epsilon"]) for j in jobs if j.rule == "finetune"}
    cells = sorted(cells)
    assert cells == [
        ("privimage", "5", "2"),
        ("privimage", "5", "4"),
        ("query-noise.50", "5", "4"),
        ("scratch", "5", "2"),
    ]
    assert len([job for job in jobs if job.rule == "query"]) == 2  # one for each noise, whatever the epsilon
    rules = {job.rule for job in jobs}
    assert not rules & {"membership", "memorisation", "audit", "semantics", "release", "report", "report_internal"}
    assert all(map(is_internal, (path for job in jobs if job.rule.startswith("tabulate") for path in job.output)))
    assert leaks(jobs) == set() and loose(jobs) == set()


def test_methods_that_pretrain_alike_share_the_model_and_others_do_not(fresh, tmp_path):
    text = """
run: {methods: [random, longer, privimage, other-query, wider], epsilons: [2], seeds: [5, 6]}
queries: {again: {noise_multiplier: 10}}
methods:
  longer: {policy: query, query: default, settings: {finetune: {num_steps: 9}, sample: {guidance_scale: 1.0}}}
  wider: {policy: query, query: default, settings: {pretrain: {num_steps: 9}, finetune: {num_steps: 9}}}
  other-query: {policy: query, query: again}
"""
    jobs = dry_run(fresh, *study(tmp_path, text))
    trained = sorted((j.wildcards["method"], j.wildcards["seed"]) for j in jobs if j.rule == "pretrain")
    assert trained == sorted((m, s) for m in ("random", "privimage", "other-query", "wider") for s in "56")
    started = {
        (j.wildcards["method"], path.split("/")[2])
        for j in jobs
        if j.rule == "finetune"
        for path in j.input
        if path.endswith("pretrained.safetensors")
    }
    alone = {(m, m) for m in ("random", "privimage", "other-query", "wider")}
    assert started == {*alone, ("longer", "privimage")}


def test_methods_that_train_alike_share_the_draw_and_others_do_not(fresh, tmp_path):
    text = """
run: {methods: [drawn-more, longer, longer-guided, again], epsilons: [2, 4], seeds: [5]}
queries: {again: {noise_multiplier: 10}}
methods:
  longer: {policy: query, query: default, settings: {finetune: {num_steps: 9}}}
  longer-guided: {policy: query, query: default, settings: {finetune: {num_steps: 9}, sample: {guidance_scale: 1.0}}}
  drawn-more: {policy: query, query: default, settings: {sample: {num_images: 90}}}
  again: {policy: query, query: again}
"""
    jobs = [job for job in dry_run(fresh, *study(tmp_path, text), "-p") if job.rule == "finetune"]
    alike = {j.wildcards["method"]: re.search(r"--alike (.*?) +--", j.command)[1].split() for j in jobs}
    assert alike["privimage"] == alike["drawn-more"] == ["privimage", "drawn-more"]
    assert alike["longer"] == alike["longer-guided"] == ["longer", "longer-guided"] and alike["again"] == ["again"]
    waits = {
        (job.wildcards["method"], job.wildcards["epsilon"]): [path for path in job.input if "finetuned" in path]
        for job in jobs
    }
    cells = {
        (method, epsilon): [f"results/digits/{first}/seed5/eps{epsilon}/finetuned.safetensors"] if first else []
        for method, first in {
            "privimage": None, "drawn-more": "privimage", "longer": None, "longer-guided": "longer", "again": None
        }.items()
        for epsilon in "24"
    }  # fmt: skip
    assert waits == cells


def test_what_is_said_of_all_releases_together_counts_those_of_ablations(fresh, tmp_path):
    text = """
include: [config/ablations.yaml]
run: {ablations: [query-noise, epsilon], methods: [privimage, scratch], epsilons: [2], seeds: [5]}
ablations:
  query-noise: {values: [10, 50], epsilons: [2]}
  epsilon: {method: scratch, setting: epsilon, values: [2, 4]}
"""
    (tmp_path / "overlay.yaml").write_text(text)
    targets = [f"results/digits/{name}" for name in ("report.html", "scratch/seed5/eps2/release/SHA256SUMS")]
    jobs = dry_run(fresh, *targets, "--configfile", "tests/toy.yaml", str(tmp_path / "overlay.yaml"))
    (gathered,) = [job for job in jobs if job.rule == "statements"]
    cells = ("privimage/seed5/eps2", "scratch/seed5/eps2", "query-noise.50/seed5/eps2", "scratch/seed5/eps4")
    assert gathered.input == tuple(f"results/digits/{cell}/privacy.json" for cell in cells)
    assert all(gathered.output[0] in job.input for job in jobs if job.rule in ("release", "report"))


@pytest.mark.slow
def test_the_paper_plans_where_no_data_is(fresh, tmp_path):
    (tmp_path / "once.yaml").write_text("run: {seeds: [0], epsilons: [10]}")
    files = ("config/paper.yaml", str(tmp_path / "once.yaml"))
    done = snakemake(fresh, "paper", "--dry-run", "--quiet", "rules", "--configfile", *files)
    assert done.returncode == 0, done.stdout
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.M))
    assert counts["tabulate_run"] == counts["tabulate_paper"] == "3" and counts["tabulate_ablation"] == "9"
    selection, noise, size = 4 + 4 + 4, 4 + 5 + 5, 4 + 4 + 4  # without what the method is anyway
    assert int(counts["finetune"]) == 3 * 11 + selection + noise + size
