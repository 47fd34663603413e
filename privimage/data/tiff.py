"""TIFF files whose pixels Pillow hands over without regard to what their tags say of them."""

from __future__ import annotations

from PIL import Image

from privimage.data.record import BadImage

BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
WHOLE_BITS = (1, 2, 4, 8, 16, 32)
WHITE_IS_ZERO, SIGNED = 0, 2


def check_tiff(content: bytes, image: Image.Image) -> None:
    """Return if the pixels of the decoded file are what they seem.

    Raises:
        BadImage: if deep grey counts downwards from white, bytes are signed, or a sample has 12 bits or the like, which
            would be taken for dark ones of 16.
    """
    tags = image.tag_v2
    odd = [bits for bits in tags.get(BITS, ()) if bits not in WHOLE_BITS]
    if odd:
        raise BadImage(
            f"{odd[0]} bits a sample; expected {', '.join(map(str, WHOLE_BITS))}", "scale it to 8 or 16 bits"
        )
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO and image.mode not in ("1", "L"):
        raise BadImage(f"pixels of mode {image.mode} of which 0 is white", "store it with 0 as black")
    if SIGNED in tags.get(SAMPLE_FORMAT, ()) and image.mode in ("L", "RGB"):
        raise BadImage("signed bytes", "store it with unsigned ones")
