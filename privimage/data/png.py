"""PNG files that Pillow reads without a word, though they are cut off or do not mean what it takes them for."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

from privimage.data.record import BadImage

END = b"IEND\xaeB`\x82"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of each colour type
STRETCH = 1 << 20


def check_png(content: bytes, image: Image.Image) -> None:
    """Return if the file has its end mark, all its rows and the colours it names; ``image`` is what Pillow decoded.

    Pillow fills missing rows with black: they are counted only where the last one is black, never of interlaced files.

    Raises:
        BadImage: if it has not.
    """
    if content.rfind(END) < 0:
        raise BadImage("cannot be decoded (the PNG file is cut off)", "copy it anew or remove it")
    bits, colours = content[24], content[25]
    if "transparency" in image.info and colours in (0, 2) and bits not in (1, 8):  # compared with pixels of 8 bits
        raise BadImage(f"a transparent colour at {bits} bits", "store it with 8 bits, or with an alpha channel")
    if image.mode == "P" and image.getextrema()[1] >= len(image.palette.palette) // len(image.palette.mode):
        raise BadImage("cannot be decoded (a pixel's colour is not in the palette)", "copy it anew or remove it")
    last = image.crop((0, image.height - 1, image.width, image.height))
    if not any(high for _, high in _extremes(last)):
        _check_rows(content)


def _extremes(image: Image.Image) -> list[tuple[int, int]]:
    found = image.getextrema()
    return [found] if not isinstance(found[0], tuple) else list(found)


def _check_rows(content: bytes) -> None:
    width, height, bits, colours, _, _, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    if interlaced or colours not in CHANNELS:
        return
    wanted = height * (1 + (width * bits * CHANNELS[colours] + 7) // 8)
    packed, count = zlib.decompressobj(), 0
    try:
        for data in _chunks(content):
            while data and not packed.eof:
                count += len(packed.decompress(data, STRETCH))
                data = packed.unconsumed_tail
    except zlib.error as error:
        raise BadImage(f"cannot be decoded ({error})", "copy it anew or remove it") from error
    if count < wanted:
        raise BadImage(
            f"cannot be decoded ({count} bytes of pixels; expected {wanted} for {width} x {height})",
            "copy it anew or remove it",
        )


def _chunks(content: bytes):
    """The data of each IDAT chunk."""
    place = 8
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        if kind == b"IDAT":
            yield content[place + 8 : place + 8 + length]
        place += 12 + length
