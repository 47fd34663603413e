"""What was seen: ranges and counts that do not depend on how the images were shared out; equal squares are found."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from privimage.data.reading import Square
from privimage.data.survey import Seen, duplicates, square_hash, warnings_of


def image(width, height, stored):
    return Square(0, "x", 0, False, np.zeros((4, 4, 1), np.uint8), (width, height), stored)


SIZES = st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99), st.sampled_from(["PNG RGB", "JPEG L"])), max_size=20)


@given(one=SIZES, other=SIZES)
def test_two_parts_seen_apart_are_what_one_would_have_seen(one, other):
    parts = [Seen(), Seen(), Seen()]
    for seen, images in zip(parts, (one, other, one + other)):
        for size in images:
            seen.add(image(*size))
    parts[0].merge(Seen.of(parts[1].plain()))
    assert parts[0] == parts[2]
    if one + other:
        assert parts[2].widths == [min(w for w, _, _ in one + other), max(w for w, _, _ in one + other)]


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=40))
def test_equal_squares_are_counted_within_and_across_the_split(images):
    hashes = np.array([h for h, _ in images], np.uint64)
    is_test = np.array([t for _, t in images], bool)
    found = duplicates(hashes, is_test)
    train, test = hashes[~is_test].tolist(), hashes[is_test].tolist()
    assert found.within_train == len(train) - len(set(train))
    assert found.within_test == len(test) - len(set(test))
    assert found.across == sum(h in set(train) for h in test)
    for group in found.examples:
        assert len(group) > 1 and len({hashes[i] for i in group}) == 1


def test_a_hash_tells_squares_apart():
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 2, (2000, 4, 4, 1), dtype=np.uint8)
    assert len({square_hash(s.tobytes()) for s in squares}) == len(np.unique(squares, axis=0))
    assert square_hash(squares[0].tobytes()) == square_hash(squares[0].copy().tobytes())


def test_copies_are_told_with_their_names():
    found = duplicates(np.array([1, 1, 2, 2], np.uint64), np.array([0, 0, 0, 1], bool))
    told = warnings_of(found, [["a", "b"], ["c", "d"]])
    assert told == [
        "1 training images are copies of other training images (for instance a = b; c = d).",
        "1 test images are copies of training images, which flatters every measurement (for instance a = b; c = d).",
    ]
    assert warnings_of(duplicates(np.array([], np.uint64), np.array([], bool)), []) == []
