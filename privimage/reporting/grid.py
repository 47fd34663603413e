"""A grid of images by class, as a picture that anyone can open."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLUMNS = 10
SHEET_CLASSES = 20
MAX_WIDTH = 900
GAP = 2
PAPER, INK, EMPTY = (255, 255, 255), (29, 39, 51), (236, 239, 243)


def image_grid(
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    per_class: int | None = None,
    max_width: int = MAX_WIDTH,
) -> bytes:
    """The grid as a PNG: any number of bytes, and every pixel as it is."""
    buffer = io.BytesIO()
    grid_picture(images, labels, class_names, per_class, max_width).save(buffer, "PNG")
    return buffer.getvalue()


def grid_picture(
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    per_class: int | None = None,
    max_width: int = MAX_WIDTH,
) -> Image.Image:
    """The first images of each class: a class a row (more rows if there are few classes), with its name.

    Pixels are enlarged by a whole number, without smoothing; images that do not fit into ``max_width`` are left
    out, and a class with too few images leaves its places grey. A single class has no name to tell.

    Shapes: ``images`` uint8 [N, H, W, C] with C 1 or 3; ``labels`` integers [N].
    """
    size = images.shape[1]
    per_class = per_class or default_per_class(len(class_names))
    columns = min(per_class, COLUMNS, max(1, (max_width * 3 // 4) // (size + GAP)))
    cell = size * max(1, ((max_width * 5 // 6) // columns - GAP) // size)
    font = font_of(min(24, max(12, cell // 3)))
    names = [_shortened(name, font, max_width // 6 - 3 * GAP) for name in class_names] if len(class_names) > 1 else []
    gutter = max((int(font.getlength(name)) + 4 * GAP for name in names), default=0)
    blocks = [
        _block(images[np.flatnonzero(labels == index)[:per_class]], per_class, columns, cell)
        for index in range(len(class_names))
    ]
    step = max(blocks[0].shape[0], int(font.size) + 2) + 2 * GAP  # classes stand a little further apart than rows
    picture = Image.new("RGB", (gutter + blocks[0].shape[1], step * len(blocks) - 2 * GAP), PAPER)
    draw = ImageDraw.Draw(picture)
    for row, block in enumerate(blocks):
        picture.paste(Image.fromarray(block), (gutter, row * step))
    for row, name in enumerate(names):
        draw.text((gutter - 3 * GAP, row * step + cell // 2), name, fill=INK, font=font, anchor="rm")
    return picture


def sheet_classes(num_classes: int) -> np.ndarray:
    """The labels that a contact sheet shows: all, or ``SHEET_CLASSES`` evenly spread over them."""
    return np.unique(np.linspace(0, num_classes - 1, min(SHEET_CLASSES, num_classes)).round().astype(int))


def contact_sheet(images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> bytes:
    """The first images of the classes that a contact sheet shows, as a PNG.

    Shapes: ``images`` uint8 [N, H, W, C] with C 1 or 3, of which few are read; ``labels`` integers [N].
    """
    shown = sheet_classes(len(class_names))
    per_class = default_per_class(len(shown))
    chosen = [np.flatnonzero(labels == label)[:per_class] for label in shown]
    rows, numbers = np.concatenate(chosen), np.repeat(np.arange(len(shown)), [len(c) for c in chosen])
    return image_grid(images[rows], numbers, [class_names[label] for label in shown], per_class)


def default_per_class(num_classes: int) -> int:
    """Images to show of each class: one row, or several while there are fewer than four classes."""
    return COLUMNS * max(1, 6 // num_classes if num_classes < 4 else 1)


def _block(images: np.ndarray, per_class: int, columns: int, cell: int) -> np.ndarray:
    """The images of one class in rows of ``columns``. Shapes: uint8 [rows * pitch - GAP, columns * pitch - GAP, 3]."""
    rows, pitch = -(-per_class // columns), cell + GAP
    block = np.full((rows * pitch - GAP, columns * pitch - GAP, 3), PAPER, np.uint8)
    for place in range(rows * columns):
        top, left = place // columns * pitch, place % columns * pitch
        if place < len(images):
            factor = cell // images.shape[1]
            tile = images[place].repeat(factor, 0).repeat(factor, 1)  # [cell, cell, C]
        else:
            tile = EMPTY
        block[top : top + cell, left : left + cell] = tile
    return block


def font_of(size: int) -> ImageFont.FreeTypeFont:
    """The font of names beside images."""
    import matplotlib  # ships DejaVu Sans, which covers more scripts than Pillow's own font

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _shortened(name: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The name on one line, cut in the middle where it is wider than ``width`` pixels."""
    name = " ".join(name.split())
    if font.getlength(name) <= width:
        return name
    head, tail = name[: len(name) // 2], name[len(name) // 2 :]
    while head and font.getlength(f"{head}…{tail}") > width:
        head, tail = (head[:-1], tail) if len(head) >= len(tail) else (head, tail[1:])
    return f"{head}…{tail}"
