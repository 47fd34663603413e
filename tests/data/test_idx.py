"""IDX files: what is not exactly as long as its header says is refused; pixels come as they are stored."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from privimage.data import idx
from privimage.data.record import BadImage
from privimage.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 4, 5), dtype=np.uint8)


def encoded(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(path, content, packed=False):
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    return path


def images(path, max_pixels=1000):
    return idx.Images(path, max_pixels)


@pytest.mark.parametrize("packed", [False, True])
def test_images_come_in_any_order_as_they_were_stored(tmp_path, packed):
    found = images(write(tmp_path / "x", encoded(PIXELS), packed))
    assert (found.count, found.height, found.width) == PIXELS.shape
    rows = found.rows()
    for index in (0, 1, 4, 6, 2, 2, 0):
        np.testing.assert_array_equal(found.image(rows, index), PIXELS[index])


@pytest.mark.parametrize("packed", [False, True])
def test_labels_come_as_they_were_stored(tmp_path, packed):
    values = np.array([3, 0, 255, 7], np.uint8)
    np.testing.assert_array_equal(idx.labels(write(tmp_path / "y", encoded(values), packed), 4), values)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("change", [-1, 1, -140, 1000])
def test_another_length_than_the_headers_is_refused(tmp_path, packed, change):
    content = encoded(PIXELS)
    content = content[:change] if change < 0 else content + bytes(change)
    with pytest.raises(UserError, match=r"expected 156, as its header says \(7 x 4 x 5\): copy it anew"):
        images(write(tmp_path / "x", content, packed))
    labels = encoded(np.zeros(200, np.uint8))
    labels = labels[:change] if change < 0 else labels + bytes(change)
    with pytest.raises(UserError, match="expected 208, as its header says"):
        idx.labels(write(tmp_path / "y", labels, packed), 200)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0",
        b"\0\0\x08\x01" + bytes(20),
        b"\0\0\x0d\x03" + bytes(200),
        b"\x89PNG" + bytes(50),
        b"\0\0\x08\x03\0",
    ],
    ids=["empty", "cut", "labels", "floats", "PNG", "cut within the sizes"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_file_of_images_is_refused_by_name(tmp_path, content, packed):
    with pytest.raises(UserError, match=r"x (begins with the bytes|ends within its header).*; expected"):
        images(write(tmp_path / "x", content, packed))


def test_images_are_no_labels(tmp_path):
    with pytest.raises(UserError, match="00 00 08 03; expected 00 00 08 01, an IDX file of labels"):
        idx.labels(write(tmp_path / "x", encoded(PIXELS)), 7)


def test_a_wrong_number_of_labels_is_refused(tmp_path):
    with pytest.raises(UserError, match="has 4 labels; expected 5, one for each image"):
        idx.labels(write(tmp_path / "y", encoded(np.zeros(4, np.uint8))), 5)


@pytest.mark.parametrize("cut", [-1, -9, 25, 12])
def test_a_compressed_file_that_was_cut_is_refused(tmp_path, cut):
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(encoded(PIXELS))[:cut])
    with pytest.raises(UserError, match="x cannot be read .*copy it anew"):
        images(path)


def test_a_damaged_byte_in_a_compressed_file_is_found_before_any_image_is_used(tmp_path):
    content = bytearray(gzip.compress(encoded(PIXELS), 0))
    content[60] ^= 1  # in level 0 a pixel is stored as it is: only the checksum tells
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match="x cannot be read .*CRC"):
        images(tmp_path / "x")


@pytest.mark.parametrize("sizes", [(2**31, 28, 28), (0, 28, 28), (3, 0, 5), (3, 2**16, 2**16), (3, 2**32 - 1, 1)])
@pytest.mark.parametrize("packed", [False, True])
def test_absurd_sizes_are_refused_before_anything_is_allocated(tmp_path, sizes, packed):
    path = write(tmp_path / "x", struct.pack(">BBBB3I", 0, 0, 8, 3, *sizes) + bytes(100), packed)
    tracemalloc.start()
    with pytest.raises(UserError, match="x says that it holds"):
        images(path)
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


def test_a_bomb_is_unpacked_no_further_than_its_header_says(tmp_path):
    path = write(tmp_path / "x", encoded(PIXELS) + bytes(50_000_000), True)
    tracemalloc.start()
    with pytest.raises(UserError, match="holds at least 157 bytes; expected 156"):
        images(path)
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_cut_after_it_was_checked_gives_a_bad_image(tmp_path, packed):
    path = write(tmp_path / "x", encoded(PIXELS), packed)
    found = images(path)
    write(path, encoded(PIXELS)[:-30], packed)
    rows = found.rows()
    np.testing.assert_array_equal(found.image(rows, 4), PIXELS[4])
    with pytest.raises(BadImage, match="ends 10 bytes too early"):
        found.image(rows, 5)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="absent cannot be read"):
        images(tmp_path / "absent")
