"""Killed anywhere, a stage goes on: to the same bytes, with at most one checkpoint's work lost, and charged once."""

from __future__ import annotations

import random
from itertools import count

import pytest
from kills import DIED, SEED, Trial
from server import Faults
from stages import LONG, PRIVATE, secret

KILLS, POWER_CUTS = 1, 1  # of each stage in the quick run
RESUMING = ("classifier", "pretrain", "finetune", "sample")  # stages with checkpoints
print(f"FAULTS_SEED={SEED}")


@pytest.mark.parametrize("name", LONG)
def test_the_notes_see_what_is_drawn_and_the_points_what_is_written(calm, name):
    trial, _, _ = calm(name)
    purposes = {note["draw"] for note in trial.notes() if "draw" in note}
    wanted = {"query": {"query"}, "finetune": {"poisson", "diffusion", "gradient"}, "accuracy": {"epoch"}}
    assert wanted.get(name, set()) <= purposes and bool(purposes) == (name in wanted)
    assert len(trial.points()) > 30 and len(trial.points(torn=True)) > 2


@pytest.mark.parametrize("name", LONG)
def test_at_a_few_points(server, calm, row, tmp_path, name):
    trial, left, _ = calm(name)
    draw = random.Random(f"{SEED} few {name}")
    for torn, few in ((False, KILLS), (True, POWER_CUTS)):
        for at in draw.sample(trial.points(torn), few):
            again = Trial(server, trial.stage, tmp_path / f"{at}{torn}")
            assert again.start(Faults(at=at, torn=torn, seed=SEED)) in DIED, again.context
            again.finish(left)
    row(f"kill -9 at a few points, {name}", KILLS + POWER_CUTS, KILLS + POWER_CUTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_at_every_point(server, calm, row, tmp_path, name):
    trial, left, _ = calm(name)
    for at in count(1):
        again = Trial(server, trial.stage, tmp_path / str(at))
        died = again.start(Faults(at=at)) in DIED
        again.finish(left)
        if not died:
            break
    assert at == len(trial.points()) + 1  # it was followed to the end
    row(f"kill -9 at every point, {name}", at - 1, at - 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_a_power_cut_before_every_flush(server, calm, row, tmp_path, name):
    trial, left, _ = calm(name)
    for at in trial.points(torn=True):
        for seed in range(3):
            again = Trial(server, trial.stage, tmp_path / f"{at}-{seed}")
            assert again.start(Faults(at=at, torn=True, seed=SEED + seed)) in DIED, again.context
            again.finish(left)
    row(f"power cut before every flush, {name}", 3 * len(trial.points(torn=True)), 3 * len(trial.points(torn=True)))


@pytest.mark.slow
@pytest.mark.parametrize("name", PRIVATE)
def test_at_every_point_with_secret_noise(server, all_stages, row, tmp_path, name):
    """A second key would be seen here: it would be charged."""
    for at in count(1):
        again = Trial(server, secret(all_stages[name]), tmp_path / str(at))
        died = again.start(Faults(at=at)) in DIED
        again.finish()
        assert len({note["key"] for note in again.notes() if "draw" in note}) == 1, again.context
        if not died:
            break
    row(f"kill -9 at every point, secret noise, {name}", at - 1, at - 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_inside_every_write(server, calm, row, tmp_path, name):
    """A write stops at its n-th byte for 40 n: whichever file first grows so large is left cut there."""
    trial, left, _ = calm(name)
    largest = max(path.stat().st_size for path in trial.folder.rglob("*") if path.is_file() and path.name != "notes")
    limits = sorted({round(largest ** (share / 40)) for share in range(41)})
    died = 0
    for limit in limits:
        again = Trial(server, trial.stage, tmp_path / str(limit))
        died += again.start(Faults(file_bytes=limit)) in DIED
        again.finish(left)
    row(f"killed inside a write, {name}", died, died)
    assert died >= 20


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_at_random_times(server, calm, row, tmp_path, name):
    trial, left, seconds = calm(name)
    draw, died = random.Random(f"{SEED} times {name}"), 0
    for attempt in range(100):
        again = Trial(server, trial.stage, tmp_path / str(attempt))
        died += again.killed_after(draw.uniform(0, seconds)) in DIED
        again.finish(left)
        if died == 25:
            break
    assert died == 25
    row(f"kill -9 at random times, {name}", died, died)


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMING)
def test_again_and_again(server, calm, row, tmp_path, name):
    """Several kills of one run, with one to three steps between checkpoints."""
    trial, left, seconds = calm(name)
    draw, died = random.Random(f"{SEED} chains {name}"), 0
    for attempt in range(12):
        again = Trial(server, trial.stage, tmp_path / str(attempt), every=1 + attempt % 3)
        for _ in range(draw.randrange(2, 7)):
            if draw.random() < 0.3:
                again.killed_after(draw.uniform(0, seconds))
            else:
                again.start(Faults(at=draw.choice(trial.points()), torn=draw.random() < 0.5, seed=SEED))
        again.finish(left)
        died += len(again.kills)
    row(f"kill -9 again and again, {name}", died, died)
    assert died >= 20
