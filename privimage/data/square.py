"""One image becomes a square of the wanted size: constants and per-image rules, nothing measured on other images."""

from __future__ import annotations

import numpy as np
from PIL import Image

from privimage.settings import Source

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


def square(image: Image.Image, source: Source) -> np.ndarray:
    """The centre of the short side's length, resized, in the wanted channels.

    Shapes: an image of mode L or RGB -> uint8 [S, S, C].
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.convert("L" if source.channels == 1 else "RGB")
    size = (source.resolution, source.resolution)
    resized = image.resize(size, FILTERS[source.filter], box=(left, top, left + side, top + side))
    return np.asarray(resized).reshape(*size, source.channels)  # [S, S, C]
