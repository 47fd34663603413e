"""Every method of the table from images to what is handed out, at toy size; each ledger is added up anew."""

from __future__ import annotations

import json

import pytest
from checkout import TOY, copy_project, snakemake
from dp_accounting import DpEvent, GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant

from privimage.artifacts import ImageSet, PrivacyStatement
from privimage.generators import GENERATORS
from privimage.methods import METHODS
from privimage.privacy.accounting import epsilon

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = copy_project(tmp_path_factory.mktemp("methods"))
    run = json.dumps({"methods": list(METHODS)})
    done = snakemake(folder, "--cores", "2", *TOY, "--config", f"run={run}", timeout=1800)
    assert done.returncode == 0, done.stdout[-8000:]
    return folder / "results/digits"


def continuous(statement: PrivacyStatement) -> list[DpEvent]:
    """What dp-accounting has to be told, with continuous noise for discrete, which is nearly the same."""
    parts = []
    for event in statement.events:
        step = GaussianDpEvent(event.noise_multiplier)
        if event.mechanism == "poisson_gaussian":
            step = PoissonSampledDpEvent(event.sampling_probability, step)
        parts.append(SelfComposedDpEvent(step, event.num_steps))
    return parts


@pytest.mark.parametrize("method", METHODS)
def test_what_is_handed_out_is_whole_and_its_ledger_adds_up(results, method):
    cell = results / method / "seed0/eps1"
    statement = PrivacyStatement.read(cell / "privacy.json")
    assert statement.target_epsilon == 1 and 0.998 <= statement.epsilon <= 1
    assert statement.epsilon == pytest.approx(epsilon(statement.events, statement.delta), abs=1e-9)
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    for event in continuous(statement):
        accountant.compose(event)
    assert accountant.get_epsilon(statement.delta) == pytest.approx(statement.epsilon, rel=0.05)
    mechanisms = [event.mechanism for event in statement.events]
    last = "discrete_gaussian" if METHODS[method].generator == "evolution" else "poisson_gaussian"
    assert mechanisms == [*(["discrete_gaussian"] if METHODS[method].query else []), last]
    assert (cell / "release/SHA256SUMS").exists()
    away = GENERATORS[METHODS[method].generator].GUIDED and METHODS[method].policy != "none"  # from the public model
    parents = ImageSet.read(cell / "release/images.h5").provenance.parents
    assert ("pretrained" in parents) == away
    assert not away or parents["pretrained"] == statement.provenance.parents["pretrained"]
    attacked = (results / f"internal/{method}/seed0/eps1/membership.json").exists()
    assert attacked == GENERATORS[METHODS[method].generator].HAS_LOSS


def test_the_odometer_has_a_charge_of_every_method_and_one_query(results):
    lines = (results.parents[1] / "state/digits/odometer.jsonl").read_text().splitlines()
    labels = sorted(json.loads(line)["label"].split()[0] for line in lines)
    assert labels == sorted([*METHODS, "query"])
