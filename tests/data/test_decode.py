"""Each row of the table of conversions in docs/data.md, and what is refused."""

import io
import re
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sets import noise

from privimage.data.decode import upright
from privimage.data.record import BadImage

MAX_PIXELS = 25_000_000
ROOT = Path(__file__).parents[2]


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(content, max_pixels=MAX_PIXELS):
    return np.asarray(upright(content, max_pixels)[0])


def shown(image, form="PNG", **options):
    return pixels(encoded(image, form, **options))


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_grey_and_rgb_are_kept(form):
    for image in (noise(1, channels=1), noise(2)):
        np.testing.assert_array_equal(shown(image, form), np.asarray(image))


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "JPEG2000", "GIF", "AVIF"])
def test_other_formats_are_what_pillow_decodes(form):
    content = encoded(Image.fromarray(np.full((16, 16, 3), 120, np.uint8)), form)
    np.testing.assert_array_equal(pixels(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def test_bilevel_is_black_and_white():
    bits = Image.fromarray(np.eye(4, dtype=bool))
    np.testing.assert_array_equal(shown(bits), 255 * np.eye(4))


def test_a_palette_is_what_it_shows():
    palette = noise(3).quantize(8)
    np.testing.assert_array_equal(shown(palette), np.asarray(palette.convert("RGB")))


def test_a_palette_s_transparent_colour_is_black():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((0, 0), 0)
    got = shown(palette, transparency=0)
    assert got[0, 0].tolist() == [0, 0, 0] and got[1, 1].tolist() == [200, 100, 50]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_lies_on_black(mode):
    alpha = Image.fromarray(np.array([[0, 0, 255, 255]] * 2 + [[128] * 4] * 2, np.uint8))
    image = Image.new("L", (4, 4), 200).convert(mode)
    image.putalpha(alpha)
    got = shown(image)
    assert got.ndim == len(mode) - 1 or mode == "LA"
    np.testing.assert_allclose(got if got.ndim == 2 else got[..., 0], 200 * (np.asarray(alpha) / 255.0), atol=1)


def test_grey_and_rgb_with_a_transparent_colour_are_black_there():
    grey = Image.new("L", (4, 4), 77)
    grey.putpixel((0, 0), 200)
    assert (shown(grey, transparency=77) != 77).all()
    colour = Image.new("RGB", (4, 4), (9, 8, 7))
    assert not shown(colour, transparency=(9, 8, 7)).any()


def test_cmyk_becomes_rgb():
    cyan = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    np.testing.assert_array_equal(shown(cyan, "TIFF"), np.full((4, 4, 3), (0, 255, 255)))
    assert np.abs(shown(cyan, "JPEG", quality=100).astype(int) - (0, 255, 255)).max() <= 3


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_other_colour_spaces_become_rgb(mode):
    image = noise(4, (8, 8)).convert(mode) if mode == "YCbCr" else Image.new("LAB", (8, 8), (128, 128, 128))
    np.testing.assert_array_equal(shown(image, "TIFF"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_and_never_clipped(form):
    """Pillow's own conversion to RGB saturates all but the 256 darkest of 65,536 levels."""
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    got = shown(Image.fromarray(deep), form)
    np.testing.assert_array_equal(got, np.rint(deep / 257))
    assert np.corrcoef(got.ravel(), deep.ravel())[0, 1] > 0.999


def test_sixteen_bits_a_colour_are_scaled():
    deep = np.random.default_rng(0).integers(0, 65536, (6, 6, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    content = b"\x89PNG\r\n\x1a\n"
    header = (6).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    assert np.abs(pixels(content).astype(int) - deep / 257).max() <= 1


def test_wide_integers_and_floats_have_a_fixed_range_or_are_refused():
    wide = np.array([[0, 65535], [257, 514]], np.int32).repeat(2, 0).repeat(2, 1)
    assert shown(Image.fromarray(wide), "TIFF")[::2, ::2].tolist() == [[0, 255], [1, 2]]
    floats = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    np.testing.assert_array_equal(shown(Image.fromarray(floats), "TIFF"), np.rint(255 * floats.astype(float)))
    for bad in (wide * 2, wide - 1, floats * 300, floats - 0.5):
        with pytest.raises(BadImage, match="from .* to .*; expected 0 to"):
            shown(Image.fromarray(bad), "TIFF")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_the_camera_s_orientation_is_applied(form, orientation):
    block = np.zeros((32, 16, 3), np.uint8)
    block[:16, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {1: (), 2: (2,), 3: (1, 2), 4: (1,), 5: (0,), 6: (0, 2), 7: (0, 1, 2), 8: (0, 1)}[orientation]
    want = block
    for step in undo:
        want = want.swapaxes(0, 1) if step == 0 else np.flip(want, step - 1)
    np.testing.assert_allclose(shown(Image.fromarray(block), form, exif=exif), want, atol=12)


def test_a_phone_s_mpo_is_its_leading_picture():
    first, second = Image.new("RGB", (8, 8), (200, 0, 0)), Image.new("RGB", (8, 8))
    content = encoded(first, "MPO", save_all=True, append_images=[second])
    assert Image.open(io.BytesIO(content)).n_frames == 2
    assert pixels(content)[0, 0, 0] > 190


TURNED = "II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".encode("latin-1")  # EXIF: 6
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize(
    "texts",
    [
        {"Raw profile type exif": f"\nexif\n{len(TURNED) + 6:8}\n{(b'Exif' + bytes(2) + TURNED).hex()}\n"},
        {"XML:com.adobe.xmp": XMP},
    ],
)
def test_an_orientation_in_the_texts_of_a_png_is_applied(texts):
    told = PngInfo()
    for key, value in texts.items():
        told.add_itxt(key, value)
    image = noise(3, (8, 16))
    np.testing.assert_array_equal(shown(image, pnginfo=told), np.rot90(np.asarray(image), -1))


def test_an_orientation_in_xmp_alone_is_applied():
    image = noise(3, (8, 16))
    np.testing.assert_array_equal(shown(image, "WEBP", lossless=True, xmp=XMP), np.rot90(np.asarray(image), -1))


BROKEN_EXIF = (
    b"Exif\0\0" + b"\xff" * 40,
    b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01",  # claims 65,535 entries
    b"Exif\0\0II*\0\xff\xff\xff\x7f",
    b"Exif\0\0",
)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", BROKEN_EXIF)
def test_broken_exif_costs_no_picture(form, exif):
    """ImageNet has such files; their pixels are as good as others'."""
    image = noise(3, (8, 16))
    np.testing.assert_array_equal(shown(image, form, exif=exif), shown(image, form))


def test_what_pillow_warns_of_is_neither_refused_nor_printed():
    """A JPEG whose note of further pictures is malformed, and one whose EXIF ends too early."""
    mpo = b"MPF\0" + b"\xff" * 30
    content = encoded(noise(3, (16, 16)), "JPEG")
    noted = content[:2] + b"\xff\xe2" + (len(mpo) + 2).to_bytes(2, "big") + mpo + content[2:]
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0" + TURNED[10:]
    broken = content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:]
    code = (
        "import sys; from privimage.data.decode import upright\n"
        f"for content in ({noted!r}, {broken!r}): print(upright(content, 1000)[0].size)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("(16, 16)\n" * 2, "")


@pytest.mark.parametrize("form", ["GIF", "PNG", "TIFF", "WEBP"])
def test_animations_and_stacks_are_refused(form):
    content = encoded(noise(1), form, save_all=True, append_images=[noise(2), noise(3)])
    with pytest.raises(BadImage, match="of 3 pictures"):
        pixels(content)


@pytest.mark.parametrize(
    ("array", "want"),
    [
        (np.full((4, 4), 7, np.uint8), 7),
        (np.full((4, 4, 1), 7, np.uint8), 7),
        (np.full((4, 4, 3), 7, np.uint8), 7),
        (np.full((4, 4), 257 * 7, np.uint16), 7),
        (np.full((4, 4, 3), 65535, np.uint16), 255),
        (np.ones((4, 4), bool), 255),
        (np.full((4, 4), 0.5, np.float64), 128),
        (np.full((4, 4, 3), 1.0, np.float16), 255),
        (np.full((4, 4, 4), 255, np.uint8), 255),
    ],
)
def test_arrays_are_scaled_by_their_type(array, want):
    assert (pixels(array) == want).all()


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.full((4, 4), np.nan), "not finite"),
        (np.full((4, 4), np.inf), "not finite"),
        (np.full((4, 4), 255.0), "float pixels from 255 to 255; expected 0 to 1"),
        (np.full((4, 4), -0.1), "expected 0 to 1"),
        (np.zeros((4, 4), np.int64), "type int64; expected uint8"),
        (np.zeros((4, 4), complex), "type complex128"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \[4, 4, 2\]"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"shape \[2, 4, 4, 3\]"),
        (np.zeros((0, 4), np.uint8), r"shape \[0, 4\]"),
        (np.zeros((1, 1), np.uint8), "1 x 1 pixels; expected at least 4"),
        (np.zeros((4, 100), np.uint8), "100 x 4 pixels; expected sides that differ at most 20-fold"),
    ],
)
def test_other_arrays_are_refused(array, says):
    with pytest.raises(BadImage, match=says):
        pixels(array)


WHOLE = {form: encoded(noise(7, (64, 64)), form) for form in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")}


@pytest.mark.parametrize("form", WHOLE)
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(form, keep):
    content = WHOLE[form]
    with pytest.raises(BadImage):
        pixels(content[: int(keep * len(content))])


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_off_and_filled_with_zeros_is_refused(progressive):
    """The end mark of a preview in its header does not count for its own."""
    preview = b"Exif\0\0" + encoded(noise(5), "JPEG")
    content = encoded(noise(7, (64, 64)), "JPEG", progressive=progressive)
    content = content[:2] + b"\xff\xe1" + (len(preview) + 2).to_bytes(2, "big") + preview + content[2:]
    assert pixels(content + b"\0" * 100).shape == (64, 64, 3)
    for kept in range(len(content) // 2, len(content), 97):
        with pytest.raises(BadImage, match="cannot be decoded"):
            pixels(content[:kept] + bytes(len(content) - kept))


def twelve_bits():
    """A TIFF of 12 bits a sample, which Pillow takes for 16 without scaling them."""
    tags = [(256, 8), (257, 8), (258, 12), (259, 1), (262, 1), (273, 200), (277, 1), (278, 8), (279, 96)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + b"\xff" * 96


def test_a_tiff_of_12_bits_is_refused():
    with pytest.raises(BadImage, match="12 bits a sample; expected 1, 2, 4, 8, 16, 32"):
        pixels(twelve_bits())


def test_a_flipped_bit_is_refused_or_changes_the_picture_and_never_crashes():
    rng, content = np.random.default_rng(0), WHOLE["PNG"]
    told = 0
    for place in rng.integers(0, len(content), 200):
        broken = bytearray(content)
        broken[place] ^= 1 << rng.integers(8)
        try:
            pixels(bytes(broken))
        except BadImage:
            told += 1
    assert told > 190  # a PNG has checksums


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"\0" * 100, "not an image"),
        (b"just text", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "not an image"),
        (b"%PDF-1.7\n" + b"x" * 50, "not an image"),
        (b"PK\x03\x04" + b"x" * 50, "not an image"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded|not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
    ],
)
def test_what_is_no_image_is_refused(content, says):
    with pytest.raises(BadImage, match=says):
        pixels(content)


def png_of(width, height):
    """A small file that claims a large black picture, and keeps its word."""
    content = b"\x89PNG\r\n\x1a\n"
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(b"\0" * (width + 1)) for _ in range(height)) + packer.flush()
    for kind, part in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        content += len(part).to_bytes(4, "big") + kind + part + zlib.crc32(kind + part).to_bytes(4, "big")
    return content


@pytest.mark.parametrize("side", [6_000, 9_000, 12_000, 20_000])
def test_a_bomb_is_refused_before_it_is_decoded(side):
    content = png_of(side, side)
    assert len(content) < 500_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadImage, match=r"pixels; expected at most 25000000 pixels \(a decompression bomb\?\)"):
        pixels(content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def claimed(form, width, height):
    """A file of few bytes that claims a size."""
    if form == "PNG":
        content = bytearray(png_of(8, 8))
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        return bytes(content)
    if form == "BMP":
        content = bytearray(encoded(noise(1), "BMP"))
        content[18:26] = struct.pack("<II", width, height)
        return bytes(content)
    frame = b"!\xf9\x04\x08\0\0\0\0," + struct.pack("<HHHH", 0, 0, width, height) + b"\0"  # cleared when it is over
    return b"GIF89a" + struct.pack("<HH", 8, 8) + b"\0\0\0" + frame + b"\x08\0;"


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF"])
@pytest.mark.parametrize(("side", "limit"), [(60_000, MAX_PIXELS), (6_000, MAX_PIXELS), (16_000, 200_000_000)])
def test_a_claimed_size_meets_our_limit_and_no_other(form, side, limit):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadImage, match=rf"pixels; expected at most {limit} pixels \(a decompression bomb") as told:
        pixels(claimed(form, side, side), limit)
    assert "raise `preprocess.max_pixels`" in told.value.fix
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_a_limit_above_pillow_s_own_is_the_limit():
    side = 14_000  # 196 million pixels
    assert upright(png_of(side, side), side * side)[0].size == (side, side)


def test_the_limit_is_a_setting():
    content = png_of(100, 100)
    assert pixels(content, 10_000).shape == (100, 100)
    with pytest.raises(BadImage, match="at most 9999 pixels"):
        pixels(content, 9_999)


def test_truncated_files_are_never_completed():
    """Pillow's global switches stay as they are, whatever another package may do on import."""
    code = "import privimage.data.decode; from PIL import ImageFile; assert not ImageFile.LOAD_TRUNCATED_IMAGES"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_how_it_was_stored_is_told():
    assert upright(encoded(noise(1)), MAX_PIXELS)[1] == "PNG RGB"
    assert re.match("PNG I;16", upright(encoded(Image.fromarray(np.zeros((4, 4), np.uint16))), MAX_PIXELS)[1])
    assert upright(np.zeros((4, 4), bool), MAX_PIXELS)[1] == "bool array"
