"""The DP-SGD loop: decided by its key, unchanged by microbatches, resumed without a step too many."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_model import DECLARED, SETTINGS, damping_for, images, mechanism, model, weights

from privimage import private_training
from privimage.compute import Compute
from privimage.diffusion.images import Images
from privimage.errors import UserError
from privimage.privacy.event import Event
from privimage.privacy.ledger import Ledger
from privimage.privacy.randomness import SecretKey
from privimage.settings import ComputeSettings


def test_the_key_decides_the_weights():
    a, b, c = (private_training.run(model(), images(), mechanism(SecretKey.from_seed(s)))[0] for s in (0, 0, 1))
    assert torch.equal(weights(a), weights(b))
    assert not torch.equal(weights(a), weights(c))


def test_microbatches_do_not_change_the_result():
    a, b = (private_training.run(model(), images(), mechanism(microbatch_size=size))[0] for size in (64, 3))
    torch.testing.assert_close(weights(a), weights(b), rtol=1e-3, atol=1e-4)


def test_an_image_s_copies_are_drawn_as_the_settings_say():
    data, number = Images(images().images, images().labels, torch.device("cpu")), np.array([3])
    for draws, opposite in (("independent", False), ("balanced", True)):
        how = replace(SETTINGS, noise_draws=draws)
        batch = private_training.draw_batch(data, number, how, 2, 1)
        assert torch.equal(batch.noise[0, 0], -batch.noise[0, 1]) == opposite
        assert (batch.sigma[0, 0] == batch.sigma[0, 1]) == opposite


def test_warm_up_shortens_the_first_steps_and_changes_no_draw():
    """Adam's first step is the learning rate times a sign, so a quarter of the rate is a quarter of the way."""
    settings = replace(SETTINGS, num_steps=1, warmup_steps=0, learning_rate=0.01)
    start = weights(model())
    whole, quarter = (
        weights(private_training.run(model(), images(), mechanism(settings=s))[0]) - start
        for s in (settings, replace(settings, warmup_steps=3))
    )
    assert whole.abs().max() == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(quarter, whole / 4, rtol=1e-3, atol=1e-6)
    rates = [replace(settings, warmup_steps=3).learning_rate_at(step) for step in range(6)]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])


@pytest.mark.gpu
def test_a_gpu_fine_tunes_to_finite_weights_in_either_precision_and_engine():
    for precision in ("float32", "bfloat16"):
        for engine in ("fast", "opacus"):
            compute = Compute(ComputeSettings(precision=precision, engine=engine))
            how = replace(mechanism(), compute=compute)
            made, ema, curve = private_training.run(model(), images(), how)
            assert all(p.is_cuda and bool(torch.isfinite(p).all()) for p in (*made.parameters(), *ema.parameters()))
            assert len(curve.rows) == SETTINGS.num_steps


class Killed(BaseException):
    pass


def run_until(folder, monkeypatch, *, stop=None, microbatch_size=64, executed=None, save_seconds=0.0, damping=None):
    """One start of a release in the folder, killed before step ``stop``; returned are the weights if it ended."""
    real = private_training._step

    def step(*args):
        if args[6] == stop:
            raise Killed
        executed.append(args[6])
        return real(*args)

    monkeypatch.setattr(private_training, "_step", step)
    monkeypatch.setattr(private_training, "SAVE_SECONDS", save_seconds)
    try:
        with Ledger(folder, "set", DECLARED).open("finetune", "f" * 32, "test") as release:
            event = Event("poisson_gaussian", 1.0, SETTINGS.sampling_probability, SETTINGS.num_steps)
            release.reserve([event], continuing=release.reserved_steps > 0)
            how = replace(mechanism(release.key, microbatch_size), damping=damping)
            made = private_training.run(model(), images(), how, release)[0]
            return weights(made), private_training.run(model(), images(), how)[0]
    except Killed:
        return None
    finally:
        monkeypatch.setattr(private_training, "_step", real)


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
    real, sizes = private_training.per_image_loss, []

    def loss(made, batch):
        sizes.append(len(batch.images))
        if len(sizes) > first and sizes[-1] > most:
            raise torch.OutOfMemoryError
        return real(made, batch)

    monkeypatch.setattr(private_training, "per_image_loss", loss)
    return sizes


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 3])
def test_when_memory_runs_out_fewer_images_at_once_give_the_same_result(monkeypatch, first, capsys):
    calm = weights(private_training.run(model(), images(), mechanism(microbatch_size=6))[0])
    with monkeypatch.context() as patch:
        sizes = out_of_memory(patch, first, most=2)
        found = weights(private_training.run(model(), images(), mechanism(microbatch_size=6))[0])
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


def test_a_replay_that_is_damped_otherwise_is_none(tmp_path, monkeypatch):
    maps = [damping_for(model(), seed) for seed in (0, 0, 1)]
    executed = []
    run_until(tmp_path, monkeypatch, stop=3, executed=executed, damping=maps[0])
    del executed[:]
    run_until(tmp_path, monkeypatch, stop=4, executed=executed, damping=maps[1])
    assert executed[0] == 3
    del executed[:]
    run_until(tmp_path, monkeypatch, stop=6, executed=executed, damping=maps[2])
    assert executed[:2] == [
        5,
        0,
    ]  # step 4 was reserved: it may have been taken with the other map; then all, undisturbed


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
