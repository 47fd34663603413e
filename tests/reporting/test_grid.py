import io

import numpy as np
import pytest
from PIL import Image

from privimage.reporting.grid import COLUMNS, EMPTY, GAP, MAX_WIDTH, default_per_class, image_grid


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def noise(num_images: int, size: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_images, size, size, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_is_enlarged_without_smoothing(channels):
    images = noise(30, 8, channels)
    labels = np.arange(30) % 3
    picture = pixels(image_grid(images, labels, ["a", "b", "c"], per_class=10))
    cell = 8 * 9
    left = picture.shape[1] - COLUMNS * (cell + GAP) + GAP  # the grid stands at the right of the names
    for row, label in enumerate((0, 1, 2)):
        of_class = images[labels == label]
        for column in (0, 4, 9):
            top, at = row * (cell + 2 * GAP), left + column * (cell + GAP)
            tile = picture[top : top + cell, at : at + cell]
            expected = np.broadcast_to(of_class[column], (8, 8, 3)).repeat(9, 0).repeat(9, 1)
            np.testing.assert_array_equal(tile, expected)


@pytest.mark.parametrize("size", [4, 8, 28, 32, 64, 256])
@pytest.mark.parametrize("num_classes", [1, 2, 10])
def test_fits_a_page_and_keeps_whole_images(size, num_classes):
    labels = np.repeat(np.arange(num_classes), 3)
    names = ["an unusually long name of a class, with\na line break"] * num_classes
    picture = pixels(image_grid(noise(len(labels), size), labels, names, per_class=12))
    assert size <= picture.shape[1] <= MAX_WIDTH


def test_a_class_without_enough_images_leaves_its_places_grey():
    labels = np.array([0] * 10 + [1] * 3)
    picture = pixels(image_grid(np.zeros((13, 8, 8, 1), np.uint8), labels, ["full", "sparse"], per_class=10))
    grey = (picture == EMPTY).all(-1)
    assert not grey[: 8 * 9].any()
    assert grey[-8 * 9 :].sum() == 7 * (8 * 9) ** 2


def test_few_classes_get_several_rows():
    assert [default_per_class(n) // COLUMNS for n in (1, 2, 3, 4, 10, 100)] == [6, 3, 2, 1, 1, 1]
    one = pixels(image_grid(noise(60, 8), np.zeros(60, np.int64), ["all"]))
    assert one.shape[:2] == (6 * (8 * 9 + GAP) - GAP, COLUMNS * (8 * 9 + GAP) - GAP)  # and no name


def test_classes_that_are_not_named_are_left_out():
    images, labels = noise(40, 8), np.arange(40) % 4
    shown = image_grid(images, labels, ["a", "b"], per_class=10)
    assert shown == image_grid(images[labels < 2], labels[labels < 2], ["a", "b"], per_class=10)
