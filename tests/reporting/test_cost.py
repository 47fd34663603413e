from types import SimpleNamespace

import pytest
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

from privimage.artifacts import Provenance
from privimage.privacy.accounting import together
from privimage.privacy.event import Event, noisy_choice, noisy_votes
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
    assert shares({"query": [QUERY], "training": [TRAINING]}, 5e-5) == pytest.approx(expected, rel=1e-6)
    assert sum(expected.values()) == pytest.approx(1)


def test_equal_mechanisms_share_equally_and_gaussians_by_their_inverse_variance():
    noisy = Event("poisson_gaussian", 10.0, 1.0, 1)
    assert shares({"query": [QUERY], "training": [noisy]}, 1e-5) == pytest.approx({"query": 0.5, "training": 0.5})
    stronger = Event("poisson_gaussian", 5.0, 1.0, 3)
    assert shares({"query": [QUERY], "training": [stronger]}, 1e-5)["query"] == pytest.approx(1 / 13)


def test_a_single_part_has_it_all():
    assert shares({"training": [TRAINING]}, 5e-5) == {"training": 1.0}


def stated(events, **parents):
    return SimpleNamespace(events=events, provenance=Provenance("finetune", 1, {}, parents))


def test_the_parts_are_named_by_what_they_were_for():
    assert parts_of(stated([QUERY, TRAINING], query="a")) == {"query": [QUERY], "training": [TRAINING]}
    assert parts_of(stated([TRAINING, noisy_choice(0.1)])) == {
        "training": [TRAINING],
        "choice of epochs": [noisy_choice(0.1)],
    }


def test_of_two_events_of_one_mechanism_the_first_is_the_query_s_if_there_was_one():
    votes = Event("discrete_gaussian", 9.0, num_steps=4)
    assert parts_of(stated([noisy_votes(5, 10.0), votes], query="a")) == {
        "query": [noisy_votes(5, 10.0)],
        "votes": [votes],
    }
    assert parts_of(stated([votes])) == {"votes": [votes]}


def test_of_releases_that_read_one_query_each_pays_for_its_own_votes():
    query, votes = noisy_votes(5, 10.0), Event("discrete_gaussian", 9.0, num_steps=4)
    both = [stated([query, votes], query="a"), stated([query, TRAINING], query="a"), stated([votes])]
    assert together(both) == [query, votes, TRAINING, votes]


def test_of_releases_of_one_private_model_its_draw_counts_once_and_each_choice_of_epochs_by_itself():
    choice, other = noisy_choice(0.1), Event("poisson_gaussian", 7.0, 0.28, 80)
    first, same = (stated([QUERY, TRAINING, choice], query="a", weights="m") for _ in range(2))
    assert together([first, same]) == [QUERY, TRAINING, choice, choice]
    assert together([first, stated([QUERY, TRAINING], query="a", weights="n")]) == [QUERY, TRAINING, choice, TRAINING]
    assert together([first, stated([QUERY, other], query="a", weights="m")]) == [QUERY, TRAINING, choice, other]
    assert together([stated([TRAINING]), stated([TRAINING])]) == [TRAINING, TRAINING]  # nothing says that they share
    assert together([stated([TRAINING, TRAINING], weights="m")]) == [TRAINING, TRAINING]  # two draws in one release


def test_discrete_noise_on_votes_shares_as_continuous_noise_of_its_multiplier():
    discrete, continuous = (
        shares({"query": [query], "training": [TRAINING]}, 5e-5) for query in (noisy_votes(5, 10.0), QUERY)
    )
    assert discrete == pytest.approx(continuous)
