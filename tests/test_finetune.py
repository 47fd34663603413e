"""Fine-tuning: decided by its key, unchanged by microbatches, resumed without a step too many, and charged once."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from privimage import finetune
from privimage.artifacts import ImageSet, PrivacyStatement, Provenance, QueryResult, Subset, Weights, sha256
from privimage.checkpoints import flatten
from privimage.compute import Compute
from privimage.diffusion.denoiser import new_denoiser
from privimage.diffusion.images import Images
from privimage.diffusion.loss import per_image_loss
from privimage.errors import UserError
from privimage.measurements import Curve
from privimage.privacy.event import Event
from privimage.privacy.ledger import Ledger
from privimage.privacy.randomness import SecretKey
from privimage.settings import ComputeSettings, Declared, FinetuneSettings, NetworkSettings

SMALL = NetworkSettings(base_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,))
SETTINGS = FinetuneSettings(sampling_probability=0.3, num_steps=6, noise_levels_per_image=2, learning_rate=1e-2)
DECLARED = Declared(num_images=24, class_names=("x", "y"), delta=1e-3)
NAMES = ("x", "y")


def images(num=24):
    rng = np.random.default_rng(0)
    return ImageSet(rng.integers(0, 256, (num, 8, 8, 1), np.uint8), np.arange(num) % 2, NAMES, "test")


def model():
    return new_denoiser(SMALL, 8, 1, 2, seed=0)


def mechanism(key=None, microbatch_size=64, settings=SETTINGS, num_images=24):
    compute = Compute(ComputeSettings(microbatch_size=microbatch_size))
    return finetune.Mechanism(settings, 1.0, num_images, key or SecretKey.from_seed(0), compute)


def weights(made):
    return torch.cat([p.flatten() for p in made.state_dict().values()])


def test_the_key_decides_the_weights():
    a, b, c = (finetune.run(model(), images(), mechanism(SecretKey.from_seed(s)))[0] for s in (0, 0, 1))
    assert torch.equal(weights(a), weights(b))
    assert not torch.equal(weights(a), weights(c))


def test_microbatches_do_not_change_the_result():
    a, b = (finetune.run(model(), images(), mechanism(microbatch_size=size))[0] for size in (64, 3))
    torch.testing.assert_close(weights(a), weights(b), rtol=1e-3, atol=1e-4)


def test_the_update_is_divided_by_the_declared_number_and_not_by_the_drawn_one():
    """With plain gradients in place of Adam's, halving the declared number doubles the update."""
    moved = []
    for num_images in (24, 12):
        made = model()
        before = weights(made).clone()
        optimizer = torch.optim.SGD(made.parameters(), lr=1.0)
        data, how = Images(images().images, images().labels, torch.device("cpu")), mechanism(num_images=num_images)
        finetune._step(made, optimizer, per_image_loss, data, how, 64, 0)
        moved.append(weights(made) - before)
    torch.testing.assert_close(2 * moved[0], moved[1], rtol=1e-3, atol=1e-6)


def test_one_more_image_moves_no_other_image_s_draw():
    data = Images(images().images, images().labels, torch.device("cpu"))
    few, many = (
        finetune.draw_batch(data, np.array(index), SETTINGS, 2, SecretKey.from_seed(0), 3)
        for index in ([4, 9], [4, 7, 9])
    )
    for before, after in zip(few, many):
        assert torch.equal(before, after[[0, 2]])


def test_steps_with_no_image_are_noise_and_count():
    settings = FinetuneSettings(sampling_probability=1e-6, num_steps=3, noise_levels_per_image=2)
    made, _, curve = finetune.run(model(), images(), mechanism(settings=settings))
    assert [row[2] for row in curve.rows] == [0, 0, 0]
    assert not torch.equal(weights(made), weights(model()))


@pytest.mark.gpu
def test_a_gpu_fine_tunes_to_finite_weights_in_either_precision_and_engine():
    for precision in ("float32", "bfloat16"):
        for engine in ("fast", "opacus"):
            compute = Compute(ComputeSettings(precision=precision, engine=engine))
            how = replace(mechanism(), compute=compute)
            made, ema, curve = finetune.run(model(), images(), how)
            assert all(p.is_cuda and bool(torch.isfinite(p).all()) for p in (*made.parameters(), *ema.parameters()))
            assert len(curve.rows) == SETTINGS.num_steps


class Killed(BaseException):
    pass


def run_until(folder, monkeypatch, *, stop=None, microbatch_size=64, executed=None, save_seconds=0.0):
    """One start of a release in the folder, killed before step ``stop``; returned are the weights if it ended."""
    real = finetune._step

    def step(*args):
        if args[-1] == stop:
            raise Killed
        executed.append(args[-1])
        return real(*args)

    monkeypatch.setattr(finetune, "_step", step)
    monkeypatch.setattr(finetune, "SAVE_SECONDS", save_seconds)
    try:
        with Ledger(folder, "set", DECLARED).open("finetune", "f" * 32, "test") as release:
            event = Event("poisson_gaussian", 1.0, SETTINGS.sampling_probability, SETTINGS.num_steps)
            release.reserve([event], continuing=release.reserved_steps > 0)
            made = finetune.run(model(), images(), mechanism(release.key, microbatch_size), release)[0]
            return weights(made), finetune.run(model(), images(), mechanism(release.key, microbatch_size))[0]
    except Killed:
        return None
    finally:
        monkeypatch.setattr(finetune, "_step", real)


@pytest.mark.parametrize("save_seconds", [0.0, 1e9])
@pytest.mark.parametrize("stop", [0, 3, 5])
def test_a_killed_run_is_replayed_to_the_same_weights(tmp_path, monkeypatch, stop, save_seconds):
    executed = []
    assert run_until(tmp_path, monkeypatch, stop=stop, executed=executed, save_seconds=save_seconds) is None
    resumed, undisturbed = run_until(tmp_path, monkeypatch, executed=executed)
    assert torch.equal(resumed, weights(undisturbed))
    assert len(Ledger(tmp_path, "set", DECLARED).odometer()) == 1


def test_where_steps_cannot_be_replayed_they_are_skipped_and_never_more_than_declared_are_taken(tmp_path, monkeypatch):
    executed = []
    run_until(tmp_path, monkeypatch, stop=4, executed=executed, save_seconds=1e9)  # no checkpoint since the start
    run_until(tmp_path, monkeypatch, microbatch_size=7, executed=executed)
    assert executed[:-6] == [0, 1, 2, 3, 5]  # step 4 was reserved before the kill; the last six are undisturbed
    assert len(Ledger(tmp_path, "set", DECLARED).odometer()) == 1


def out_of_memory(monkeypatch, first, most):
    """From its ``first`` call on, the loss of more than ``most`` images does not fit; returned are the calls' sizes."""
    real, sizes = finetune.per_image_loss, []

    def loss(made, batch):
        sizes.append(len(batch.images))
        if len(sizes) > first and sizes[-1] > most:
            raise torch.OutOfMemoryError
        return real(made, batch)

    monkeypatch.setattr(finetune, "per_image_loss", loss)
    return sizes


@pytest.mark.parametrize("first", range(6))
def test_when_memory_runs_out_fewer_images_at_once_give_the_same_result(monkeypatch, first, capsys):
    calm = weights(finetune.run(model(), images(), mechanism(microbatch_size=6))[0])
    with monkeypatch.context() as patch:
        sizes = out_of_memory(patch, first, most=2)
        found = weights(finetune.run(model(), images(), mechanism(microbatch_size=6))[0])
    assert max(sizes[-3:]) <= 2
    assert "out of memory with 6 images" in capsys.readouterr().err
    torch.testing.assert_close(found, calm, rtol=1e-3, atol=1e-4)


def test_a_kill_after_memory_ran_out_is_replayed_with_what_fitted(tmp_path, monkeypatch):
    executed = []
    with monkeypatch.context() as patch:
        out_of_memory(patch, 0, most=4)
        assert run_until(tmp_path, patch, stop=5, microbatch_size=8, executed=executed, save_seconds=1e9) is None
        done = len(executed)
        run_until(tmp_path, patch, microbatch_size=8, executed=executed)
    halved = executed[:done].index(executed[done])  # the checkpoint is of the step at which memory ran out
    assert executed[done : done + 6 - halved] == list(range(halved, 6))
    assert len(Ledger(tmp_path, "set", DECLARED).odometer()) == 1


def test_a_lost_key_skips_what_was_reserved(tmp_path, monkeypatch):
    executed = []
    run_until(tmp_path, monkeypatch, stop=3, executed=executed)
    (tmp_path / "set" / "finetune" / ("f" * 32) / "key").unlink()
    del executed[:]
    run_until(tmp_path, monkeypatch, stop=5, executed=executed)
    assert executed == [4]  # step 3 was reserved before the kill: it may have been taken
    assert len(Ledger(tmp_path, "set", DECLARED).odometer()) == 1


def test_skipped_steps_are_told_and_a_run_of_which_nothing_would_be_left_is_refused(tmp_path, monkeypatch, capsys):
    run_until(tmp_path / "a", monkeypatch, stop=4, executed=[], save_seconds=1e9)
    run_until(tmp_path / "a", monkeypatch, microbatch_size=7, executed=[])
    assert "5 of 6 steps were reserved before a crash" in capsys.readouterr().err

    run_until(tmp_path / "b", monkeypatch, stop=5, executed=[], save_seconds=1e9)
    with pytest.raises(UserError, match="all 6 steps were reserved"):
        run_until(tmp_path / "b", monkeypatch, microbatch_size=7, executed=[])


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


def test_a_new_budget_or_unit_changes_no_draw(files, monkeypatch):
    call(monkeypatch, files)
    before = files["weights"].read_bytes()
    declared = {**json.loads(files["declared"]), "images_per_unit": 2}
    call(monkeypatch, {**files, "declared": json.dumps(declared), "budget": 50})
    assert files["weights"].read_bytes() == before
    assert len(Ledger(files["state-dir"], "set", DECLARED).odometer()) == 1
    statement = PrivacyStatement.read(files["privacy"])
    assert statement.epsilon_per_unit > statement.epsilon


def write_query(path, noise_multiplier=9.0):
    event, provenance = Event("gaussian", noise_multiplier), Provenance("query", 1)
    QueryResult([[1.0, 2.0]] * 2, list(NAMES), ["a", "b"], 1, 1.0, event, True, provenance).write(path)


def write_pretrained(path, subset, version="0.1.0", start=None):
    start = start or model()
    tensors = {**flatten("raw", start.state_dict()), **flatten("ema", start.state_dict())}
    provenance = Provenance("pretrain", 1, parents={"subset": sha256(subset)}, privimage=version)
    Weights("diffusion", tensors, start.describe(), {"class_names": list(NAMES)}, provenance).write(path)


@pytest.fixture
def files(tmp_path):
    """Inputs on the disk, and the command line that names them."""
    images().write(tmp_path / "internal" / "train.h5")
    write_query(tmp_path / "query.json")
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


def test_later_choices_of_epochs_are_paid_for_by_more_noise_and_charged_when_they_are_drawn(files, monkeypatch):
    call(monkeypatch, {**files, "validation-epsilons": [0.5, 0.25]})
    statement = PrivacyStatement.read(files["privacy"])
    assert [e.mechanism for e in statement.events[:2]] == ["gaussian", "poisson_gaussian"]
    assert statement.events[2:] == [Event("report_noisy_max", 2.0), Event("report_noisy_max", 4.0)]
    assert 4 - 1e-3 <= statement.epsilon <= 4  # of all four
    (charge,) = Ledger(files["state-dir"], "set", DECLARED).odometer()
    assert charge["events"] == [statement.events[1].as_json()]


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
    assert len(Ledger(files["state-dir"], "set", DECLARED).odometer()) == 1


def test_another_seed_or_setting_is_another_draw_and_another_charge(files, monkeypatch):
    call(monkeypatch, files)
    first = files["weights"].read_bytes()
    call(monkeypatch, {**files, "seed": 1})
    assert files["weights"].read_bytes() != first
    assert len(Ledger(files["state-dir"], "set", DECLARED).odometer()) == 2


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
    assert Ledger(files["state-dir"], "set", DECLARED).odometer() == []


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
    assert Ledger(files["state-dir"], "set", DECLARED).odometer() == []


def test_the_same_weights_and_images_written_by_another_version_are_no_new_draw(files, monkeypatch):
    call(monkeypatch, files)
    write_pretrained(files["pretrained"], files["subset"], version="9.9")
    replace(images(), provenance=Provenance("preprocess", 9)).write(files["images"])
    call(monkeypatch, files)
    assert len(Ledger(files["state-dir"], "set", DECLARED).odometer()) == 1


def test_a_pretrained_model_that_is_not_finite_is_refused_before_anything_is_charged(files, monkeypatch):
    broken = model()
    with torch.no_grad():
        broken.network.conv_in.bias[0] = float("nan")
    write_pretrained(files["pretrained"], files["subset"], start=broken)
    with pytest.raises(UserError, match="not finite"):
        call(monkeypatch, files)
    assert Ledger(files["state-dir"], "set", DECLARED).odometer() == []


@pytest.mark.parametrize("change", [{"epsilon": "nan"}, {"epsilon": -1}, {"microbatch-size": 0}])
def test_numbers_that_make_no_sense_are_refused(files, monkeypatch, change):
    with pytest.raises(SystemExit):
        call(monkeypatch, {**files, **change})


def test_a_budget_that_would_be_exceeded_is_refused_before_anything_is_drawn(files, monkeypatch):
    with pytest.raises(UserError, match="above its budget of 3"):
        call(monkeypatch, {**files, "budget": 3})
    assert Ledger(files["state-dir"], "set", DECLARED).odometer() == []
    assert not files["weights"].exists()
