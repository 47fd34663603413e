"""Epsilon against closed forms, published numbers and independent accountants; calibration against recomputing."""

from __future__ import annotations

import doctest
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from opacus.accountants import RDPAccountant
from scipy.optimize import brentq
from scipy.stats import binom, norm

from privimage.artifacts import Accountant, PrivacyStatement, Provenance
from privimage.errors import UserError
from privimage.privacy import accounting
from privimage.privacy.accounting import accountants, calibrate, epsilon, statement, together
from privimage.privacy.event import Event, noisy_choice, noisy_votes
from privimage.settings import Declared

DECLARED = Declared(num_images=1437, class_names=("a", "b"), delta=1e-4)
RELEASED = (noisy_votes(5, 10), Event("poisson_gaussian", 8.6, 0.28, 80))


def query(noise_multiplier: float, votes: int = 5) -> Event:
    return noisy_votes(votes, noise_multiplier)


def dp_sgd(noise_multiplier: float, q: float, steps: int) -> Event:
    return Event("poisson_gaussian", noise_multiplier, q, steps)


def exact_gaussian(multiplier: float, delta: float, distance: float = 1.0) -> float:
    """Epsilon of one Gaussian mechanism in closed form (Balle & Wang 2018, theorem 8)."""
    s = multiplier / distance

    def excess(eps: float) -> float:
        below = norm.logcdf(-0.5 / s - eps * s)
        return norm.cdf(0.5 / s - eps * s) - math.exp(eps + below) - delta

    return 0.0 if excess(0) <= 0 else brentq(excess, 0, 200, xtol=1e-12)


def test_the_module_opens_with_numbers_that_hold() -> None:
    result = doctest.testmod(accounting)
    assert result.attempted >= 5 and result.failed == 0


@pytest.mark.parametrize("multiplier", [3, 5, 10, 20, 50, 484.48, 5300])
@pytest.mark.parametrize("delta", [1e-4, 1e-5, 1e-6])
def test_continuous_noise_costs_what_the_closed_form_says(multiplier, delta) -> None:
    got, exact = epsilon([Event("gaussian", multiplier)], delta), exact_gaussian(multiplier, delta)
    assert exact - 1e-9 <= got <= exact + 2e-5


@pytest.mark.parametrize("multiplier, expected", [(484.48, 0.00678), (50, 0.0858), (5300, 0.00037)])
def test_replacing_an_image_moves_a_query_by_root_two_not_by_two(multiplier, expected) -> None:
    got = epsilon([Event("gaussian", multiplier)], 1e-5, relation="replace_one")
    assert got == pytest.approx(expected, abs=2e-5)
    assert got == pytest.approx(exact_gaussian(multiplier, 1e-5, math.sqrt(2)), abs=2e-5)


@pytest.mark.parametrize("steps, multiplier", [(1, 5.0), (30, 5.0), (100, 40.0)])
def test_full_batches_are_one_gaussian_of_less_noise(steps, multiplier) -> None:
    exact = exact_gaussian(multiplier / math.sqrt(steps), 1e-5)
    assert epsilon([dp_sgd(multiplier, 1.0, steps)], 1e-5) == pytest.approx(exact, abs=5e-4)


@pytest.mark.parametrize("q, steps, target", [(1, 30, 0.1), (0.9, 1, 1), (0.01, 2000, 0.3)])
def test_calibration_far_from_the_published_settings(q, steps, target) -> None:
    got = calibrate([query(100)], sampling_probability=q, num_steps=steps, epsilon=target, delta=1e-5)
    assert target - 1e-3 <= epsilon([query(100), dp_sgd(got, q, steps)], 1e-5) <= target


def test_a_budget_that_the_query_alone_exceeds_is_refused_with_the_numbers() -> None:
    with pytest.raises(UserError, match=r"epsilon 1 at delta 0.0001 .*costs 1.07\. .*\(now 3\)"):
        calibrate([query(3)], sampling_probability=0.28, num_steps=80, epsilon=1, delta=1e-4)


def test_a_budget_that_needs_no_noise_is_refused() -> None:
    with pytest.raises(UserError, match="almost no noise"):
        calibrate([], sampling_probability=1e-6, num_steps=1, epsilon=1, delta=1e-4)


GRID = [(2.0, 0.02, 20), (3.0, 0.2, 40), (8.0, 0.5, 40)]


def after_choices(delta_of, delta: float, choice: float, count: int) -> float:
    """Epsilon of a mechanism whose privacy profile is ``delta_of`` and of ``count`` choices, by the law of total delta.

    A pure guarantee's dominating loss is +choice or -choice, so the profile of both together is that of the mechanism
    alone, shifted, on average (Kairouz et al. 2015).
    """
    rises = binom(count, 1 / (1 + math.exp(-choice)))

    def excess(eps: float) -> float:
        return sum(rises.pmf(j) * delta_of(eps - (2 * j - count) * choice) for j in range(count + 1)) - delta

    return brentq(excess, 0, 100, xtol=1e-10)


@pytest.mark.parametrize("choice, count", [(0.1, 1), (0.1, 3), (0.5, 2), (2.0, 4)])
def test_choices_beside_a_query_cost_what_the_closed_form_says(choice, count) -> None:
    def delta_of(eps: float) -> float:  # Balle & Wang 2018, at multiplier 10; it holds for negative epsilon too
        return norm.cdf(0.05 - eps * 10) - math.exp(eps) * norm.cdf(-0.05 - eps * 10)

    gaussian = Event("gaussian", 10)
    got = epsilon([gaussian, *[noisy_choice(choice)] * count], 1e-5)
    exact = after_choices(delta_of, 1e-5, choice, count)
    assert exact - 1e-9 <= got <= exact + (count + 1) * 2e-4
    assert got < epsilon([gaussian], 1e-5) + count * choice  # less than the sum


def test_choices_beside_dp_sgd_cost_what_another_accountant_s_profile_says() -> None:
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(10))
    accountant.compose(dp_accounting.PoissonSampledDpEvent(0.28, dp_accounting.GaussianDpEvent(8.547)), 80)
    exact = after_choices(accountant.get_delta, 1e-4, 0.1, 3)
    for gaussian in (Event("gaussian", 10), query(10)):
        events = [gaussian, dp_sgd(8.547, 0.28, 80), *[noisy_choice(0.1)] * 3]
        assert epsilon(events, 1e-4) == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("choice", [1e-3, 0.1, 1.0, 10.0])
def test_a_choice_is_pure_doubles_when_an_image_is_replaced_and_multiplies_for_persons(choice) -> None:
    exact = math.log(math.exp(choice) - 1e-5 * (1 + math.exp(choice)))  # of two outcomes with odds exp(choice)
    assert epsilon([noisy_choice(choice)], 1e-5) == pytest.approx(exact, abs=2e-4)
    assert exact < epsilon([noisy_choice(choice)], 1e-12) <= choice + 2e-4
    assert epsilon([noisy_choice(choice)], 1e-12, relation="replace_one") == pytest.approx(2 * choice, abs=2e-4)
    assert epsilon([noisy_choice(choice)], 1e-12, images_per_unit=3) == pytest.approx(3 * choice, abs=2e-3)


@pytest.mark.parametrize("choices, target", [((0.1,), 1), ((0.1, 0.1, 0.1), 1), ((0.5, 0.2), 3)])
def test_calibration_leaves_room_for_choices_that_come_later(choices, target) -> None:
    others = [query(10), *map(noisy_choice, choices)]
    got = calibrate(others, sampling_probability=0.28, num_steps=40, epsilon=target, delta=1e-4)
    assert target - 1e-3 <= epsilon([*others, dp_sgd(got, 0.28, 40)], 1e-4) <= target
    alone = calibrate([query(10)], sampling_probability=0.28, num_steps=40, epsilon=target, delta=1e-4)
    assert got > alone


def test_choices_that_leave_nothing_are_named() -> None:
    with pytest.raises(UserError, match=r"1 / validation_epsilon \(now 1\), 1 / validation_epsilon \(now 1\)"):
        calibrate([noisy_choice(1), noisy_choice(1)], sampling_probability=0.1, num_steps=10, epsilon=1, delta=1e-4)


def test_the_statement_says_that_one_accountant_knows_no_choices_and_the_other_confirms() -> None:
    made = stated(events=[*RELEASED, noisy_choice(0.1)])
    assert [a.name for a in made.accountants] == ["PLD (dp-accounting)", "RDP (Opacus)"]
    assert made.accountants[1].value > made.accountants[0].value
    assert any("PRV (Opacus) could not" in sentence for sentence in made.not_covered)
    assert made.events[-1] == Event("report_noisy_max", 10.0)


@pytest.mark.parametrize("choice, count", [(0.1, 1), (0.1, 30), (1.0, 3)])
def test_renyi_divergence_of_a_choice_is_that_of_its_two_outcomes(choice, count) -> None:
    p = math.exp(choice) / (1 + math.exp(choice))

    def spent(order: float) -> float:
        divergence = math.log(p**order * (1 - p) ** (1 - order) + (1 - p) ** order * p ** (1 - order)) / (order - 1)
        return count * divergence + math.log1p(-1 / order) - math.log(1e-5 * order) / (order - 1)

    pld, rdp = (a.value for a in accountants([noisy_choice(choice)] * count, 1e-5))
    assert rdp == pytest.approx(min(map(spent, RDPAccountant.DEFAULT_ALPHAS))) and rdp > pld


def test_accountants_know_a_choice_in_any_order() -> None:
    events = [noisy_choice(0.3), query(10), dp_sgd(5, 0.1, 20)]
    one, other = ([a.value for a in accountants(order, 1e-5)] for order in (events, events[::-1]))
    assert one == pytest.approx(other, abs=1e-9)


@pytest.mark.parametrize(
    "multiplier, q, steps, relation",
    [(*row, "add_or_remove_one") for row in GRID] + [(3.0, 0.2, 40, "replace_one")],
)
def test_more_noise_fewer_samples_fewer_steps_larger_delta_cost_less(multiplier, q, steps, relation) -> None:
    def cost(*events: Event, delta: float = 1e-5) -> float:
        return epsilon(events, delta, relation=relation)

    base = cost(dp_sgd(multiplier, q, steps))
    assert cost(dp_sgd(multiplier * 1.1, q, steps)) < base
    assert cost(dp_sgd(multiplier, q * 0.9, steps)) < base
    assert cost(dp_sgd(multiplier, q, steps - 2)) < base
    assert cost(dp_sgd(multiplier, q, steps), delta=1e-4) < base
    assert cost(query(10), dp_sgd(multiplier, q, steps)) > base
    assert base < epsilon([dp_sgd(multiplier, q, steps)], 1e-5, relation="replace_one") or relation == "replace_one"


@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one"])
def test_a_query_costs_less_with_more_noise_fewer_votes_larger_delta(relation) -> None:
    def cost(parameter: float, votes: int, delta: float = 1e-5) -> float:
        return epsilon([Event("discrete_gaussian", parameter, num_steps=votes)], delta, relation=relation)

    for parameter, votes in ((4.0, 2), (10.0, 5), (45.0, 2)):
        base = cost(parameter, votes)
        assert cost(parameter * 1.05, votes) < base and cost(parameter, votes - 1) < base < cost(parameter, votes, 1e-6)


@pytest.mark.parametrize("event", [Event("discrete_gaussian", 10.0, num_steps=3), Event("report_noisy_max", 10.0)])
def test_persons_with_more_images_are_protected_less(event) -> None:
    costs = [epsilon([event], 1e-5, images_per_unit=images) for images in (1, 2, 3, 10)]
    assert all(a < b for a, b in itertools.pairwise(costs))


def test_steps_can_be_told_apart_or_together() -> None:
    """Composition: T steps are as many as T is split into; what is composed costs at least its dearest part."""
    whole = epsilon([query(10), dp_sgd(3.0, 0.2, 40)], 1e-5)
    parts = epsilon([dp_sgd(3.0, 0.2, 15), query(10), dp_sgd(3.0, 0.2, 25)], 1e-5)
    assert whole == pytest.approx(parts, abs=1e-6)
    steps, votes = epsilon([dp_sgd(3.0, 0.2, 40)], 1e-5), epsilon([query(10)], 1e-5)
    assert max(steps, votes) < whole
    halves = epsilon([dp_sgd(3.0, 0.2, 40)], 5e-6), epsilon([query(10)], 5e-6)
    assert whole < sum(halves)  # basic composition of (epsilon, delta) pairs


def test_order_does_not_matter() -> None:
    events = [query(10), dp_sgd(5, 0.1, 50), query(20)]
    values = [epsilon(list(order), 1e-5) for order in itertools.permutations(events)]
    assert max(values) - min(values) < 1e-6


def test_nothing_costs_nothing() -> None:
    assert epsilon([], 1e-5) == 0.0


def test_a_person_with_one_image_is_an_image() -> None:
    """The mixture with one image is the ordinary pair; the two code paths must meet."""
    import numpy as np
    from dp_accounting.pld import privacy_loss_distribution as pld

    step = pld.from_mixture_gaussian_mechanism(
        3.0, np.array([0.0, 1.0]), np.array([0.8, 0.2]), value_discretization_interval=1e-3
    )
    mixed = step.self_compose(20).get_epsilon_for_delta(1e-5)
    assert epsilon([dp_sgd(3.0, 0.2, 20)], 1e-5) == pytest.approx(mixed, abs=1e-4)


@pytest.mark.parametrize(
    "event",
    [
        query(0),
        query(-1),
        query(math.nan),
        query(math.inf),
        dp_sgd(1, 0, 10),
        dp_sgd(1, 1.5, 10),
        dp_sgd(1, 0.5, 0),
        Event("gaussian", 1, 0.5, 1),
        Event("gaussian", 1, 1, 2),
        Event("discrete_gaussian", 0, 1, 2),
        Event("discrete_gaussian", 1, 0.5, 2),
        Event("discrete_gaussian", 1, 1, 0),
        Event("laplace", 1.0),
        Event("report_noisy_max", 0),
        Event("report_noisy_max", 1, 0.5, 1),
        Event("report_noisy_max", 1, 1, 2),
    ],
)
def test_what_is_no_mechanism_is_refused(event) -> None:
    with pytest.raises(UserError, match="no mechanism that can be accounted for"):
        epsilon([event], 1e-5)


@pytest.mark.parametrize("delta", [0, 1, -1e-5, 1e-13, math.nan])
def test_a_delta_out_of_range_is_refused(delta) -> None:
    with pytest.raises(UserError, match="delta"):
        epsilon([query(10)], delta)


def test_relations_that_are_not_computed_are_refused() -> None:
    for wrong in ({"relation": "replace_one", "images_per_unit": 2}, {"relation": "other"}, {"images_per_unit": 0}):
        with pytest.raises(UserError, match="epsilon was asked under"):
            epsilon([query(10)], 1e-5, **wrong)


def stated(declared: Declared = DECLARED, events: Sequence[Event] = RELEASED, **parents: str) -> PrivacyStatement:
    return statement(list(events), declared, 1.0, Provenance("finetune", 1, {}, parents))


def test_a_statement_says_every_number_and_survives_its_file(tmp_path) -> None:
    made = stated()
    assert made.epsilon == epsilon(made.events, 1e-4) <= made.target_epsilon
    assert made.epsilon_replace_one == epsilon(made.events, 1e-4, relation="replace_one")
    assert made.epsilon_per_unit == made.epsilon and made.images_per_unit == 1
    assert made.neighboring_relation == "add_or_remove_one" and made.private
    assert [a.name for a in made.accountants][0] == "PLD (dp-accounting)" and made.accountants[0].value == made.epsilon
    made.write(tmp_path / "privacy.json")
    assert PrivacyStatement.read(tmp_path / "privacy.json") == made


def test_a_statement_for_persons_costs_more_and_says_whom_it_covers() -> None:
    made = stated(replace(DECLARED, images_per_unit=2))
    assert made.epsilon_per_unit > 2 * made.epsilon
    assert any("up to 2 images" in sentence for sentence in made.not_covered)


def test_reproducible_noise_is_stamped_first() -> None:
    made = stated(replace(DECLARED, reproducible_noise=True))
    assert not made.private and made.not_covered[0].startswith("NOT PRIVATE")


def test_an_accountant_that_fails_is_named_not_replaced(monkeypatch) -> None:
    from opacus.accountants import PRVAccountant

    def fail(self, delta):
        raise RuntimeError("Discrete mean differs significantly from continuous mean.")

    monkeypatch.setattr(PRVAccountant, "get_epsilon", fail)
    made = stated()
    assert [a.name for a in made.accountants] == ["PLD (dp-accounting)", "RDP (Opacus)"]
    assert any("PRV (Opacus) could not" in sentence for sentence in made.not_covered)


def test_releases_together_count_a_shared_query_once() -> None:
    a, b = stated(query="same"), stated(query="same")
    other, scratch = stated(query="other"), stated(events=(dp_sgd(8.1, 0.28, 80),))
    mechanisms = [event.mechanism for event in together([a, b, other, scratch])]
    assert mechanisms.count("discrete_gaussian") == 2 and mechanisms.count("poisson_gaussian") == 4
    assert together([a]) == a.events and together([]) == []


def test_accountants_that_contradict_each_other_are_no_statement():
    def told(prv, rdp):
        values = {accounting.PLD: 5.0, accounting.PRV: prv, accounting.RDP: rdp}
        return [Accountant(name, "1", value) for name, value in values.items()]

    accounting._check_agreement(told(5.01, 5.4))
    for prv, rdp in ((4.9, 5.4), (5.1, 5.4), (5.01, 4.9)):
        with pytest.raises(UserError, match="contradict"):
            accounting._check_agreement(told(prv, rdp))


@pytest.mark.parametrize("epsilon", [float("nan"), float("inf"), 0.0, -1.0])
def test_calibration_refuses_what_is_no_epsilon(epsilon):
    with pytest.raises(UserError, match="finite number above 0"):
        accounting.calibrate([], sampling_probability=0.1, num_steps=10, epsilon=epsilon, delta=1e-5)
