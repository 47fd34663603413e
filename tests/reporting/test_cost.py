import pytest
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

from privimage.privacy.event import Event, noisy_votes
from privimage.reporting.cost import ORDERS, parts_of, shares

QUERY, TRAINING = Event("gaussian", 10.0), Event("poisson_gaussian", 6.0, 0.28, 80)


def test_shares_are_those_of_an_independent_accountant_at_its_best_order():
    each = {
        name: compute_rdp(
            q=e.sampling_probability, noise_multiplier=e.noise_multiplier, steps=e.num_steps, orders=ORDERS
        )
        for name, e in {"query": QUERY, "training": TRAINING}.items()
    }
    _, order = get_privacy_spent(orders=ORDERS, rdp=each["query"] + each["training"], delta=5e-5)
    at = {name: divergences[ORDERS.index(order)] for name, divergences in each.items()}
    expected = {name: value / sum(at.values()) for name, value in at.items()}
    assert shares([QUERY, TRAINING], 5e-5) == pytest.approx(expected, rel=1e-6)
    assert sum(expected.values()) == pytest.approx(1)


def test_equal_mechanisms_share_equally_and_gaussians_by_their_inverse_variance():
    noisy = Event("poisson_gaussian", 10.0, 1.0, 1)
    assert shares([QUERY, noisy], 1e-5) == pytest.approx({"query": 0.5, "training": 0.5})
    assert shares([QUERY, Event("poisson_gaussian", 5.0, 1.0, 3)], 1e-5)["query"] == pytest.approx(1 / 13)


def test_a_single_part_has_it_all():
    assert shares([TRAINING], 5e-5) == {"training": 1.0}


def test_the_parts_are_named_by_their_mechanism():
    assert parts_of([TRAINING, QUERY, TRAINING]) == {"training": [TRAINING, TRAINING], "query": [QUERY]}
    assert parts_of([TRAINING, noisy_votes(5, 10.0)])["query"] == [noisy_votes(5, 10.0)]


def test_discrete_noise_on_votes_shares_as_continuous_noise_of_its_multiplier():
    assert shares([noisy_votes(5, 10.0), TRAINING], 5e-5) == pytest.approx(shares([QUERY, TRAINING], 5e-5))
