"""The audit: the release's own mechanism with canaries in it, keys of its own, and one file for its owner."""

import json
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from small_model import DECLARED, NAMES, images, model, weights
from small_model import SETTINGS as SIX_STEPS
from small_model import mechanism as mechanism_of

from privimage import audit, private_training
from privimage.artifacts import PrivacyStatement, Provenance, Weights, sha256
from privimage.checkpoints import flatten
from privimage.errors import UserError
from privimage.evaluation_settings import AuditSettings
from privimage.measurements import Audit
from privimage.privacy import accounting
from privimage.privacy.canaries import Canaries
from privimage.privacy.event import Event
from privimage.privacy.randomness import SecretKey
from privimage.schema import plain

SETTINGS = replace(SIX_STEPS, num_steps=2)
EVENT = Event("poisson_gaussian", 1.0, SETTINGS.sampling_probability, SETTINGS.num_steps)
DELTA = 1e-6
FEW = AuditSettings(num_canaries=400, num_guesses=101)
MADE_BY = Provenance("audit", 1)
mechanism = partial(mechanism_of, settings=SETTINGS)


def test_the_claim_is_the_cost_of_the_training_alone_and_a_sound_mechanism_keeps_it():
    found = audit.run(model(), images(), mechanism(), FEW, DELTA, MADE_BY)
    assert found.claimed_epsilon == pytest.approx(accounting.epsilon([EVENT], DELTA))
    assert found.lower_bound <= found.claimed_epsilon and not found.private
    assert (found.num_canaries, found.num_guesses, found.confidence, found.delta) == (400, 100, 0.95, DELTA)
    assert 0 <= found.num_correct <= 100 and found.event == EVENT.as_json()


def test_its_images_have_one_noise_level_each_and_nothing_else_differs(monkeypatch):
    seen = []
    monkeypatch.setattr(private_training, "run", lambda model, images, how: seen.append(how))
    monkeypatch.setattr(Canaries, "num_correct", lambda self, guesses: guesses // 2)
    how = mechanism()
    found = audit.run(model(), images(), how, FEW, DELTA, MADE_BY)
    (run,) = seen
    assert SETTINGS.noise_levels_per_image == 2 and run.settings == replace(SETTINGS, noise_levels_per_image=1)
    assert replace(run, settings=how.settings, canaries=None) == how and found.event == EVENT.as_json()


def quietened(noisy_mean, share, total, *, noise_multiplier, **how):
    return noisy_mean(total, noise_multiplier=share * noise_multiplier, **how)


def test_a_mechanism_with_too_little_noise_is_refuted(monkeypatch):
    real = private_training.noisy_mean
    settings = replace(SETTINGS, sampling_probability=1.0, num_steps=2)
    how = replace(mechanism(settings=settings), noise_multiplier=4.0)
    bounds = []
    for share in (1.0, 0.1):
        monkeypatch.setattr(private_training, "noisy_mean", partial(quietened, real, share))
        found = audit.run(model(), images(), how, FEW, DELTA, MADE_BY)
        bounds.append(found.lower_bound)
    assert bounds[0] < found.claimed_epsilon < bounds[1]


class Watched(Canaries):
    """Canaries that remember their steps."""

    def add(self, total, step):
        super().add(total, step)
        self.totals = getattr(self, "totals", []) + [{name: value.clone() for name, value in total.items()}]

    def see(self, noisy_mean, step):
        super().see(noisy_mean, step)
        self.means = getattr(self, "means", []) + [noisy_mean]


def test_canaries_enter_each_sum_before_the_noise_and_see_what_leaves_the_mechanism():
    made, how = model(), mechanism()
    seen = Watched(dict(made.named_parameters()), 50, EVENT, clip_norm=SETTINGS.clip_norm, expected_batch_size=7.2)
    with_them = private_training.run(made, images(), replace(how, canaries=seen))[0]
    assert len(seen.totals) == len(seen.means) == SETTINGS.num_steps
    for step, (total, noisy) in enumerate(zip(seen.totals, seen.means)):
        for index, (name, value) in enumerate(total.items()):
            noise = how.key.normal("gradient", step, index, shape=tuple(value.shape)) * SETTINGS.clip_norm
            np.testing.assert_allclose(noisy[name] * 7.2 - value, noise, atol=1e-9)
    without = private_training.run(model(), images(), how)[0]
    assert not torch.equal(weights(with_them), weights(without))


def test_images_and_canaries_are_drawn_by_different_keys(monkeypatch):
    """Else, as many canaries as images would be drawn along with them."""
    made = []
    monkeypatch.setattr(audit, "Canaries", lambda *args, **how: made.append(Canaries(*args, **how)) or made[0])
    audit.run(model(), images(), mechanism(), FEW, DELTA, MADE_BY)
    assert made[0].key != mechanism().key


@pytest.fixture
def files(tmp_path):
    start = model()
    tensors = {**flatten("raw", start.state_dict()), **flatten("ema", start.state_dict())}
    given = {name: tmp_path / name for name in ("pretrained", "privacy", "images")}
    pretrained = Weights(
        "diffusion", tensors, start.describe(), {"class_names": list(NAMES)}, Provenance("pretrain", 1)
    )
    pretrained.write(given["pretrained"])
    images().write(given["images"])
    made_by = Provenance("finetune", 1, parents={"pretrained": sha256(given["pretrained"])})
    events, relation = [Event("gaussian", 20.0), EVENT], "add_or_remove_one"
    costs = (9.0, DECLARED.delta, 9.0, relation, events, 18.0, 1, 9.0, DECLARED.num_images, [], True, [])
    PrivacyStatement(*costs, made_by).write(given["privacy"])
    given |= {"finetune": json.dumps(plain(SETTINGS)), "declared": json.dumps(plain(DECLARED))}
    given |= {"settings": json.dumps({"num_canaries": 40, "num_guesses": 10}), "compute": "{}"}
    return {**given, "result": tmp_path / "internal" / "audit.json"}


def call(monkeypatch, files):
    monkeypatch.setattr(sys, "argv", ["audit", *(str(part) for k, v in files.items() for part in (f"--{k}", v))])
    audit.main()


@pytest.mark.slow
def test_of_a_training_nothing_is_left_but_the_measurement(files, tmp_path, monkeypatch):
    """And the next one has another key."""
    keys, before = [], {path for path in tmp_path.rglob("*") if path.is_file()}
    real = private_training.run
    monkeypatch.setattr(private_training, "run", lambda *args: keys.append(args[2].key) or real(*args))
    call(monkeypatch, files)
    call(monkeypatch, files)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} - before == {files["result"]}
    found = Audit.read(files["result"])
    assert found.delta == DECLARED.delta and found.event == EVENT.as_json()
    assert found.provenance.parents == {name: sha256(files[name]) for name in ("pretrained", "privacy")}
    assert files["result"].stat().st_mode & 0o777 == 0o600 and keys[0] != keys[1] != SecretKey.from_seed(0)


@pytest.mark.parametrize("key, value", [("num_steps", 5), ("sampling_probability", 0.25)])
def test_another_training_than_the_statement_s_is_refused(files, monkeypatch, key, value):
    with pytest.raises(UserError, match="of one release"):
        call(monkeypatch, {**files, "finetune": json.dumps({**plain(SETTINGS), key: value})})


def test_another_start_than_the_statement_s_is_refused(files, monkeypatch):
    statement = PrivacyStatement.read(files["privacy"])
    replace(statement, provenance=Provenance("finetune", 1, parents={"pretrained": "0" * 64})).write(files["privacy"])
    with pytest.raises(UserError, match="of one release"):
        call(monkeypatch, files)


def test_more_guesses_than_canaries_are_refused():
    with pytest.raises(UserError, match="0 canaries for 500 guesses"):
        audit.run(model(), images(), mechanism(), AuditSettings(num_canaries=0), DELTA, MADE_BY)
