"""Picking on a proxy: the best mean wins, incomplete methods do not count; ranks against those of the set itself."""

import subprocess
import sys

import pytest
import yaml
from checkout import ROOT, dry_run, snakemake
from leaks import is_internal, leaks, loose
from PIL import Image
from test_config import DEFAULT, changed

from privimage import pick
from privimage.config import load
from privimage.errors import UserError
from privimage.reporting import ranking
from privimage.reporting.summary import write_rows
from privimage.schema import ConfigError, overlay

COLUMNS = ("dataset", "method", "seed", "epsilon", "epsilon_spent", "protocol", "accuracy_mean")


def rows(means, epsilons=(1.0, 10.0), seeds=(0, 1)):
    """A table of releases whose accuracy rises with epsilon and seed by the same for every method."""
    return [
        {
            "dataset": "d",
            "method": m,
            "seed": s,
            "epsilon": e,
            "epsilon_spent": e,
            "accuracy_mean": mean + e / 100 + s / 50,
        }
        for m, mean in means.items()
        for e in epsilons
        for s in seeds
    ]


REAL = {"a": 0.5, "b": 0.6, "c": 0.55, "d": 0.4}
PROXY = {"a": 0.7, "b": 0.72, "c": 0.75, "d": 0.3}


def test_the_best_mean_over_seeds_and_epsilons_is_picked():
    method, means = pick.run(rows(PROXY))
    assert method == "c" and means["c"] == pytest.approx(0.75 + 0.055 + 0.01)


def test_only_releases_that_all_methods_have_are_compared():
    """A method that ran at the easier budget alone is not the better for it, nor the worse for more seeds."""
    lucky = rows({"lucky": 0.7}, epsilons=(10.0,), seeds=(0, 1, 2))
    assert pick.run(rows(PROXY) + lucky) == (
        "c",
        pytest.approx({k: v + 0.11 for k, v in (PROXY | {"lucky": 0.7}).items()}),
    )
    with pytest.raises(UserError, match="no epsilon and seed"):
        pick.run(rows(PROXY) + rows({"apart": 0.9}, seeds=(7,)))


def test_a_release_without_accuracy_is_refused_rather_than_left_out():
    with pytest.raises(UserError, match="a, epsilon 1 has no accuracy"):
        pick.run([{**rows(PROXY)[0], "accuracy_mean": None}])
    with pytest.raises(UserError, match="no releases"):
        pick.run([])


def test_the_correlation_is_spearmans_by_hand():
    found = ranking.compared(rows(PROXY), rows(REAL))
    one = [row for row in found if row["epsilon"] == 1.0]
    assert ranking.correlation(one) == pytest.approx(1 - 6 * (1 + 1) / (4 * 15))  # b and c change places
    assert ranking.correlation(one[:2]) is None
    assert ranking.correlation([{**row, "real": 0.5} for row in one]) is None


def test_what_was_picked_is_told_with_what_it_is_worth_and_what_the_best_would_be():
    text = ranking.ranking_text(ranking.compared(rows(PROXY), rows(REAL)))
    assert text.splitlines()[2].split() == ["1", "4", "0.80", "c", "57.0", "%", "b", "62.0", "%"]


def test_the_configuration_that_is_written_runs_the_picked_method(tmp_path):
    table, picked = tmp_path / "table.csv", tmp_path / "picked.yaml"
    write_rows(table, rows({"privimage": 0.5, "scratch": 0.6}), COLUMNS)
    command = [sys.executable, "-m", "privimage.pick", "--dataset", "p", "--table", str(table), "--picked", str(picked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "picked: scratch" in done.stdout
    text = picked.read_text()
    assert load(overlay(DEFAULT, yaml.safe_load(text))).run.methods == ("scratch",)
    assert text.index("scratch") < text.index("privimage")


def test_hindsight_writes_a_table_and_a_picture(tmp_path):
    for name, means in (("proxy", PROXY), ("real", REAL)):
        write_rows(tmp_path / f"{name}.csv", rows(means), COLUMNS)
    files = [word for name in ("ranking", "figure") for word in (f"--{name}", str(tmp_path / name))]
    inputs = ["--table", str(tmp_path / "proxy.csv"), "--real", str(tmp_path / "real.csv")]
    command = [sys.executable, "-m", "privimage.pick", "--dataset", "d", *inputs, *files]
    assert "0.80" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert len((tmp_path / "ranking").read_text().splitlines()) == 9
    assert Image.open(tmp_path / "figure").size[0] > 500


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"like": "digits"}, "draws from the same images"),
        ({"like": "digits", "source": "glyphs", "classes": ["letter a"]}, "in its public set `glyphs8`"),
        ({"like": "digits", "source": "glyphs", "proxy": "digits"}, "has a proxy itself"),
        ({"like": "digits", "without_classes": ["x"], "num_images": 1437}, "draws from the same images"),
        ({"like": "digits", "source": "mnist", "num_images": 99}, "declares 99 images"),
    ],
)
def test_a_proxy_of_the_sensitive_images_or_of_another_size_is_refused(row, told):
    raw = changed("datasets.digits.proxy", "other")
    raw["datasets"]["other"] = row
    with pytest.raises(ConfigError, match=told):
        load(raw)


def overlaid(*names):
    """The default with files of the configuration folder merged over it, in order."""
    raw = DEFAULT
    for name in names:
        raw = overlay(raw, yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8")))
    return load(raw)


@pytest.mark.parametrize("names", [("proxy",), ("proxy", "levers")])
def test_the_proxy_and_its_public_set_are_the_signs_each_once(names):
    config = overlaid(*names)
    assert config.warnings == ()
    proxy, rest, whole = config.datasets["proxy"], config.publics["glyphs8-rest"], config.publics["glyphs8"]
    assert set(proxy.classes) == set(rest.without_classes) == set(proxy.class_names)
    assert rest.num_classes + len(proxy.class_names) == whole.num_classes
    assert rest.classifier == whole.classifier
    digits = config.datasets["digits"]
    assert (proxy.num_images, proxy.delta, proxy.finetune) == (digits.num_images, digits.delta, digits.finetune)


def test_each_recipe_has_as_many_noisy_copies_as_the_first():
    """But for the one that says otherwise; what a label's classes and dropout are changes no number of copies."""
    config = overlaid("proxy")
    for dataset in ("proxy", "digits"):
        settings = {name: config.of_method("finetune", dataset, name) for name in config.run.methods}
        copies = {n: s.sampling_probability * s.num_steps * s.noise_levels_per_image for n, s in settings.items()}
        assert {n for n in copies if copies[n] != copies["privimage"]} == {"attention-16"}


def test_the_targets_plan_and_nothing_leaves_by_them(fresh, tmp_path):
    (tmp_path / "once.yaml").write_text("run: {methods: [privimage, half-rate], epsilons: [1], seeds: [5]}")
    files = ("--configfile", "config/levers.yaml", str(tmp_path / "once.yaml"))
    targets = ("study", "hindsight", "results/proxy/internal/picked.yaml")
    jobs = dry_run(fresh, *targets, "--forceall", "-p", *files)
    made = {path for job in jobs for path in job.output}
    assert {f"results/{name}/internal/differences.csv" for name in ("proxy", "digits", "mnist8")} <= made
    assert {"results/digits/internal/proxy.csv", "results/digits/internal/proxy.png"} <= made
    assert all(is_internal(path) for job in jobs if job.rule.startswith("pick") for path in job.output)
    assert leaks(jobs) == set() and loose(jobs) == set()
    assert sum(job.rule == "pretrain" for job in jobs) == 3  # one a set: both methods begin alike


def test_nothing_is_picked_on_what_is_no_proxy(fresh):
    done = snakemake(fresh, "results/digits/internal/picked.yaml", "--dry-run", "--configfile", "config/proxy.yaml")
    assert done.returncode and "MissingRuleException" in done.stdout


@pytest.mark.parametrize(("target", "needed"), [("picks", "a data set's `proxy`"), ("hindsight", "a data set and its")])
def test_a_run_without_a_proxy_is_told_so(fresh, target, needed):
    done = snakemake(fresh, target, "--dry-run")
    assert done.returncode and f"needs {needed}" in done.stdout and "Traceback" not in done.stdout
