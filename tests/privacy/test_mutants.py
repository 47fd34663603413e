"""The privacy bugs that others made, made here on purpose: each is found, and sound code raises no alarm."""

from __future__ import annotations

import secrets

import pytest
from detectors import ALARM, DETECTORS, STATISTICAL, alarms, judge
from mutants import MUTANTS
from scipy import stats
from watched import Watched


def fresh_seed():
    return secrets.randbits(31)  # another at each run; a failure names it


def test_sound_code_raises_no_alarm(tmp_path):
    seed = fresh_seed()
    assert alarms(judge(Watched(seed, tmp_path))) == [], f"seed {seed}"


@pytest.mark.parametrize("name", MUTANTS)
def test_every_bug_is_found_by_the_detector_made_for_it(name, tmp_path, monkeypatch):
    mutant, seed = MUTANTS[name], fresh_seed()
    mutant.apply(monkeypatch)
    assert alarms(judge(Watched(seed, tmp_path), [mutant.found_by])), f"seed {seed}"


def test_every_detector_is_needed_by_a_bug():
    assert {mutant.found_by for mutant in MUTANTS.values()} == set(DETECTORS)


@pytest.mark.slow
def test_what_finds_what(tmp_path, capsys):
    """The whole table, printed: run with ``-s``. A detector that could not even finish has an exclamation mark."""
    for name, mutant in MUTANTS.items():
        watched, found = Watched(fresh_seed(), tmp_path), []
        with pytest.MonkeyPatch.context() as patch:
            mutant.apply(patch)
            for detector in DETECTORS:
                try:
                    found += alarms(judge(watched, [detector]))
                except Exception:
                    found.append(f"{detector}!")
        with capsys.disabled():
            print(f"{name:58} {', '.join(found)}", flush=True)
        assert mutant.found_by in found, name


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
def test_fifty_seeds_of_sound_code_raise_no_alarm(part, tmp_path):
    """Six times fifty: at 1e-4 a look, 0.03 alarms are expected in all. Nor are small probabilities too frequent."""
    looks = {seed: judge(Watched(seed, tmp_path)) for seed in range(1000 + 50 * part, 1050 + 50 * part)}
    assert not any(alarms(judged) for judged in looks.values()), looks
    most = stats.binom(50, 0.05).isf(ALARM / len(STATISTICAL))
    for name in STATISTICAL:
        assert sum(judged[name] < 0.05 for judged in looks.values()) <= most, name
