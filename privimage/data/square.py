"""One picture becomes a square of the wanted size: constants and per-image rules, nothing measured on other images."""

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

    With ``small_images: pad``, a picture that is smaller than the square is centred on black instead.

    Shapes: a picture of mode L or RGB -> uint8 [S, S, C].
    Source: the official repository of Li et al. 2024: crop, then torchvision's ``Resize``, whose rounding this keeps.
    """
    size = source.resolution
    mode = "L" if source.channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    side = min(image.size)
    if image.width != image.height:
        left, top = round((image.width - side) / 2), round((image.height - side) / 2)
        image = image.crop((left, top, left + side, top + side))
    if side < size and source.small_images == "pad":
        whole = Image.new(mode, (size, size))
        whole.paste(image, ((size - side) // 2, (size - side) // 2))
        image = whole
    elif side != size:
        image = image.resize((size, size), FILTERS[source.filter])
    return np.frombuffer(image.tobytes(), np.uint8).reshape(size, size, source.channels)  # [S, S, C]
