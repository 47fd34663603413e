"""The geometry of the paper: crop the centre of the short side, then resize; torchvision's transforms as reference."""

import numpy as np
import pytest
from PIL import Image
from sets import noise

from privimage.data.square import square
from privimage.metrics.torchvision_cpu import prepare_torchvision
from privimage.settings import Source


def source(**changes):
    return Source(**{"source": "folder", "resolution": 32, "channels": 3, **changes})


@pytest.mark.parametrize("size", [(64, 64), (50, 37), (37, 50), (178, 218), (33, 100), (500, 375), (20, 21), (9, 40)])
def test_it_is_torchvision_s_centre_crop_and_resize(size):
    prepare_torchvision()
    from torchvision.transforms.v2 import CenterCrop, InterpolationMode, Resize

    image = noise(sum(size), size)
    cropped = CenterCrop(min(size))(image)
    for name, mode in (("bilinear", InterpolationMode.BILINEAR), ("lanczos", InterpolationMode.LANCZOS)):
        want = np.asarray(Resize((32, 32), mode)(cropped))
        np.testing.assert_array_equal(square(image, source(filter=name)), want)


def test_pixels_outside_the_centre_square_do_not_matter():
    image = np.asarray(noise(1, (60, 40))).copy()
    others = image.copy()
    others[:, :10], others[:, 50:] = 255, 0
    first, second = (square(Image.fromarray(i), source()) for i in (image, others))
    np.testing.assert_array_equal(first, second)


def test_a_box_filter_takes_means():
    image = noise(8, (16, 16), 1)
    got = square(image, source(resolution=4, channels=1, filter="box"))
    means = np.asarray(image).reshape(4, 4, 4, 4).mean((1, 3))
    assert np.abs(got[..., 0] - means).max() <= 1


def test_the_wanted_size_is_left_alone():
    image = noise(2, (32, 32))
    np.testing.assert_array_equal(square(image, source()), np.asarray(image))


def test_a_small_image_is_enlarged_or_padded():
    image = noise(3, (28, 28), 1)
    padded = square(image, source(channels=1, small_images="pad"))[..., 0]
    np.testing.assert_array_equal(padded[2:30, 2:30], np.asarray(image))
    assert padded.sum() == np.asarray(image).sum(dtype=int)
    enlarged = square(image, source(channels=1))[..., 0]
    np.testing.assert_array_equal(enlarged, np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)))
    large = noise(4, (40, 40), 1)
    np.testing.assert_array_equal(
        square(large, source(channels=1, small_images="pad")), square(large, source(channels=1))
    )


def test_grey_and_colour_are_converted():
    grey, colour = noise(1, (32, 32), 1), noise(2, (32, 32))
    replicated = square(grey, source())
    assert (replicated == np.asarray(grey)[..., None]).all()
    luma = np.asarray(colour) @ [0.299, 0.587, 0.114]
    assert np.abs(square(colour, source(channels=1))[..., 0] - luma).max() <= 1
