"""What the study shows: PrivImage beats what selects nothing, less noise selects better, and every ledger adds up.

`snakemake study --cores 2 --configfile config/study.yaml` makes what these tests read; where it did not run, they skip.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import ceil, inf, sqrt
from statistics import fmean, variance

import numpy as np
import pytest
from checkout import ROOT
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from scipy.optimize import brentq

from privimage.artifacts import PrivacyStatement, Subset
from privimage.privacy.event import Event
from privimage.reporting.summary import Row, read_summary

pytestmark = pytest.mark.study

RESULTS = ROOT / "results/digits"
TABLE, NOISE = RESULTS / "internal/table.csv", RESULTS / "internal/ablation/query-noise.csv"
COMMAND = "snakemake study --cores 2 --configfile config/study.yaml"
SEEDS, EPSILONS = 3, (1, 10)
BEATEN = ("random", "scratch")


def rows_of(path) -> list[Row]:
    if not path.exists():
        pytest.skip(f"{path.relative_to(ROOT)} is not there; make it by: {COMMAND}")
    return read_summary(path)


@pytest.fixture(scope="module")
def table() -> list[Row]:
    """The study's rows, all of them."""
    rows = rows_of(TABLE)
    found = {(row["method"], row["epsilon"], row["seed"]) for row in rows}
    lacking = [
        f"{method} at epsilon {epsilon}"
        for method in ("privimage", *BEATEN)
        for epsilon in EPSILONS
        if len([cell for cell in found if cell[:2] == (method, epsilon)]) < SEEDS
    ]
    if lacking:
        pytest.skip(f"the table is of another run: fewer than {SEEDS} seeds of {', '.join(lacking)}; {COMMAND}")
    return rows


@pytest.fixture(scope="module")
def noise() -> list[Row]:
    """The rows of the ablation of the query's noise."""
    return rows_of(NOISE)


def accuracies(rows: Sequence[Row], **cell) -> list[float]:
    return [row["accuracy_mean"] for row in rows if all(row[key] == value for key, value in cell.items())]


def margin(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many standard errors of the difference of the means lie between them."""
    difference = fmean(ours) - fmean(theirs)
    error = sqrt(variance(ours) / len(ours) + variance(theirs) / len(theirs))
    return difference / error if error else inf * difference if difference else 0.0


def told(claim: str, ours: Sequence[float], theirs: Sequence[float]) -> str:
    return (
        f"{claim}: {100 * fmean(ours):.1f} % against {100 * fmean(theirs):.1f} %, {margin(ours, theirs):+.1f} standard "
        f"errors over {len(ours)} and {len(theirs)} seeds"
    )


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("other", BEATEN)
def test_privimage_beats_what_selects_nothing(table, other, epsilon):
    ours, theirs = (accuracies(table, method=method, epsilon=epsilon) for method in ("privimage", other))
    sentence = told(f"privimage against {other} at epsilon {epsilon}", ours, theirs)
    print(sentence)
    assert fmean(ours) > fmean(theirs), sentence


def test_less_noise_in_the_query_gives_more_accurate_images(noise):
    """The query is drawn once for each noise: the errors are of what follows it, not of its own luck."""
    values = sorted({float(row["value"]) for row in noise})
    ours, theirs = (accuracies(noise, value=f"{value:g}") for value in (values[0], values[-1]))
    sentence = told(f"a query's noise of {values[0]:g} against {values[-1]:g}", ours, theirs)
    print(sentence)
    assert len(ours) >= SEEDS and fmean(ours) > fmean(theirs), sentence


def test_less_noise_in_the_query_selects_more_digits_for_digits(noise):
    """A printed 3 for a written 3: the share of labels whose own sign was selected; chance is one in 62."""
    shares = {}
    for row in noise:
        subset = Subset.read(RESULTS / f"{row['method']}/seed{row['seed']}/subset.json")
        right = [f"digit {label}" in chosen for label, chosen in subset.classes.items()]
        shares.setdefault(float(row["value"]), []).append(fmean(right))
    values = sorted(shares)
    sentence = told(f"own signs at {values[0]:g} against {values[-1]:g}", shares[values[0]], shares[values[-1]])
    print(sentence)
    assert fmean(shares[values[0]]) > fmean(shares[values[-1]]), sentence


def test_every_release_costs_what_its_events_cost(table):
    """Recomputed by another library's accountant from the statement's events alone."""
    releases = {(row["method"], row["seed"], row["epsilon"]): row for row in [*table, *rows_of(NOISE)]}
    costs: dict[tuple, float] = {}
    for (method, seed, epsilon), row in releases.items():
        statement = PrivacyStatement.read(RESULTS / f"{method}/seed{seed}/eps{epsilon:g}/privacy.json")
        key = (statement.delta, *map(str, statement.events))
        if key not in costs:  # seeds share their events
            costs[key] = recomputed(statement)
        assert statement.epsilon == pytest.approx(costs[key], abs=2e-3), (method, seed, epsilon)
        assert statement.epsilon <= statement.target_epsilon == epsilon and statement.private
        assert row["epsilon_spent"] == pytest.approx(statement.epsilon, rel=1e-5)


def recomputed(statement: PrivacyStatement) -> float:
    """By another library's accountant, in which a discrete Gaussian is a Gaussian; by enumeration where it is alone."""
    if [event.mechanism for event in statement.events] == ["discrete_gaussian"]:
        return enumerated(statement.events[0], statement.delta)
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-4)
    for event in statement.events:
        gaussian = GaussianDpEvent(event.noise_multiplier)
        accountant.compose(PoissonSampledDpEvent(event.sampling_probability, gaussian), event.num_steps)
    return accountant.get_epsilon(statement.delta)


def enumerated(event: Event, delta: float) -> float:
    """Epsilon of T counts that one image more raises by 1, from the probabilities of the sum of their noises.

    Of noises n_1 to n_T the privacy loss is the sum of (1 - 2 n_i) / (2 s^2), which their sum decides.
    """
    s, steps = event.noise_multiplier, event.num_steps
    reach = ceil(14 * s) + 1
    noise = np.arange(-reach, reach + 1)
    once = np.exp(-(noise**2) / (2 * s**2))
    likely = reduce(np.convolve, [once / once.sum()] * steps)  # of the sum
    total = np.arange(-reach * steps, reach * steps + 1)
    loss = (steps - 2 * total) / (2 * s**2)  # symmetric: adding an image costs what removing one does
    return brentq(lambda epsilon: likely @ -np.expm1(np.minimum(0, epsilon - loss)) - delta, 0, loss.max())
