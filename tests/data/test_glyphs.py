"""Glyphs: named classes, drawn from fonts that have them, always the same, in the style of the real digits."""

import numpy as np
import pytest
from PIL import ImageFont
from sets import image_sets
from sklearn.neighbors import KNeighborsClassifier

from privimage.data import digits, glyphs
from privimage.errors import UserError
from privimage.settings import Source


def source(**changes):
    row = {"source": "glyphs", "resolution": 8, "channels": 1, "num_classes": 62, "images_per_class": 12}
    return Source(**{**row, "filter": "box", **changes})


def read(**changes):
    return image_sets(glyphs.read(source(**changes)), source(**changes))


def test_the_default_is_62_named_classes_a_sixth_of_each_held_out():
    train, val = read()
    assert train.class_names == val.class_names
    assert len(set(train.class_names)) == 62
    assert {"digit 3", "letter a", "capital A"} <= set(train.class_names)
    assert (train.counts, val.counts) == ([10] * 62, [2] * 62)


@pytest.mark.slow
def test_further_signs_have_names_of_their_own():
    train, _ = read(num_classes=len(glyphs.SIGNS), images_per_class=10)
    assert len(set(train.class_names)) == len(glyphs.SIGNS)
    assert "ampersand" in train.class_names


@pytest.mark.parametrize("changes", [{"num_classes": 1000}, {"images_per_class": None}, {"num_classes": 0}])
def test_a_row_that_cannot_be_drawn_is_refused(changes):
    with pytest.raises(UserError, match="num_classes .* images_per_class"):
        glyphs.read(source(**changes))


def test_without_a_number_all_signs_are_drawn():
    assert glyphs.read(source(num_classes=None)).class_names == tuple(map(glyphs.name, glyphs.SIGNS))


def test_two_readings_are_the_same_and_no_two_images_are():
    one, other = read(num_classes=3)[0], read(num_classes=3)[0]
    np.testing.assert_array_equal(one.images, other.images)
    assert len(np.unique(one.images, axis=0)) == len(one.images)


def test_a_class_does_not_depend_on_how_many_others_are_drawn():
    few, many = read(num_classes=2)[0], read(num_classes=4)[0]
    np.testing.assert_array_equal(few.images, many.images[: len(few.images)])


@pytest.mark.parametrize(("resolution", "channels"), [(8, 1), (28, 1), (32, 3), (64, 1)])
def test_white_ink_fills_the_height_or_the_width_of_a_black_square(resolution, channels):
    images = read(num_classes=12, resolution=resolution, channels=channels)[0].images
    assert images.shape == (120, resolution, resolution, channels) and images.dtype == np.uint8
    assert (images == images[..., :1]).all()
    ink = images[..., 0] > 60
    rows, columns = ink.any(2), ink.any(1)
    fills_height, fills_width = (edge[:, 0] & edge[:, -1] for edge in (rows, columns))
    assert (fills_height | (columns.mean(1) > 0.8) | fills_width).mean() > 0.9
    assert 0.1 < ink.mean() < 0.6


def test_only_fonts_that_have_a_sign_draw_it():
    fonts = glyphs.fonts_by_sign()
    for sign, paths in fonts.items():
        assert len({path.name for path in paths}) >= 5, sign
        for path in paths:
            absent = ImageFont.truetype(str(path), 40).getmask("\U000f1234")  # a private code: the box of no glyph
            assert bytes(ImageFont.truetype(str(path), 40).getmask(sign)) != bytes(absent)


def test_symbol_fonts_and_fonts_of_last_resort_draw_no_digits():
    fonts = glyphs.fonts_by_sign()
    names = {path.name for sign in "0123456789" for path in fonts[sign]}
    assert "DejaVuSans.ttf" in names
    assert not [name for name in names if name.startswith(("LastResort", "cmex", "cmsy", "cmmi", "STIXSiz", "STIXNon"))]


def test_the_drawn_digits_teach_the_real_ones():
    drawn, _ = read(num_classes=10, images_per_class=120)
    real, _ = image_sets(digits.read(Source(source="digits", resolution=8, channels=1)), source())
    teacher = KNeighborsClassifier(5).fit(drawn.images.reshape(len(drawn.images), -1), drawn.labels)
    assert teacher.score(real.images.reshape(len(real.images), -1), real.labels) > 0.65


def test_a_margin_stays_black_and_the_sign_fills_the_rest():
    bare, framed = (read(num_classes=3, resolution=r, margin=m)[0].images for r, m in ((20, 0), (28, 4)))
    np.testing.assert_array_equal(framed[:, 4:-4, 4:-4], bare)
    assert framed.sum(dtype=int) == bare.sum(dtype=int)


def test_a_margin_that_leaves_no_room_is_refused():
    with pytest.raises(UserError, match="margin 3; expected one that leaves 4 of 8 pixels"):
        glyphs.read(source(margin=3))
