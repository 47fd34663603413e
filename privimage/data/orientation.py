"""How the camera was held: from EXIF, from a PNG's text of it, or from XMP."""

from __future__ import annotations

from PIL import Image

TELLING = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"})  # what Pillow looks into
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turned(image: Image.Image) -> Image.Image:
    """The image upright, or as it is stored where nothing that can be read says how it was held."""
    if TELLING.isdisjoint(image.info) and image.format != "TIFF":  # a TIFF says it among its tags
        return image
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:  # of broken EXIF, Pillow raises errors of many kinds; the picture itself is whole
        return image
    return image.transpose(turn) if turn is not None else image
