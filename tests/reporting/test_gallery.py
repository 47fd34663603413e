import io

import numpy as np
import pytest
from PIL import Image

from privimage.artifacts import ImageSet
from privimage.reporting.gallery import MAX_CLASSES, grids_within, neighbour_picture


def noise(num_images: int, size: int, num_classes: int, channels: int = 3) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (num_images, size, size, channels), dtype=np.uint8)
    labels = np.arange(num_images) % num_classes
    return ImageSet(pixels, labels, tuple(f"class {index}" for index in range(num_classes)), "test")


@pytest.mark.slow
@pytest.mark.parametrize(
    "size, num_sets, num_classes", [(8, 2, 10), (32, 9, 200), (64, 9, 200), (128, 9, 10), (32, 3, 1)]
)
def test_grids_of_the_least_compressible_images_keep_within_their_bytes(size, num_sets, num_classes):
    found, shown = grids_within([noise(num_classes * 4, size, num_classes)] * num_sets, num_classes, 2_000_000)
    assert sum(len(picture.content) for picture in found) <= 2_000_000
    assert len(found) == num_sets and 1 <= shown <= min(num_classes, MAX_CLASSES)


def test_small_images_are_stored_pixel_by_pixel_and_large_ones_as_photographs():
    small, large = (grids_within([noise(20, size, 2)], 2, 10**7)[0][0] for size in (8, 64))
    assert (small.kind, large.kind) == ("image/png", "image/jpeg")
    assert Image.open(io.BytesIO(large.content)).size == (large.width, large.height)


@pytest.mark.parametrize("size, channels", [(8, 1), (32, 3), (256, 3)])
def test_a_synthetic_image_stands_beside_its_neighbours(size, channels):
    made, real = noise(5, size, 1, channels).images, np.full((4, size, size, channels), 200, np.uint8)
    nearest = [{"synthetic": 4, "train": [3, 1, 0], "distance": 0.1}] * 7
    picture = neighbour_picture(made, real, nearest)
    pixels = np.asarray(Image.open(io.BytesIO(picture.content)).convert("RGB"))
    assert picture.width <= 950 and (np.abs(pixels.astype(int) - 200).max(-1) < 4).mean() > 0.3
