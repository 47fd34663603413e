"""Fine-tuning: what it refuses, what it states, and that it is charged once."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_model import DECLARED, NAMES, images, model

from privimage import finetune, public_directions
from privimage.artifacts import ImageSet, PrivacyStatement, Provenance, QueryResult, Subset, Weights, sha256
from privimage.checkpoints import flatten
from privimage.errors import UserError
from privimage.measurements import Curve
from privimage.privacy.accounting import together
from privimage.privacy.event import Event
from privimage.privacy.ledger import Ledger


@pytest.mark.parametrize(("releases", "given"), [(["query", "finetune"], False), (["finetune"], True)])
def test_the_query_is_paid_exactly_where_it_is_declared(releases, given):
    query = QueryResult([[1.0]], ["x"], ["a"], 1, 1.0, Event("gaussian", 9.0), True, Provenance("query", 1))
    with pytest.raises(UserError, match="--query"):
        finetune.paid_query(releases, query if given else None, DECLARED)
    assert finetune.paid_query(["query", "finetune"], query, DECLARED) == [query.event]
    assert finetune.paid_query(["finetune"], None, DECLARED) == []


def test_a_query_whose_noise_is_no_secret_is_refused():
    query = QueryResult([[1.0]], ["x"], ["a"], 1, 1.0, Event("gaussian", 9.0), False, Provenance("query", 1))
    with pytest.raises(UserError, match="reproducible"):
        finetune.paid_query(["query", "finetune"], query, DECLARED)


@pytest.mark.slow
def test_a_new_budget_or_unit_changes_no_draw(files, monkeypatch):
    call(monkeypatch, files)
    before = files["weights"].read_bytes()
    declared = {**json.loads(files["declared"]), "images_per_unit": 2}
    call(monkeypatch, {**files, "declared": json.dumps(declared), "budget": 50})
    assert files["weights"].read_bytes() == before
    assert len(charges(files)) == 1
    statement = PrivacyStatement.read(files["privacy"])
    assert statement.epsilon_per_unit > statement.epsilon


def charge_query(state, noise_multiplier=9.0):
    with Ledger(state, "set", DECLARED).open("query", "c" * 16, "a query") as release:
        release.reserve([Event("gaussian", noise_multiplier)])


def write_query(path, noise_multiplier=9.0):
    event, provenance = Event("gaussian", noise_multiplier), Provenance("query", 1)
    QueryResult([[1.0, 2.0]] * 2, list(NAMES), ["a", "b"], 1, 1.0, event, True, provenance).write(path)


def write_pretrained(path, subset, version="0.1.0", start=None, public=None):
    start = start or model()
    tensors = {**flatten("raw", start.state_dict()), **flatten("ema", start.state_dict())}
    parents = {"subset": sha256(subset)} | ({"public": sha256(public)} if public else {})
    provenance = Provenance("pretrain", 1, parents=parents, privimage=version)
    Weights("diffusion", tensors, start.describe(), {"class_names": list(NAMES)}, provenance).write(path)


@pytest.fixture
def files(tmp_path):
    """Inputs on the disk, and the command line that names them."""
    images().write(tmp_path / "internal" / "train.h5")
    write_query(tmp_path / "query.json")
    charge_query(tmp_path / "state")
    made_from = Provenance("select", 1, parents={"query": sha256(tmp_path / "query.json")})
    Subset("query", {"x": ["a"], "y": ["b"]}, made_from).write(tmp_path / "subset.json")
    write_pretrained(tmp_path / "p", tmp_path / "subset.json")
    declared = {"num_images": 24, "class_names": list(NAMES), "delta": 1e-3}
    settings = {"sampling_probability": 0.3, "num_steps": 3, "noise_levels_per_image": 2}
    return {
        "dataset": "set", "method": "privimage", "epsilon": 4, "seed": 0, "releases": ["query", "finetune"],
        "images": tmp_path / "internal" / "train.h5", "pretrained": tmp_path / "p", "subset": tmp_path / "subset.json",
        "query": tmp_path / "query.json", "declared": json.dumps(declared), "settings": json.dumps(settings),
        "state-dir": tmp_path / "state", "weights": tmp_path / "w", "privacy": tmp_path / "privacy.json",
        "curve": tmp_path / "internal" / "training.csv",
    }  # fmt: skip


def charges(files):
    """The odometer's lines for fine-tunings."""
    book = Ledger(files["state-dir"], "set", DECLARED)
    return [record for record in book.odometer() if record["stage"] == "finetune"]


def call(monkeypatch, flags):
    words = []
    for name, value in flags.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    monkeypatch.setattr(sys, "argv", ["finetune", *words])
    finetune.main()


def test_the_statement_composes_query_and_training_just_below_the_target(files, monkeypatch):
    call(monkeypatch, files)
    statement = PrivacyStatement.read(files["privacy"])
    assert [e.mechanism for e in statement.events] == ["gaussian", "poisson_gaussian"]
    assert 4 - 1e-3 <= statement.epsilon <= 4
    assert statement.private
    assert len(Curve.read(files["curve"]).rows) == 3
    trained = Weights.read(files["weights"], "diffusion")
    assert trained.facts["class_names"] == list(NAMES)


def test_gradients_are_damped_by_public_images_where_the_method_uses_some(files, monkeypatch, tmp_path):
    told = {**json.loads(files["settings"]), "damped_directions": 4}
    damped = {**files, "settings": json.dumps(told)}
    with pytest.raises(UserError, match="--public is missing, and gradients are damped in directions"):
        call(monkeypatch, damped)
    replace(images(), provenance=Provenance("preprocess", 2)).write(tmp_path / "public.h5")  # 24: six a direction
    with pytest.raises(UserError, match="--public was given, and nothing here looks at them"):
        call(monkeypatch, {**files, "public": tmp_path / "public.h5"})
    with pytest.raises(UserError, match="made from another --public"):
        call(monkeypatch, {**damped, "public": tmp_path / "public.h5"})
    assert not charges(files)
    write_pretrained(files["pretrained"], files["subset"], public=tmp_path / "public.h5")
    with pytest.raises(UserError, match="made from another --public"):
        call(monkeypatch, {**damped, "public": files["images"]})  # the sensitive ones themselves
    call(monkeypatch, {**damped, "public": tmp_path / "public.h5"})
    assert PrivacyStatement.read(files["privacy"]).epsilon <= 4
    made = Weights.read(files["weights"], "diffusion")
    assert made.provenance.parents["public"] == sha256(tmp_path / "public.h5")
    told["damped_directions"] = 5
    with pytest.raises(UserError, match="takes 30 public images; there are 24; lower it to 4 at most"):
        call(monkeypatch, {**damped, "settings": json.dumps(told), "public": tmp_path / "public.h5"})
    assert len(charges(files)) == 1
    shifted = replace(images(), images=255 - images().images, provenance=Provenance("preprocess", 2))
    shifted.write(tmp_path / "other.h5")
    write_pretrained(files["pretrained"], files["subset"], public=tmp_path / "other.h5")  # the same weights
    told["damped_directions"] = 4
    call(monkeypatch, {**damped, "settings": json.dumps(told), "public": tmp_path / "other.h5"})
    assert len({record["key"] for record in charges(files)}) == 2  # another map is another draw, with noise of its own


def test_what_runs_out_of_memory_before_the_first_step_is_not_charged(files, monkeypatch, tmp_path):
    replace(images(), provenance=Provenance("preprocess", 2)).write(tmp_path / "public.h5")
    write_pretrained(files["pretrained"], files["subset"], public=tmp_path / "public.h5")
    settings = json.dumps({**json.loads(files["settings"]), "damped_directions": 4})
    damped = {**files, "settings": settings, "public": tmp_path / "public.h5"}

    def full(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(public_directions, "damping_by", full)
        with pytest.raises(UserError, match="24 public images do not fit into memory; nothing is charged yet"):
            call(monkeypatch, damped)
    assert not charges(files)
    assert not files["weights"].exists()
    call(monkeypatch, damped)
    assert len(charges(files)) == 1


def test_later_choices_of_epochs_are_paid_for_by_more_noise_and_charged_when_they_are_drawn(files, monkeypatch):
    call(monkeypatch, {**files, "validation-epsilons": [0.5, 0.25]})
    statement = PrivacyStatement.read(files["privacy"])
    assert [e.mechanism for e in statement.events[:2]] == ["gaussian", "poisson_gaussian"]
    assert statement.events[2:] == [Event("report_noisy_max", 2.0), Event("report_noisy_max", 4.0)]
    assert 4 - 1e-3 <= statement.epsilon <= 4  # of all four
    (charge,) = charges(files)
    assert charge["events"] == [statement.events[1].as_json()]


@pytest.mark.slow
def test_status_counts_only_what_was_drawn_before_as_spent(files, monkeypatch):
    told = {}
    monkeypatch.setattr("privimage.heartbeat.tell", lambda **facts: told.update(facts))
    call(monkeypatch, {**files, "validation-epsilons": [0.5]})
    statement = PrivacyStatement.read(files["privacy"])
    assert [told["before"], told["training"]] == [[statement.events[0].as_json()], statement.events[1].as_json()]


def test_a_finished_run_is_restored_and_costs_nothing(files, monkeypatch):
    call(monkeypatch, files)
    outputs = [files[name] for name in ("weights", "privacy", "curve")]
    before = [path.read_bytes() for path in outputs]
    for path in outputs:
        path.unlink()
    call(monkeypatch, files)
    assert [path.read_bytes() for path in outputs] == before
    assert len(charges(files)) == 1


def test_a_method_that_trains_alike_is_handed_the_same_draw_and_charged_nothing(files, monkeypatch, tmp_path):
    call(monkeypatch, files)
    other = {"weights": tmp_path / "w2", "privacy": tmp_path / "p2", "curve": tmp_path / "internal" / "t2.csv"}
    call(monkeypatch, {**files, **other, "method": "domain", "alike": ["privimage", "domain"]})
    assert all(path.read_bytes() == files[name].read_bytes() for name, path in other.items())
    (charge,) = charges(files)
    assert charge["label"] == "privimage epsilon 4 seed 0"
    statements = [PrivacyStatement.read(path) for path in (files["privacy"], other["privacy"])]
    assert together(statements) == statements[0].events  # whoever has both sets of images has seen one draw


def test_whichever_method_runs_first_the_draw_has_the_first_one_s_name_and_keeps_the_name_that_it_has(
    files, monkeypatch, capsys
):
    call(monkeypatch, {**files, "method": "domain", "alike": ["privimage", "domain"]})
    drawn = files["weights"].read_bytes()
    for method, alike in (("privimage", ["privimage", "domain"]), ("domain", ["new", "privimage", "domain"])):
        call(monkeypatch, {**files, "method": method, "alike": alike})  # a row more above them changes nothing
        assert files["weights"].read_bytes() == drawn
    assert [charge["label"] for charge in charges(files)] == ["privimage epsilon 4 seed 0"]
    call(monkeypatch, {**files, "method": "alone"})  # as every method was before they shared
    own = files["weights"].read_bytes()
    assert own != drawn
    call(monkeypatch, {**files, "method": "alone", "alike": ["privimage", "domain", "alone"]})
    assert files["weights"].read_bytes() == own and len(charges(files)) == 2
    assert "was drawn before" not in capsys.readouterr().err


def test_another_seed_or_setting_is_another_draw_and_another_charge(files, monkeypatch):
    call(monkeypatch, files)
    first = files["weights"].read_bytes()
    call(monkeypatch, {**files, "seed": 1})
    assert files["weights"].read_bytes() != first
    assert len(charges(files)) == 2


def test_reproducible_noise_is_stamped_not_private(files, monkeypatch):
    declared = {**json.loads(files["declared"]), "reproducible_noise": True}
    call(monkeypatch, {**files, "declared": json.dumps(declared)})
    assert not PrivacyStatement.read(files["privacy"]).private


def test_images_of_another_size_or_other_classes_are_refused_before_anything_is_charged(files, monkeypatch):
    rng = np.random.default_rng(0)
    ImageSet(rng.integers(0, 256, (24, 16, 16, 1), np.uint8), np.arange(24) % 2, NAMES, "t").write(files["images"])
    with pytest.raises(UserError, match="8 pixels"):
        call(monkeypatch, files)
    ImageSet(rng.integers(0, 256, (24, 8, 8, 1), np.uint8), np.arange(24) % 2, ("x", "z"), "t").write(files["images"])
    with pytest.raises(UserError, match="other classes"):
        call(monkeypatch, files)
    assert charges(files) == []


def test_the_query_that_is_paid_must_be_the_one_that_chose_the_public_data(files, monkeypatch, tmp_path):
    write_query(tmp_path / "cheap.json", noise_multiplier=1e4)
    with pytest.raises(UserError, match="not made from the --query"):
        call(monkeypatch, {**files, "query": tmp_path / "cheap.json"})
    without = {name: value for name, value in files.items() if name != "query"}
    with pytest.raises(UserError, match="not made from the --query"):
        call(monkeypatch, {**without, "releases": ["finetune"]})
    Subset("none", {"x": [], "y": []}, Provenance("select", 1)).write(tmp_path / "other.json")
    with pytest.raises(UserError, match="another --subset"):
        call(monkeypatch, {**without, "releases": ["finetune"], "subset": tmp_path / "other.json"})
    assert charges(files) == []


@pytest.mark.slow
def test_the_same_weights_and_images_written_by_another_version_are_no_new_draw(files, monkeypatch):
    call(monkeypatch, files)
    write_pretrained(files["pretrained"], files["subset"], version="9.9")
    replace(images(), provenance=Provenance("preprocess", 9)).write(files["images"])
    call(monkeypatch, files)
    assert len(charges(files)) == 1


def test_a_pretrained_model_that_is_not_finite_is_refused_before_anything_is_charged(files, monkeypatch):
    broken = model()
    with torch.no_grad():
        broken.network.conv_in.bias[0] = float("nan")
    write_pretrained(files["pretrained"], files["subset"], start=broken)
    with pytest.raises(UserError, match="not finite"):
        call(monkeypatch, files)
    assert charges(files) == []


@pytest.mark.parametrize("change", [{"epsilon": "nan"}, {"epsilon": -1}, {"microbatch-size": 0}])
def test_numbers_that_make_no_sense_are_refused(files, monkeypatch, change):
    with pytest.raises(SystemExit):
        call(monkeypatch, {**files, **change})


def test_a_budget_that_would_be_exceeded_is_refused_before_anything_is_drawn(files, monkeypatch):
    with pytest.raises(UserError, match="above its budget of 3"):
        call(monkeypatch, {**files, "budget": 3})
    assert charges(files) == []
    assert not files["weights"].exists()


def test_a_query_drawn_under_another_state_folder_is_refused(files, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="odometer has no charge for it"):
        call(monkeypatch, {**files, "state-dir": tmp_path / "another"})
    assert charges({"state-dir": tmp_path / "another"}) == []


def test_a_changed_setting_is_named_where_something_was_drawn_before(files, monkeypatch, capsys):
    call(monkeypatch, files)
    settings = {**json.loads(files["settings"]), "clip_norm": 0.5}
    call(monkeypatch, {**files, "settings": json.dumps(settings)})
    assert "was drawn before with settings.clip_norm 0.001 (now 0.5)" in capsys.readouterr().err
    assert len(charges(files)) == 2
