"""A file that is not what was written is refused in one sentence, and nothing that was good is lost by looking."""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter

import pytest
from corruptions import DAMAGES, flipped, kinds, outcome
from kills import SEED, Trial
from stages import LONG, PRIVATE, stages

KINDS = kinds()
FEW, MANY = 2, 60  # of each damage to each kind


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """By kind: a folder in which its file is whole."""
    made = {}
    for name, kind in KINDS.items():
        made[name] = tmp_path_factory.mktemp("whole")
        kind.write(made[name])
    return made


def outcomes(name, pristine, folder, repetitions):
    """How often each thing happened; what is worse than being refused or being the same is told with its damage."""
    found = Counter()
    for damage in DAMAGES:
        draw = random.Random(f"{SEED} {name} {damage.__name__}")
        for _ in range(repetitions):
            what = outcome(KINDS[name], pristine[name], folder, damage, draw)
            found[what if what in ("refused", "same") else f"{damage.__name__}: {what}"] += 1
    return found


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_few_damages(pristine, row, tmp_path, name):
    found = outcomes(name, pristine, tmp_path / "copy", FEW)
    assert found.keys() <= {"refused", "same"}, f"{found}, FAULTS_SEED={SEED}"
    row(f"damaged {name}, a few", found.total(), f"{found['refused']} refused, {found['same']} read the same")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(KINDS))
def test_many_damages(pristine, row, tmp_path, name):
    found = outcomes(name, pristine, tmp_path / "copy", MANY)
    assert found.keys() <= {"refused", "same"}, f"{found}, FAULTS_SEED={SEED}"
    row(f"damaged {name}", found.total(), f"{found['refused']} refused, {found['same']} read the same")


@pytest.mark.parametrize("name", LONG)
def test_a_stage_that_is_handed_a_damaged_file_says_so_and_ends(server, given, row, tmp_path, name):
    """A real process for each file that it reads: exit code 2, one sentence, nothing charged, nothing written."""
    named = [flag for flag, value in stages(given)[name].flags.items() if str(value).startswith(str(given))]
    for flag in named:
        folder = tmp_path / flag
        shutil.copytree(given, folder / "given")
        trial = Trial(server, stages(folder / "given")[name], folder / "trial")
        path = trial.stage.flags[flag]
        path.write_bytes(flipped(path.read_bytes(), random.Random(f"{SEED} {name} {flag}")))
        assert trial.start() == 2, trial.context
        assert re.fullmatch(r"error: [^\n]+\n", trial.told.read_text()), trial.context
        assert trial.stage.left(trial.folder) == {} and (name not in PRIVATE or trial.odometer() == [])
    row(f"{name} handed a damaged file", len(named), len(named))
