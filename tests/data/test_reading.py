"""Parts of a collection: together they are the whole, whatever their number; what is bad is told and moves nothing."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sets import collection_of, noise, record, squares

from privimage.data.reading import BLOCK, Part, Square, falls_to_test
from privimage.data.record import BadImage, Collection, Problem, Record
from privimage.settings import Source

SOURCE = Source(source="folder", resolution=4, channels=1)


def many(count):
    for index in range(count):
        pixels = np.full((4, 4), index % 251, np.uint8)
        yield Record(f"{index}", index % 2, None, lambda pixels=pixels: pixels)


@given(count=st.integers(0, 5 * BLOCK), of=st.integers(1, 7))
def test_the_parts_are_disjoint_and_together_the_whole(count, of):
    whole = Collection("list", ("a", "b"), lambda: many(count))
    parts = [Part(whole, SOURCE, index, of) for index in range(of)]
    found = [[square.position for square in part] for part in parts]
    assert sorted(sum(found, [])) == list(range(count))
    assert all(part == sorted(part) for part in found)
    assert len({(part.num_items, part.listing) for part in parts}) == 1


def test_the_listing_is_told_apart_by_names_labels_parts_and_order():
    def listing(*items):
        part = Part(collection_of(*items), SOURCE)
        list(part)
        return part.listing

    one, two = (record(np.zeros((4, 4), np.uint8), name=name) for name in "xy")
    seen = [
        listing(one, two),
        listing(two, one),
        listing(one),
        listing(record(np.zeros((4, 4), np.uint8), label=1, name="x"), two),
        listing(record(np.zeros((4, 4), np.uint8), split="test", name="x"), two),
        listing(Problem("x", "gone", "find it"), two),
    ]
    assert len(set(seen)) == len(seen)
    assert listing(one, two) == seen[0]


def test_only_its_own_images_does_a_part_read():
    read = []

    def items():
        for index in range(3 * BLOCK):
            yield Record(str(index), 0, "train", lambda index=index: read.append(index) or np.zeros((4, 4), np.uint8))

    list(Part(Collection("list", ("a",), items), SOURCE, 1, 3))
    assert read == list(range(BLOCK, 2 * BLOCK))


def test_a_bad_image_is_told_and_the_others_do_not_change():
    def dies():
        raise BadImage("torn", "glue it")

    def unreadable():
        raise PermissionError(13, "Permission denied")

    good = [
        record(noise(seed, channels=1).tobytes() and np.asarray(noise(seed, channels=1)), name=str(seed))
        for seed in range(3)
    ]
    bad = [Record("a", 0, "train", dies), Record("b", 0, None, unreadable), Problem("c", "is not there", "find it")]
    found, problems = squares(collection_of(good[0], *bad[:1], good[1], *bad[1:], good[2]), SOURCE)
    alone, _ = squares(collection_of(*good), SOURCE)
    assert [str(p) for p in problems] == [
        "a: torn; glue it.",
        "b: cannot be read (Permission denied); mend its permissions or copy it anew.",
        "c: is not there; find it.",
    ]
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_an_image_s_own_bytes_decide_its_part_where_the_source_has_none():
    buffers = []
    for seed in range(200):
        buffers.append(io.BytesIO())
        noise(seed).save(buffers[-1], "PNG")
    items = [record(b.getvalue(), split=None, name=str(i)) for i, b in enumerate(buffers)]
    found, _ = squares(collection_of(*items), SOURCE)
    tests = {square.name for square in found if square.is_test}
    assert 20 <= len(tests) <= 60
    fewer, _ = squares(collection_of(*items[::-2]), SOURCE)
    assert all(square.is_test == (square.name in tests) for square in fewer)


def test_the_fraction_for_testing_is_met_on_average():
    falls = [falls_to_test(str(index).encode(), 0.2) for index in range(5000)]
    assert abs(np.mean(falls) - 0.2) < 0.02


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "a\udcffb", "a\0b"])
def test_names_come_out_on_one_line_in_plain_characters(name):
    found, _ = squares(collection_of(record(np.zeros((4, 4), np.uint8), name=name)), SOURCE)
    told = str(Problem(name, "is bad", "mend it"))
    for text in (found[0].name, told):
        assert text.isprintable() and text.encode("utf-8")


def test_what_it_was_is_told():
    found, _ = squares(collection_of(record(np.full((9, 6), 7, np.uint8))), SOURCE)
    assert isinstance(found[0], Square)
    assert (found[0].size, found[0].stored) == ((6, 9), "uint8 array")
