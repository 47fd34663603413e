"""TIFF files whose pixels Pillow hands over without regard to what their tags say of them."""

from __future__ import annotations

from PIL import Image

from privimage.data.record import BadImage

PHOTOMETRIC, SAMPLE_FORMAT = 262, 339
WHITE_IS_ZERO, SIGNED = 0, 2


def check_tiff(image: Image.Image) -> None:
    """Return if the pixels of the decoded file are what they seem.

    Raises:
        BadImage: if deep grey counts downwards from white, or bytes are signed.
    """
    tags = image.tag_v2
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO and image.mode not in ("1", "L"):
        raise BadImage(f"pixels of mode {image.mode} of which 0 is white", "store it with 0 as black")
    if SIGNED in tags.get(SAMPLE_FORMAT, ()) and image.mode in ("L", "RGB"):
        raise BadImage("signed bytes", "store it with unsigned ones")
