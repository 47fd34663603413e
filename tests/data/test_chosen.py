"""Some classes of a source: the same images under new numbers, none lost, none in two sets."""

from collections import Counter

import numpy as np
import pytest
from sets import image_sets

from privimage.data import chosen, reader
from privimage.errors import UserError
from privimage.settings import Source

HELD = ("digit 7", "letter b", "digit 2")


def source(**changes):
    row = {"source": "glyphs", "resolution": 8, "channels": 1, "num_classes": 12, "images_per_class": 12}
    return Source(**{**row, "filter": "box", **changes})


def read(source, class_names=None):
    return image_sets(chosen.read(source, class_names), source)


def of_class(images, name):
    return images.images[images.labels == images.class_names.index(name)]


def test_a_row_that_names_no_classes_is_what_the_source_gives():
    whole = image_sets(reader("glyphs")(source(), None), source())[0]
    same = read(source())[0]
    np.testing.assert_array_equal(same.images, whole.images)
    assert same.class_names == whole.class_names


def test_held_out_classes_and_the_rest_are_the_whole_each_image_once():
    whole = read(source())
    held = read(source(num_classes=None, classes=HELD), HELD)
    rest = read(source(num_classes=9, without_classes=HELD))
    for all_of, some, others in zip(whole, held, rest):
        assert Counter(some.class_names) + Counter(others.class_names) == Counter(all_of.class_names)
        for name in all_of.class_names:
            part = some if name in HELD else others
            np.testing.assert_array_equal(of_class(part, name), of_class(all_of, name))


def test_a_public_row_may_have_some_classes_alone():
    found = read(source(num_classes=3, classes=HELD))[0]
    assert sorted(found.class_names) == sorted(HELD)
    with pytest.raises(UserError, match="num_classes"):
        read(source(num_classes=4, classes=HELD))


def test_chosen_classes_stand_in_the_declared_order():
    assert read(source(num_classes=None, classes=HELD), tuple(reversed(HELD)))[0].class_names == tuple(reversed(HELD))


@pytest.mark.parametrize(
    ("changes", "declared", "told"),
    [
        ({"classes": ("digit 7", "digit x")}, None, "`digit x`.* such as `digit 0`"),
        ({"without_classes": ("Digit 7",)}, None, "`Digit 7`"),
        ({"num_classes": None, "classes": HELD}, ("digit 7", "digit 2"), "as declared"),
    ],
)
def test_classes_that_are_not_there_or_not_declared_are_refused(changes, declared, told):
    with pytest.raises(UserError, match=told):
        chosen.read(source(**changes), declared)


def test_the_number_of_a_public_rows_classes_is_of_those_that_are_left():
    row = Source(source="digits", resolution=8, channels=1, num_classes=9, without_classes=("3",))
    assert chosen.read(row).class_names == tuple("012456789")
    with pytest.raises(UserError, match="num_classes"):
        chosen.read(Source(source="digits", resolution=8, channels=1, num_classes=10, without_classes=("3",)))
