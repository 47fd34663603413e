"""The configuration: what is misspelt, out of bounds or contradictory is refused by name; overlays merge."""

import copy
import json
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import yaml

from privimage import config as c
from privimage import rows
from privimage import settings as s
from privimage.schema import ConfigError, schema_of

DEFAULT = yaml.safe_load((Path(__file__).parents[1] / "config" / "config.yaml").read_text(encoding="utf-8"))
SENTINEL = object()


def changed(path, value=SENTINEL):
    """The default configuration with one key set, or removed."""
    raw = copy.deepcopy(DEFAULT)
    *above, last = path.split(".")
    place = raw
    for part in above:
        place = place.setdefault(part, {})
    if value is SENTINEL:
        del place[last]
    else:
        place[last] = value
    return raw


def refused(path, value=SENTINEL):
    with pytest.raises(ConfigError) as caught:
        c.load(changed(path, value))
    return str(caught.value)


def keys(cls, prefix):
    """The full names of all settings of a dataclass."""
    for f in fields(cls):
        yield f"{prefix}.{f.name}"
        if is_dataclass(f.default):
            yield from keys(type(f.default), f"{prefix}.{f.name}")


ROWS = {"publics": "glyphs8", "datasets": "digits", "queries": "default", "methods": "mine", "networks": "mine",
        "ablations": "mine"}  # fmt: skip
KEYS = [
    *keys(rows.Run, "run"),
    *(key for name, cls in c.SECTIONS.items() for key in keys(cls, name)),
    *(key for name, cls in c.TABLES.items() for key in keys(cls, f"{name}.{ROWS[name]}")),
    *DEFAULT,
    "state_dir",
]


def misspell(name):
    return name + name[-1]  # swapped letters would make another setting of one, `resnext`


def test_the_default_is_accepted_without_warnings():
    assert c.load(DEFAULT).warnings == ()


@pytest.mark.parametrize("key", KEYS)
def test_every_key_misspelt_is_refused_with_the_right_suggestion(key):
    above, _, last = key.rpartition(".")
    wrong = f"{above}.{misspell(last)}".lstrip(".")
    message = refused(wrong, 1)
    assert message == f"`{wrong}` is not a setting; did you mean `{last}`?"


@pytest.mark.parametrize("name", [*c.SECTIONS, "run", "publics", "datasets", "queries"])
def test_every_section_and_table_is_required(name):
    assert refused(name).startswith(f"`{name}` is missing")


@pytest.mark.parametrize("key", ["resolution", "channels", "num_classes"])
def test_what_a_public_row_requires_is_named(key):
    assert refused(f"publics.glyphs8.{key}").startswith(f"`publics.glyphs8.{key}` is missing")


@pytest.mark.parametrize("key", ["num_images", "delta", "public"])
def test_what_a_dataset_row_requires_is_named(key):
    assert refused(f"datasets.digits.{key}").startswith(f"`datasets.digits.{key}` is missing")


def numeric():
    """Each bounded number of each section, with a value just out of each bound."""
    for name, cls in [*c.SECTIONS.items(), *((f"{t}.{ROWS[t]}", k) for t, k in c.TABLES.items())]:
        for key, rule in schema_of(cls)["properties"].items():
            if rule.get("type") in ("integer", "number", ["integer", "null"], ["number", "null"]):
                for bound, step in (("minimum", -1), ("exclusiveMinimum", 0), ("maximum", 1), ("exclusiveMaximum", 0)):
                    if bound in rule:
                        yield f"{name}.{key}", rule[bound] + step


@pytest.mark.parametrize(("key", "value"), list(numeric()))
def test_every_bound_holds(key, value):
    assert re.match(rf"`{re.escape(key)}` is {value!r}; expected (more|less|at)", refused(key, value))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("finetune.clip_norm", "1e-5", "YAML reads this as text, write it with a point, as in 1.0e-5"),
        ("finetune.clip_norm", "much", "expected a number"),
        ("finetune.clip_norm", float("nan"), "expected a finite number"),
        ("finetune.clip_norm", float("inf"), "expected a finite number"),
        ("run.epsilons", [1, float("inf")], "expected a finite number"),
        ("finetune.num_steps", 1.5, "expected a whole number"),
        ("finetune.num_steps", True, "expected a whole number"),
        ("finetune.num_steps", None, "expected a whole number"),
        ("finetune", None, "expected a section"),
        ("pretrain.horizontal_flip", 1, "expected true or false"),
        ("pretrain.network.channel_multipliers", 2, "expected a list"),
        ("pretrain.network.channel_multipliers", [], "expected at least one entry"),
        ("pretrain.network.channel_multipliers", [1, 0], "expected at least 1"),
        ("sample.sampler", "euler", "expected one of heun, ddim, dpmpp2m"),
        ("publics.glyphs8.channels", 2, "expected one of 1, 3"),
        ("run.epsilons", [1, 0], "expected more than 0"),
        ("run.datasets", [], "expected at least one entry"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_expected(key, value, expected):
    message = refused(key, value)
    assert f"`{key}" in message and expected in message


CONTRADICTIONS = {
    "delta at 1/n": ("datasets.digits.delta", 1 / 1437, "1/num_images"),
    "top_k": ("queries.default.top_k", 63, "at most the 62 classes"),
    "classes_per_label": ("datasets.digits.select.classes_per_label", 7, "takes 70 public classes"),
    "levels": ("datasets.digits.pretrain.network.channel_multipliers", [1, 2, 2, 2, 2], "cannot be halved"),
    "sigmas": ("datasets.digits.sample.sigma_min", 80, "less than sigma_max"),
    "no such network": ("datasets.digits.quality.networks", ["inceptoin"], "did you mean `inception`?"),
    "a network twice": ("datasets.digits.quality.networks", ["classifier", "classifier"], "each entry once"),
    "more guesses than canaries": ("datasets.digits.audit.num_guesses", 10001, "at most the 10000 of"),
    "more than are drawn": ("datasets.digits.quality.num_synthetic", 6001, "at most the 6000"),
    "guidance nowhere": (
        "datasets.digits.sample",
        {"guidance_scale": 1, "guidance_sigma_min": 2, "guidance_sigma_max": 1},
        "guides the method `privimage` at no noise level",
    ),
    "guidance between two levels": (
        "datasets.digits.sample",
        {"num_steps": 10, "guidance_scale": 1, "guidance_sigma_min": 30, "guidance_sigma_max": 31},
        "guides the method `privimage` at no noise level",
    ),
    "more damped directions than public images tell": (
        "datasets.digits.finetune",
        {"num_steps": 30, "damped_directions": 3101},
        "takes 18606 public images; `glyphs8` has at most 18600; lower it, or raise `images_per_class`",
    ),
    "a network without its file": ("networks.mine", {"kind": "resnet56"}, "`networks.mine.path` is missing"),
    "a built-in network": ("networks.inception", {"path": "file"}, "cannot be a name"),
    "a built-in kind": ("networks.mine", {"kind": "inception"}, "always there"),
    "two colours": ("networks.mine", {"path": "file", "mean": [0.5, 0.5]}, "expected 3, one a colour"),
    "classes twice": ("datasets.digits.class_names", ["0", "0"], "names a class twice"),
    "no such public": ("datasets.digits.public", "glyphs9", "did you mean `glyphs8`?"),
    "no such dataset": ("run.datasets", ["digit"], "did you mean `digits`?"),
    "no such method": ("run.methods", ["privimag"], "did you mean `privimage`?"),
    "dataset twice": ("run.datasets", ["digits", "digits"], "each entry once"),
    "epsilon twice": ("run.epsilons", [1, 1.0], "each entry once"),
    "seed twice": ("run.seeds", [0, 0], "each entry once"),
    "too fine an epsilon": ("run.epsilons", [1.0000001], "at most six digits"),
    "path of a drawn source": ("publics.glyphs8.path", "images", "source `glyphs` takes none"),
    "no path of a folder": ("datasets.digits.source", "folder", "cannot be fetched; it is where your images are"),
    "no path of a set to be fetched by hand": ("datasets.digits.source", "celeba", "mmlab.ie.cuhk.edu.hk"),
    "a variant of a set that has none": ("datasets.digits.variant", "letters", "only source `emnist` takes it"),
    "EMNIST without its variant": ("publics.glyphs8.source", "emnist", "such as `letters`"),
    "query without a row": ("methods.mine", {"policy": "query"}, "needs a row of `queries`"),
    "row without a query": ("methods.mine", {"policy": "none", "query": "default"}, "the others take none"),
    "no such query": ("methods.mine", {"policy": "query", "query": "defualt"}, "did you mean `default`?"),
    "reserved dataset": ("datasets.internal", DEFAULT["datasets"]["digits"], "cannot be a name"),
    "reserved method": ("methods.query", {"policy": "none"}, "cannot be a name"),
    "a class that reads as a path": ("datasets.digits.class_names", ["/m/0k4j", "b"], "'/m/0k4j' reads as a path"),
    "a class that reads as an internal file": ("datasets.digits.class_names", ["internal/x", "b"], "and in the labels"),
    "a title that reads as a path": ("datasets.digits.release", {"pretty_name": "of data/scans.zip"}, "pretty_name"),
    "a licence that reads as a path": ("datasets.digits.release", {"license": "/LICENSE"}, "without slashes"),
    "no such word vectors": ("datasets.digits.semantics", {"word_vectors": "absent.txt"}, "write where the file is"),
    "a path as a name": ("datasets.a/b", DEFAULT["datasets"]["digits"], "cannot be a name"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions_are_refused_by_name(case):
    key, value, expected = CONTRADICTIONS[case]
    message = refused(key, value)
    assert expected in message
    assert key.rsplit(".", 1)[0] in message


@pytest.mark.parametrize(
    "method, guidance, learnt_by",
    [
        ("privimage", "domain", "pretrain"),
        ("privimage", "classifier-free", "finetune"),
        ("scratch", "domain", "finetune"),
        ("dp-ldm", "domain", "pretrain"),
        ("dpgan", "domain", None),
        ("pe", "domain", None),
    ],
)
def test_guidance_by_what_was_not_learnt_is_refused(method, guidance, learnt_by):
    for stage in ("pretrain", "finetune"):
        raw = changed(f"datasets.digits.{stage}.label_dropout", 0)
        raw["run"]["methods"] = [method]
        raw["datasets"]["digits"]["sample"].update(guidance=guidance, guidance_scale=0.5)
        if stage != learnt_by:
            c.load(raw)
            continue
        with pytest.raises(ConfigError, match=rf"`datasets.digits.{stage}.label_dropout` is 0 .* guidance_scale of 0"):
            c.load(raw)


@pytest.mark.parametrize("method", [{"policy": "none"}, {"policy": "query", "query": "default"}])
def test_damping_that_a_method_itself_asks_for_is_refused_by_that_name(method):
    raw = changed("methods.mine", {**method, "settings": {"finetune": {"damped_directions": 3101}}})
    raw["run"]["methods"] = ["mine"]
    with pytest.raises(ConfigError, match=r"`methods.mine.settings.finetune.damped_directions` is 3101 for the method"):
        c.load(raw)


def test_a_single_class_is_guided_by_public_images_or_not_at_all():
    for method, guidance, refuses in (("privimage", "domain", False), ("privimage", "classifier-free", True),
                                      ("scratch", "domain", True)):  # fmt: skip
        raw = changed("datasets.digits.class_names", ["all"])
        raw["run"]["methods"] = [method]
        raw["datasets"]["digits"]["sample"].update(guidance=guidance, guidance_scale=0.5)
        if refuses:
            with pytest.raises(ConfigError, match="one class, which is drawn without labels; expected guidance"):
                c.load(raw)
        else:
            c.load(raw)


def test_the_largest_values_that_do_not_contradict_are_accepted():
    c.load(changed("queries.default.top_k", 62))
    c.load(changed("datasets.digits.select.classes_per_label", 6))
    c.load(changed("datasets.digits.pretrain.network.channel_multipliers", [1, 2, 2, 2]))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("datasets.digits.delta", 1e-4, "above a tenth of 1/num_images"),
        ("queries.default.noise_multiplier", 20, "will hide much of the signal"),
    ],
)
def test_what_is_only_unwise_is_a_warning(key, value, expected):
    (warning,) = c.load(changed(key, value)).warnings
    assert key in warning and expected in warning


def test_a_dataset_that_is_not_run_causes_no_warning_about_its_size():
    few = {**DEFAULT["datasets"]["digits"], "num_images": 100, "delta": 1e-4}
    assert c.load(changed("datasets.few", few)).warnings == ()


def sharing(first, second, run=("digits", "more")):
    """The warnings where two rows have the given sources and paths."""
    raw = changed("run.datasets", list(run))
    row = {**raw["datasets"]["digits"], "budget": 10}
    raw["datasets"] = {
        "digits": {**row, "source": first[0], "path": first[1]},
        "more": {**row, "source": second[0], "path": second[1]},
    }
    return c.load(raw).warnings


def test_two_rows_of_one_set_of_images_are_a_warning():
    for first, second in (
        (("digits", None), ("digits", None)),
        (("folder", "/data/scans"), ("folder", "/data/./scans/")),
        (("folder", "scans"), ("folder", str(Path("scans").absolute()))),
    ):
        (warning,) = sharing(first, second)
        assert warning.startswith("`datasets.digits`, `datasets.more` draw from the same images: their costs add up")


def test_two_rows_of_two_sets_or_of_which_one_is_run_are_none():
    assert sharing(("folder", "/data/scans"), ("folder", "/data/scans2")) == ()
    assert sharing(("digits", None), ("folder", "/data/scans")) == ()
    assert sharing(("digits", None), ("digits", None), run=["digits"]) == ()


def test_a_row_overrides_a_section_only_in_what_it_names():
    raw = changed("pretrain", {"num_steps": 7, "network": {"base_channels": 16, "num_res_blocks": 3}})
    raw["datasets"]["digits"]["pretrain"] = {"learning_rate": 0.5, "network": {"base_channels": 8}}
    got = c.load(raw).datasets["digits"].pretrain
    assert (got.num_steps, got.learning_rate) == (7, 0.5)
    assert (got.network.base_channels, got.network.num_res_blocks) == (8, 3)
    assert got.ema_decay == s.PretrainSettings().ema_decay


def test_a_list_replaces_a_list():
    raw = changed("pretrain.network", {"channel_multipliers": [1, 2, 4]})
    raw["datasets"]["digits"]["pretrain"]["network"]["channel_multipliers"] = [3]
    assert c.load(raw).datasets["digits"].pretrain.network.channel_multipliers == (3,)


def test_loading_changes_nothing_of_what_it_is_given():
    raw = copy.deepcopy(DEFAULT)
    c.load(raw)
    assert raw == DEFAULT


def test_stages_get_complete_settings_that_survive_json():
    config = c.load(DEFAULT)
    for name, cls in c.SECTIONS.items():
        row = {"dataset": "digits"} if name in rows.Dataset.__dataclass_fields__ else {"public": "glyphs8"}
        got = config.stage(name, **row)
        assert got.keys() == cls.__dataclass_fields__.keys()
        assert json.loads(c.canonical(got)) == got


def test_sources_take_the_shape_of_the_public_row():
    config = c.load(changed("publics.glyphs8.resolution", 16))
    sensitive, public = config.source(dataset="digits"), config.source(public="glyphs8")
    assert sensitive["resolution"] == public["resolution"] == 16
    assert (sensitive["source"], sensitive["num_classes"], sensitive["images_per_class"]) == ("digits", None, None)
    assert (public["source"], public["num_classes"], public["images_per_class"]) == ("glyphs", 62, 300)
    parts = {"classes", "without_classes"}  # only where a row names some, so that rows of before are what they were
    assert sensitive.keys() == public.keys() == s.Source.__dataclass_fields__.keys() - parts
    config = c.load(changed("publics.glyphs8.without_classes", ["letter a"]))
    assert config.source(public="glyphs8").keys() == s.Source.__dataclass_fields__.keys() - {"classes"}


def test_declared_constants_are_those_of_the_row():
    declared = c.load(DEFAULT).declared("digits")
    assert declared.keys() == s.Declared.__dataclass_fields__.keys()
    assert (declared["num_images"], declared["delta"]) == (1437, 5e-5)


def test_one_epsilon_has_one_label():
    assert {rows.epsilon_label(value) for value in (1, 1.0, "1", "1.00")} == {"1"}
    assert rows.epsilon_label(0.5) == "0.5"
    assert rows.epsilon_label(10) == "10"


def test_canonical_text_is_the_same_for_equal_data():
    assert c.canonical({"b": 1, "a": [1, 2.5]}) == c.canonical({"a": [1, 2.5], "b": 1}) == '{"a":[1,2.5],"b":1}'
    with pytest.raises(ValueError):
        c.canonical(float("nan"))


def test_a_stages_version_is_read_without_importing_it():
    from privimage import preprocess

    assert c.stage_version("preprocess") == preprocess.VERSION


def test_the_workflow_can_read_the_configuration_without_torch():
    program = (
        "import sys; from privimage.config import stage_version; stage_version('preprocess'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def with_folder(path, **row):
    """The default configuration with one row more, of the user's own images, which is run."""
    raw = copy.deepcopy(DEFAULT)
    raw["datasets"]["mine"] = {
        "path": str(path),
        "public": "glyphs8",
        "num_images": 100,
        "delta": 1e-4,
        "budget": 10,
        **row,
    }
    raw["datasets"]["mine"]["select"] = {"classes_per_label": 1}
    raw["datasets"]["mine"]["pretrain"] = {"network": {"channel_multipliers": [1, 1], "attention_resolutions": [4]}}
    raw["run"]["datasets"] = ["mine"]
    return raw


@pytest.mark.parametrize("above", ["", "train", "mine/train"])
def test_classes_that_are_left_out_are_the_folders_under_the_path(tmp_path, above):
    for part in ("train", "test") if above.endswith("train") else ("",):
        for name in ("cat", "dog"):
            folder = tmp_path / above.removesuffix("train") / part / name
            folder.mkdir(parents=True)
            (folder / "0.png").touch()
    config = c.load(with_folder(tmp_path))
    assert config.datasets["mine"].class_names == ("cat", "dog")
    assert config.declared("mine")["class_names"] == ["cat", "dog"]


def test_classes_that_cannot_be_seen_must_be_named(tmp_path):
    (tmp_path / "a.zip").touch()
    for path, row in ((tmp_path / "a.zip", {}), (tmp_path, {"source": "parquet"})):
        with pytest.raises(ConfigError, match=r"`datasets.mine.class_names` is missing; expected the names"):
            c.load(with_folder(path, **row))
    with pytest.raises(ConfigError, match="`datasets.mine.path` is '.*absent', which is not there"):
        c.load(with_folder(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="`datasets.mine.path`: .*holds no image"):
        c.load(with_folder(tmp_path / "empty"))


def test_a_row_that_is_not_run_may_lie_elsewhere(tmp_path):
    raw = with_folder(tmp_path / "absent")
    raw["run"]["datasets"] = ["digits"]
    assert c.load(raw).datasets["mine"].class_names is None


def test_published_sets_are_fetched_where_no_path_is_given_and_only_there():
    raw = copy.deepcopy(DEFAULT)
    names = [str(n) for n in range(10)]
    row = {"source": "mnist", "public": "glyphs8", "num_images": 60000, "delta": 1e-6, "class_names": names}
    raw["datasets"] |= {"fetched": {**row}, "own": {**row, "path": "elsewhere"}}
    for label in ("fetched", "own"):
        raw["datasets"][label] |= {k: raw["datasets"]["digits"][k] for k in ("select", "pretrain")}
    config = c.load(raw)
    assert config.fetched(dataset="fetched") == config.source(dataset="fetched")["path"] == "data/mnist"
    assert config.fetched(dataset="own") is None and config.source(dataset="own")["path"] == "elsewhere"
    assert config.fetched(dataset="digits") is None and config.source(dataset="digits")["path"] is None


def test_how_images_are_read_is_told_to_the_readers_and_what_to_do_with_bad_ones_to_the_joiner():
    raw = copy.deepcopy(DEFAULT)
    raw["preprocess"] = {"small_images": "pad", "on_bad_image": "skip", "num_shards": 7, "max_pixels": 99}
    config = c.load(raw)
    source = config.source(dataset="digits")
    assert (source["small_images"], source["max_pixels"]) == ("pad", 99)
    assert not {"on_bad_image", "num_shards"} & source.keys()  # neither changes what is read
    assert config.join(dataset="digits") == {"on_bad_image": "skip"}


def test_word_vectors_may_lie_in_the_home_folder_and_those_of_rows_that_are_not_run_anywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "vectors.txt").touch()
    raw = changed("semantics.word_vectors", "~/vectors.txt")
    raw["datasets"]["other"] = {**raw["datasets"]["digits"], "semantics": {"word_vectors": "absent.txt"}}
    config = c.load(raw)
    assert config.stage("semantics", dataset="digits") == {"word_vectors": str(tmp_path / "vectors.txt")}


def test_a_path_may_begin_with_the_home_folder_and_one_folder_is_one_however_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "scans").mkdir()
    raw = with_folder("~/scans", class_names=["cat", "dog"])
    raw["datasets"]["again"] = {**raw["datasets"]["mine"], "source": "folder", "path": str(tmp_path / "scans")}
    raw["run"]["datasets"] = ["mine", "again"]
    config = c.load(raw)
    assert config.source(dataset="mine")["path"] == str(tmp_path / "scans")
    assert [w for w in config.warnings if "draw from the same images" in w]


def test_images_of_one_s_own_need_a_budget_and_a_published_set_none(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "scans" / name).mkdir(parents=True)
    raw = with_folder(tmp_path / "scans", budget=None, class_names=["cat", "dog"])
    with pytest.raises(ConfigError, match="`datasets.mine.budget` is missing; expected the largest epsilon"):
        c.load(raw)
    raw["run"]["datasets"] = ["digits"]
    assert c.load(raw).datasets["mine"].budget is None  # a row that is not run


def test_a_generators_own_settings_begin_as_the_sections_of_the_set_say():
    config = c.load(changed("datasets.digits.pretrain.horizontal_flip", False))
    latent, gan = (config.of_method("pretrain", "digits", name) for name in ("dp-ldm", "privimage-g"))
    own = config.datasets["digits"].pretrain
    assert (latent.network, latent.num_steps, latent.horizontal_flip) == (own.network, own.num_steps, False)
    assert gan.horizontal_flip is False
    more = changed("datasets.digits.generators.latent.pretrain.num_steps", 7)
    assert c.load(more).of_method("pretrain", "digits", "dp-ldm").num_steps == 7


@pytest.mark.parametrize("nothing", [None, 3])
def test_what_a_method_overrides_is_a_section(nothing):
    row = {"policy": "whole", "settings": {"select": nothing}}
    assert "`methods.mine.settings.select` is" in refused("methods.mine", row)


def test_what_an_ablation_runs_is_checked_before_it_is_paid_for():
    raw = changed("ablations.pop", {"method": "pe", "setting": "finetune.population_size", "values": [100]})
    raw["run"] = {**raw["run"], "ablations": ["pop"]}
    with pytest.raises(ConfigError, match="population_size` is 100 for the method `pop.100`"):
        c.load(raw)


@pytest.mark.parametrize("name", ["privimage", "pdp", "dp-ldm"])
def test_a_method_that_is_always_there_keeps_its_name(name):
    assert f"`methods.{name}` cannot be a name" in refused(f"methods.{name}", {"policy": "none"})


def test_a_data_sets_query_is_a_section():
    assert "`datasets.digits.queries.default` is 3" in refused("datasets.digits.queries", {"default": 3})
