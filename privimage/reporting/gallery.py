"""Pictures of images, all of a page's together within a number of bytes.

Small images are PNGs, pixel by pixel; large ones, whose pixels nobody counts, JPEGs.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from privimage.artifacts import ImageSet
from privimage.reporting.grid import GAP, INK, PAPER, default_per_class, font_of, grid_picture

MAX_CLASSES = 20
FEWEST = 4  # images of a class; with less room, fewer classes are shown
LARGE = 64  # pixels
JPEG_QUALITY = 88
NEIGHBOURS = 3
BLOCK_WIDTH, BLOCKS, GUTTER = 300, 3, 14  # pixels
FRAME = (0, 114, 178)


@dataclass(frozen=True)
class Picture:
    """An encoded picture and its size in pixels."""

    kind: str
    content: bytes
    width: int
    height: int


def grids_within(sets: Sequence[ImageSet], num_classes: int, max_bytes: int) -> tuple[list[Picture], int]:
    """A grid of each set, all alike and together within ``max_bytes``; and how many classes they show.

    Fewer images of a class are shown where there is no room, then fewer classes, but always one image of one class.
    """
    classes = min(num_classes, MAX_CLASSES)
    per_class = default_per_class(num_classes)
    while True:
        found, taken, least = [], 0, classes == 1 and per_class == 1
        for one in sets:
            picture = grid_picture(one.images, one.labels, one.class_names[:classes], per_class)
            found.append(encoded(picture, one.images.shape[1]))
            taken += len(found[-1].content)
            if taken > max_bytes and not least:
                break
        else:
            return found, classes
        share = max(0.0, max_bytes * len(found) / (taken * len(sets)))
        if share * per_class < FEWEST and classes > 1:
            classes, per_class = max(1, int(classes * share * per_class / FEWEST)), min(FEWEST, per_class)
        else:
            per_class = max(1, min(int(share * per_class), per_class - 1))


def neighbour_picture(synthetic: np.ndarray, train: np.ndarray, nearest: Sequence[Mapping[str, Any]]) -> Picture:
    """Synthetic images, framed, each beside its nearest training images.

    ``nearest`` holds entries of ``Memorisation.nearest``. Shapes: both uint8 [N, H, W, C] with C 1 or 3.
    """
    size = synthetic.shape[1]
    columns = 1 + max(len(entry["train"][:NEIGHBOURS]) for entry in nearest)
    side = _side(size, (BLOCK_WIDTH - GUTTER) // columns - GAP)
    width, pitch, head = columns * (side + GAP) + GUTTER, side + 3 * GAP, 16
    blocks = min(BLOCKS, len(nearest))
    rows = -(-len(nearest) // blocks)
    picture = Image.new("RGB", (blocks * (width + GUTTER) - GUTTER, head + rows * pitch), PAPER)
    draw = ImageDraw.Draw(picture)
    for place, entry in enumerate(nearest):
        left, top = place // rows * (width + GUTTER), head + place % rows * pitch
        if place % rows == 0:
            draw.text((left, 0), "synthetic", fill=FRAME, font=font_of(11))
            draw.text((left + side + GAP + GUTTER, 0), "nearest real ones", fill=INK, font=font_of(11))
        picture.paste(_tile(synthetic[entry["synthetic"]], side), (left, top))
        draw.rectangle((left, top, left + side - 1, top + side - 1), outline=FRAME, width=2)
        for column, index in enumerate(entry["train"][:NEIGHBOURS], 1):
            picture.paste(_tile(train[index], side), (left + column * (side + GAP) + GUTTER, top))
    return encoded(picture, size)


def encoded(picture: Image.Image, image_size: int) -> Picture:
    """The picture as PNG, or as JPEG where it shows large images."""
    buffer = io.BytesIO()
    if image_size < LARGE:
        picture.save(buffer, "PNG", optimize=False)
    else:
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return Picture("image/png" if image_size < LARGE else "image/jpeg", buffer.getvalue(), *picture.size)


def _side(size: int, room: int) -> int:
    """The side of a tile: a whole number of times the image's, or the room where the image is larger."""
    return size * max(1, room // size) if size <= room else room


def _tile(image: np.ndarray, side: int) -> Image.Image:
    """One image [H, W, C] as a square of ``side`` pixels."""
    tile = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert("RGB")
    smooth = Image.Resampling.LANCZOS if side < tile.width else Image.Resampling.NEAREST
    return tile.resize((side, side), smooth)
