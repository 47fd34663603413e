"""A public set drawn on the spot: letters and digits, named, in the style of pen strokes, white on black.

It plays the part that ImageNet plays for photographs: many named classes of which a few look like the sensitive ones.
Each image is a sign of a font that matplotlib ships, slanted, stretched and bent, drawn with a pen of random width
and fitted into the square, as the common sets of handwriting normalise theirs. The ranges below are constants that
fit pen strokes; a continental 7 has a bar, and a 1 may lack its foot. They were chosen with the published digits
of `digits.py` in view, which are no secret; choosing them on a set that is one would be a leak.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from fontTools import agl
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from privimage.data.classes import in_declared_order
from privimage.data.record import Collection, Record
from privimage.data.square import FILTERS
from privimage.errors import UserError
from privimage.progress import progress
from privimage.settings import Source

SIGNS = string.digits + string.ascii_lowercase + string.ascii_uppercase + "!#$%&()*+/<=>?@[\\]{}"
SEED = 0
HELD_OUT = 6  # one image in six of each class
SMALLEST = 4  # pixels of a sign

ROTATION = 7.0  # standard deviation, degrees
SHEAR = 0.15  # standard deviation
LOG_ASPECT = (-0.2, 0.14)  # mean and standard deviation: a pen writes narrower than a font
BEND = 0.12  # standard deviation of the smooth displacement, in half canvases
KNOTS = 3  # control points of the displacement along a side
PEN = (0.01, 0.05)  # growth of the stroke at either edge, in heights of the sign
BLUR = (0.0, 0.03)  # standard deviation of the ink's spread, in heights of the sign
SHIFT = 0.03  # standard deviation sideways, in widths of the square
FILLS = 0.625  # part of the canvas that the sign fills, so that it can be bent without leaving it


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """``images_per_class`` images of each of the first ``num_classes`` signs, or of all; always the same.

    A sixth of each is held out.
    The images of a sign come from one stream of random numbers: all are drawn when the first is asked for.

    Raises:
        UserError: if the row does not say how many, asks for more signs than there are, or leaves no room for them.
    """
    wanted, per_class = source.num_classes, source.images_per_class
    wanted = len(SIGNS) if wanted is None else wanted
    if not per_class or not 0 < wanted <= len(SIGNS):
        raise UserError(
            f"source `glyphs` got num_classes {wanted} and images_per_class {per_class}; expected a number of images, "
            f"and 1 to {len(SIGNS)} classes."
        )
    signs = SIGNS[:wanted]
    if source.resolution - 2 * source.margin < SMALLEST:
        raise UserError(
            f"source `glyphs` got margin {source.margin}; expected one that leaves {SMALLEST} of {source.resolution} "
            "pixels."
        )
    names = in_declared_order(tuple(map(name, signs)), source, class_names, "source `glyphs`")

    def items() -> Iterator[Record]:
        fonts, held_out = fonts_by_sign(), per_class // HELD_OUT

        @lru_cache(maxsize=1)
        def drawn(index: int) -> list[np.ndarray]:
            return list(_draw(index, fonts[signs[index]], signs[index], source))

        for index, sign in enumerate(progress(signs, "glyphs", len(signs))):
            label = names.index(name(sign))
            for number in range(per_class):
                split = "test" if number < held_out else "train"
                yield Record(f"{name(sign)}, image {number}", label, split, lambda i=index, n=number: drawn(i)[n])

    return Collection("glyphs drawn on the spot", names, items)


def _draw(index: int, fonts: Sequence[Path], sign: str, source: Source) -> Iterator[np.ndarray]:
    """The images of one sign, uint8 [S, S] each."""
    canvas = max(64, 2 * source.resolution)
    rng = np.random.default_rng([SEED, index])
    distances = [_distance(shape, canvas) for font in fonts for shape in _shapes(font, sign, canvas)]
    for _ in range(source.images_per_class):
        yield _fit(_bend(distances[rng.integers(len(distances))], rng), source, rng)


def name(sign: str) -> str:
    """What a person calls the sign: ``digit 3``, ``letter a``, ``capital A``, ``ampersand``."""
    if sign.isdigit():
        return f"digit {sign}"
    if sign.isalpha():
        return f"{'letter' if sign.islower() else 'capital'} {sign}"
    return unicodedata.name(sign).lower()


def fonts_by_sign() -> dict[str, list[Path]]:
    """The fonts that can draw each sign.

    Symbol fonts map letters to other shapes, and fonts of last resort to a box; so a font counts for a sign only if
    the glyph that its character map leads to carries the sign's own name.
    """
    table: dict[str, list[Path]] = {sign: [] for sign in SIGNS}
    for path in sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf")):
        if "Mono" in path.name:  # a dot in the zero
            continue
        with TTFont(path, lazy=True) as font:
            glyphs = font.getBestCmap()
        for sign in SIGNS:
            if agl.toUnicode(glyphs.get(ord(sign), ".notdef")) == sign:
                table[sign].append(path)
    return table


def _shapes(path: Path, sign: str, canvas: int) -> list[np.ndarray]:
    """The sign as the font draws it, and as a pen also writes it where that differs, as bool [canvas, canvas]."""
    font = ImageFont.truetype(str(path), 2 * canvas, layout_engine=ImageFont.Layout.BASIC)
    left, top, right, bottom = font.getbbox(sign)
    width, height = right - left, bottom - top
    printed = Image.new("L", (width, height))
    ImageDraw.Draw(printed).text((-left, -top), sign, font=font, fill=255)
    written = printed.copy()
    if sign == "1":
        ImageDraw.Draw(written).rectangle((0, 0.86 * height, width, height), fill=0)
    if sign in "7Zz":
        ImageDraw.Draw(written).rectangle((0.15 * width, 0.47 * height, 0.85 * width, 0.55 * height), fill=255)
    return [_centre(image, canvas) for image in ([printed, written] if sign in "17Zz" else [printed])]


def _centre(image: Image.Image, canvas: int) -> np.ndarray:
    image = image.crop(image.getbbox())
    scale = FILLS * canvas / max(image.size)
    size = tuple(max(1, round(scale * side)) for side in image.size)
    whole = Image.new("L", (canvas, canvas))
    whole.paste(image.resize(size, Image.Resampling.BOX), ((canvas - size[0]) // 2, (canvas - size[1]) // 2))
    return np.asarray(whole) > 127


def _distance(shape: np.ndarray, canvas: int) -> np.ndarray:
    """Signed distance to the outline in canvas pixels, negative inside: growing a stroke is adding to it."""
    outside, inside = ndimage.distance_transform_edt(~shape), ndimage.distance_transform_edt(shape)
    return (outside - inside).astype(np.float32)  # [canvas, canvas]


def _bend(distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sign in one hand: a random affine map, a smooth displacement, a pen, a blur; ink in [0, 1]."""
    canvas = len(distance)
    angle, shear = np.deg2rad(rng.normal(0, ROTATION)), rng.normal(0, SHEAR)
    stretch = np.exp(rng.normal(*LOG_ASPECT) / 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    back = np.linalg.inv(turn @ [[1, shear], [0, 1]] @ np.diag([stretch, 1 / stretch]))

    grid = np.linspace(-1, 1, canvas)
    weights = np.exp(-0.5 * ((grid[:, None] - np.linspace(-1, 1, KNOTS)) * (KNOTS - 1) / 0.8) ** 2)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)  # [canvas, KNOTS]: unit variance everywhere
    dx, dy = weights @ rng.normal(0, BEND, (2, KNOTS, KNOTS)) @ weights.T  # [canvas, canvas] each
    x = back[0, 0] * grid + back[0, 1] * grid[:, None] + dx
    y = back[1, 0] * grid + back[1, 1] * grid[:, None] + dy
    where = (np.stack([y, x]) + 1) * (canvas - 1) / 2
    bent = ndimage.map_coordinates(distance, where, order=1, mode="nearest")
    ink = np.clip(rng.uniform(*PEN) * FILLS * canvas - bent + 0.5, 0, 1)
    return ndimage.gaussian_filter(ink, rng.uniform(*BLUR) * FILLS * canvas)


def _fit(ink: np.ndarray, source: Source, rng: np.random.Generator) -> np.ndarray:
    """The ink's bounding box, its longer side filling the square but for the margin, as uint8 [S, S]."""
    rows, columns = np.flatnonzero((ink > 0.5).any(1)), np.flatnonzero((ink > 0.5).any(0))
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    x = (columns[0] + columns[-1] + 1 - side) / 2 + rng.normal(0, SHIFT) * side
    y = (rows[0] + rows[-1] + 1 - side) / 2
    beside = len(ink)
    padded = Image.fromarray(np.pad(np.rint(255 * ink).astype(np.uint8), beside))
    box = (x + beside, y + beside, x + beside + side, y + beside + side)
    size = source.resolution - 2 * source.margin
    return np.pad(np.asarray(padded.resize((size, size), FILTERS[source.filter], box=box)), source.margin)
