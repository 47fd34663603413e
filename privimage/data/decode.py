"""Whatever an image is stored as becomes one upright picture of mode L or RGB, by fixed rules, or is refused.

The rules are constants: no image is stretched by its own brightest pixel or by another image. Pillow's own
``convert`` is not used where it would clip: of a 16-bit image it saturates everything above 255.
The table of conversions is in docs/data.md.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image

from privimage.data.jpeg import check_jpeg
from privimage.data.orientation import turned
from privimage.data.png import check_png
from privimage.data.record import BadImage, Content
from privimage.data.tiff import check_tiff

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA", "AVIF")
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N", "I")
Image.init()  # `formats` finds only what is loaded
warnings.filterwarnings("ignore", module=r"PIL\.")  # what it warns of, such as broken EXIF, shows in no picture
PILLOW_LIMIT = Image.MAX_IMAGE_PIXELS or 0
CHECKS = {"JPEG": check_jpeg, "MPO": check_jpeg, "PNG": check_png, "TIFF": check_tiff}
DARK = "uint8 array of 0 and 1"
MAX_ASPECT = 20  # beyond it, the centre square would keep less than a twentieth of the picture
MIN_SIDE = 4


def upright(content: Content, max_pixels: int) -> tuple[Image.Image, str]:
    """The picture as a person sees it, in mode L or RGB, and in words how it was stored.

    Raises:
        BadImage: if it cannot be read, is too large, or is stored in a way that has no fixed meaning in 8 bits.
    """
    if isinstance(content, np.ndarray):
        picture, stored = _from_pixels(content), f"{content.dtype} array"
        if content.dtype == np.uint8 and content.max() <= 1:
            stored = DARK
    else:
        picture, stored = _from_file(content, max_pixels)
    width, height = picture.size
    if min(width, height) < MIN_SIDE:
        raise BadImage(f"{width} x {height} pixels; expected at least {MIN_SIDE} on the short side", "remove it")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(
            f"{width} x {height} pixels; expected sides that differ at most {MAX_ASPECT}-fold, since only the centre "
            "square is kept",
            "crop or remove it",
        )
    return picture, stored


def _from_file(content: bytes, max_pixels: int) -> tuple[Image.Image, str]:
    if not content:
        raise BadImage("the file is empty", "copy it anew or remove it")
    # Some formats reserve memory before the size is known here: Pillow's own limit holds until then, but never first.
    Image.MAX_IMAGE_PIXELS = max(PILLOW_LIMIT, max_pixels)
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            raise _too_large(f"{width} x {height}", max_pixels)
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a phone's MPO leads with the picture
            raise BadImage(f"an animation or stack of {image.n_frames} pictures", "keep the one that counts")
        image.load()
        stored = f"{image.format} {image.mode}"
        if check := CHECKS.get(image.format):
            check(content, image)
        return _eight_bits(turned(image)), stored
    except Image.DecompressionBombError:
        raise _too_large(f"more than {2 * Image.MAX_IMAGE_PIXELS}", max_pixels) from None
    except BadImage:
        raise
    except Image.UnidentifiedImageError:
        raise BadImage("not an image in a known format", "remove it, or convert it to PNG") from None
    except Exception as error:  # Pillow's decoders raise errors of many kinds; all mean a bad file
        raise BadImage(f"cannot be decoded ({error or type(error).__name__})", "copy it anew or remove it") from error


def _too_large(size: str, max_pixels: int) -> BadImage:
    return BadImage(
        f"{size} pixels; expected at most {max_pixels} pixels (a decompression bomb?)",
        "make it smaller, or raise `preprocess.max_pixels`",
    )


def _eight_bits(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode in DEEP_GREY:
        return _from_pixels(_deep(np.asarray(image)))
    if mode == "F":
        return _from_pixels(np.asarray(image))
    if mode not in MODES:
        raise BadImage(f"pixels of mode {mode}; expected one of {', '.join((*MODES, *DEEP_GREY, 'F'))}", "convert it")
    if mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", clear.size, "black"), clear)
    return image.convert("L" if mode in ("1", "L", "LA", "La") else "RGB")


def _deep(pixels: np.ndarray) -> np.ndarray:
    """Grey of 16 bits, which Pillow may hand over in wider integers."""
    if pixels.min() < 0 or pixels.max() > 65535:
        raise BadImage(
            f"32-bit pixels from {pixels.min()} to {pixels.max()}; expected 0 to 65535", "scale it to 16 or 8 bits"
        )
    return pixels.astype(np.uint16)


def _from_pixels(pixels: np.ndarray) -> Image.Image:
    """Shapes: uint8, uint16, bool or float [H, W] or [H, W, 1, 3 or 4] -> a picture."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]  # [H, W]
    if not (pixels.ndim == 2 or pixels.ndim == 3 and pixels.shape[2] in (3, 4)) or not pixels.size:
        raise BadImage(f"an array of shape {list(pixels.shape)}; expected [H, W] or [H, W, 1, 3 or 4]")
    if pixels.dtype == bool:
        pixels = np.where(pixels, np.uint8(255), np.uint8(0))
    elif pixels.dtype == np.uint16:
        wide = pixels.astype(np.uint32)
        wide += 128
        wide //= 257  # 65535 becomes 255: scaled, never clipped
        pixels = wide.astype(np.uint8)
    elif pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all():
            raise BadImage("pixels that are not finite (NaN or infinity)")
        if pixels.min() < 0 or pixels.max() > 1:
            raise BadImage(
                f"float pixels from {pixels.min():g} to {pixels.max():g}; expected 0 to 1", "scale it, or store 8 bits"
            )
        scaled = pixels.astype(np.float64)
        scaled *= 255
        pixels = np.rint(scaled, out=scaled).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise BadImage(f"pixels of type {pixels.dtype}; expected uint8, uint16, bool, or float in [0, 1]")
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return image if image.mode in ("L", "RGB") else _eight_bits(image)
