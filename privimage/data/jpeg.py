"""JPEG files that Pillow reads without a word, though they are cut off."""

from __future__ import annotations

from PIL import Image

from privimage.data.record import BadImage

END = b"\xff\xd9"
SCAN = 0xDA
BARE = (0x01, *range(0xD0, 0xD9))  # markers without a length


def check_jpeg(content: bytes, image: Image.Image) -> None:
    """Return if the file has an end mark behind the start of its pixels; what is cut off may be filled with zeros.

    Raises:
        BadImage: if it has not.
    """
    if content.endswith(END):
        return
    if content.rfind(END) < _scan(content):  # a preview in the header has an end mark of its own
        raise BadImage("cannot be decoded (the JPEG file is cut off)", "copy it anew or remove it")


def _scan(content: bytes) -> int:
    """Where the pixels start, or the end of the file."""
    place = 2
    while place + 4 <= len(content) and content[place + 1] != SCAN:
        if content[place] != 0xFF or content[place + 1] == 0xFF:  # bytes between markers
            place += 1
        elif content[place + 1] in BARE:
            place += 2
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return min(place, len(content))
