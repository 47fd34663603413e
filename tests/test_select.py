"""Selection: disjoint, largest votes first, whatever the order of the classes; refusals that say why."""

import json
import sys
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privimage import select
from privimage.artifacts import ImageSet, Provenance, QueryResult, Subset, sha256
from privimage.errors import UserError
from privimage.privacy.event import Event
from privimage.settings import SelectSettings

NAMES = ("cat", "dog")
PUBLIC = ("lynx", "tabby", "beagle", "husky", "truck")
HISTOGRAM = [[9.0, 8.0, 1.0, 7.5, -3.0], [0.0, 2.0, 6.0, 7.0, -1.0]]
PROVENANCE = Provenance("select", select.VERSION)
QUERY = QueryResult(
    HISTOGRAM, list(NAMES), list(PUBLIC), 2, 2**0.5, Event("gaussian", 10.0), True, Provenance("query", 1)
)


def run(policy="query", query=QUERY, count=2, seed=0):
    chosen = SelectSettings(classes_per_label=count)
    return select.run(policy, PUBLIC, query, NAMES, chosen, seed, PROVENANCE)


def histograms(rows, columns, seed):
    """Cells without ties, of both signs."""
    cells = np.random.default_rng(seed).permutation(rows * columns) - rows * columns // 2
    return cells.reshape(rows, columns).astype(float)


def test_a_contested_public_class_goes_to_whom_votes_more():
    assert run().classes == {"cat": ["lynx", "tabby"], "dog": ["husky", "beagle"]}
    # Served in order of its number, "cat" would have taken "husky", which "dog" ranks first:
    contested = replace(QUERY, histogram=[[5.0, 0.0, 0.0, 9.0, 0.0], [0.0, 0.0, 1.0, 10.0, 0.0]])
    assert run(query=contested, count=1).classes == {"cat": ["lynx"], "dog": ["husky"]}


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 6), count=st.integers(1, 4), extra=st.integers(0, 9), seed=st.integers(0, 2**32 - 1))
def test_properties_of_any_assignment(rows, count, extra, seed):
    histogram = histograms(rows, rows * count + extra, seed)
    before = histogram.copy()
    chosen = select.greedy(histogram, count)
    flat = [column for row in chosen for column in row]
    assert [len(row) for row in chosen] == [count] * rows
    assert len(set(flat)) == len(flat)
    np.testing.assert_array_equal(histogram, before)
    for row, columns in enumerate(chosen):
        assert sorted(columns, key=lambda c: -histogram[row, c]) == columns
        # A class that a row would rather have had went to a row with more votes for it.
        for column in set(range(histogram.shape[1])) - set(columns):
            if histogram[row, column] > histogram[row, columns[-1]]:
                owner = next(other for other in range(rows) if column in chosen[other])
                assert histogram[owner, column] > histogram[row, column]


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(2, 6), count=st.integers(1, 3), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_the_order_of_the_classes_means_nothing(rows, count, seed, data):
    histogram = histograms(rows, rows * count + 3, seed)
    order = data.draw(st.permutations(range(rows)))
    columns = data.draw(st.permutations(range(histogram.shape[1])))
    permuted = select.greedy(histogram[order][:, columns], count)
    back = {order[row]: [columns[column] for column in chosen] for row, chosen in enumerate(permuted)}
    assert back == dict(enumerate(select.greedy(histogram, count)))


def test_all_public_classes_can_be_given_away_and_no_mask_is_chosen():
    histogram = np.full((3, 6), -1e300) - histograms(3, 6, 0)
    chosen = select.greedy(histogram, 2)
    assert sorted(column for row in chosen for column in row) == list(range(6))


def test_random_is_disjoint_and_of_the_seed_alone():
    first = run("random", None)
    assert len({name for names in first.classes.values() for name in names}) == 4
    assert first == run("random", None)
    assert len({json.dumps(run("random", None, seed=seed).classes) for seed in range(20)}) > 10


@pytest.mark.parametrize("policy", ["whole", "none"])
def test_policies_that_choose_nothing(policy):
    assert run(policy, None, count=99) == Subset(policy, {"cat": [], "dog": []}, PROVENANCE)


@pytest.mark.parametrize(("policy", "query"), [("query", None), ("random", QUERY), ("none", QUERY)])
def test_policy_and_query_belong_together(policy, query):
    with pytest.raises(UserError, match="needs --query"):
        run(policy, query)


@pytest.mark.parametrize(("policy", "query"), [("query", QUERY), ("random", None)])
def test_too_few_public_classes_are_refused(policy, query):
    with pytest.raises(UserError, match="takes 6 public classes, and there are 5"):
        run(policy, query, count=3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_histogram_that_is_not_finite_is_refused(bad):
    with pytest.raises(UserError, match="not finite"):
        run(query=replace(QUERY, histogram=[[bad, *HISTOGRAM[0][1:]], HISTOGRAM[1]]))


def test_a_query_of_other_classes_is_refused():
    with pytest.raises(UserError, match="give the query of this data set"):
        run(query=replace(QUERY, class_names=["dog", "cat"]))
    with pytest.raises(UserError, match="give the query of this data set"):
        run(query=replace(QUERY, public_class_names=list(PUBLIC[::-1])))
    with pytest.raises(UserError, match=r"shape \[1, 5\]"):
        run(query=replace(QUERY, histogram=HISTOGRAM[:1]))


def main(monkeypatch, *flags):
    common = ["--class-names", json.dumps(NAMES), "--settings", '{"classes_per_label": 2}', "--seed", "0"]
    monkeypatch.setattr(sys, "argv", ["select", *common, *map(str, flags)])
    select.main()


def test_from_files_to_file(tmp_path, monkeypatch):
    pixels = np.zeros((5, 8, 8, 1), np.uint8)
    ImageSet(pixels, np.arange(5), PUBLIC, "made").write(tmp_path / "train.h5")
    QUERY.write(tmp_path / "query.json")
    files = ["--public", tmp_path / "train.h5", "--subset", tmp_path / "subset.json"]
    main(monkeypatch, "--policy", "query", "--query", tmp_path / "query.json", *files)
    subset = Subset.read(tmp_path / "subset.json")
    assert subset.classes == run().classes
    assert subset.provenance.parents == {
        "public": sha256(tmp_path / "train.h5"),
        "query": sha256(tmp_path / "query.json"),
    }
    main(monkeypatch, "--policy", "whole", *files)
    assert list(Subset.read(tmp_path / "subset.json").provenance.parents) == ["public"]
    with pytest.raises(UserError):
        main(monkeypatch, "--policy", "query", *files)


def test_one_to_one_serves_the_largest_sum_that_any_assignment_has():
    histogram = np.array([[10.0, 9.0], [9.5, 1.0]])  # greedy takes 10 and is left with 1
    assert select.greedy(histogram, 1) == [[0], [1]]
    assert select.one_to_one(histogram, 1) == [[1], [0]]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 2), st.integers(0, 2**32 - 1))
def test_one_to_one_is_as_good_as_trying_all(num_classes, count, seed):
    histogram = np.random.default_rng(seed).normal(size=(num_classes, num_classes * count + 1))
    chosen = select.one_to_one(histogram, count)
    flat = [column for row in chosen for column in row]
    assert len(set(flat)) == len(flat) and {len(row) for row in chosen} == {count}
    places = np.repeat(np.arange(num_classes), count)
    best = max(histogram[places, list(order)].sum() for order in permutations(range(histogram.shape[1]), len(places)))
    assert histogram[places, flat].sum() == pytest.approx(best)
    assert all(sorted(row, key=lambda c: -histogram[k, c]) == row for k, row in enumerate(chosen))


def test_the_setting_decides_who_assigns():
    crossed = replace(QUERY, histogram=[[10.0, 9.0, 0, 0, 0], [9.5, 1.0, 0, 0, 0]])
    found = {
        how: select.run(
            "query", PUBLIC, crossed, NAMES, SelectSettings(classes_per_label=1, assignment=how), 0, PROVENANCE
        ).classes
        for how in select.ASSIGNMENTS
    }
    assert found == {"greedy": {"cat": ["lynx"], "dog": ["tabby"]}, "one-to-one": {"cat": ["tabby"], "dog": ["lynx"]}}


def test_a_class_that_wins_by_no_more_than_noise_is_told(tmp_path, monkeypatch, capsys):
    """Noise of sqrt(2) * 10 votes reaches 14.1 * sqrt(2 ln 10) = 30.3 somewhere among ten cells."""
    clear = replace(QUERY, histogram=[[9.0, 8.0, 1.0, 7.5, 31.0], [0.0, 30.0, 6.0, 7.0, -1.0]])
    told = select.by_chance(clear, run(query=clear, count=1))
    assert len(told) == 1 and told[0].startswith("`dog` gets `tabby` for 30 noisy votes, and noise alone reaches 30")
    ImageSet(np.zeros((5, 8, 8, 1), np.uint8), np.arange(5), PUBLIC, "made").write(tmp_path / "train.h5")
    clear.write(tmp_path / "query.json")
    files = ["--public", tmp_path / "train.h5", "--query", tmp_path / "query.json"]
    files += ["--subset", tmp_path / "subset.json"]
    main(monkeypatch, "--policy", "query", *files, "--settings", '{"classes_per_label": 1}')
    assert f"warning: {told[0]}" in capsys.readouterr().err


def test_pure_noise_is_told_in_nearly_every_draw():
    rng = np.random.default_rng(0)
    drawn = [replace(QUERY, histogram=rng.normal(0, 200**0.5, (2, 5)).tolist()) for _ in range(200)]
    told = [len(select.by_chance(query, run(query=query, count=1))) for query in drawn]
    assert np.mean(told) > 1.75  # of two; the largest of ten cells stays below in six draws of seven
