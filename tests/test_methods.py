"""Methods: a row releases its query exactly when it reads one."""

from typing import get_args

import pytest

from privimage.generators import GENERATORS, facts_of
from privimage.methods import METHODS, OVERRIDABLE, POLICIES, Method, Policy


@pytest.mark.parametrize("name", METHODS)
def test_a_method_pays_for_the_query_exactly_when_it_reads_one(name):
    method = METHODS[name]
    assert ("query" in method.releases) == (method.query is not None) == (method.policy == "query")
    assert method.releases[-1] == "finetune"


def test_the_table_holds_the_published_method_its_baselines_and_its_ablation():
    policies = {name: method.policy for name, method in METHODS.items() if method.generator == "diffusion"}
    published = {"privimage": "query", "random": "random", "pdp": "whole", "scratch": "none"}
    assert policies == {**published, "privimage-2stage": "query"}


@pytest.mark.parametrize("name", METHODS)
def test_a_row_trains_what_there_is_and_overrides_only_what_comes_before_a_release(name):
    assert METHODS[name].generator in GENERATORS
    assert set(METHODS[name].settings or {}) <= set(OVERRIDABLE)


def test_the_table_holds_the_published_gans():
    policies = {name: method.policy for name, method in METHODS.items() if method.generator == "gan"}
    assert policies == {"privimage-g": "query", "dpgan-p": "whole", "dpgan": "none"}


def test_a_row_is_the_published_policy_unless_told_otherwise():
    assert Method().policy == "query"


def test_card_and_page_have_the_same_words_for_every_policy():
    from privimage.releasing import card
    from privimage.reporting import page

    assert tuple(POLICIES) == get_args(Policy)
    assert card.POLICIES is page.POLICIES is POLICIES


def test_a_generators_version_is_part_of_what_it_made(monkeypatch):
    before = facts_of("gan")
    monkeypatch.setattr(GENERATORS["gan"], "VERSION", 2)
    assert facts_of("gan") != before
    assert facts_of("diffusion") == {}  # as it was before there were others


def test_no_two_generators_make_weights_of_one_kind():
    kinds = [generator.PRIVATE for generator in GENERATORS.values()]
    assert len(set(kinds)) == len(kinds)
