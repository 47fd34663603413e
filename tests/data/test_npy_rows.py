"""Rows of .npy files: what numpy wrote, one by one, in any order; never objects, never the whole."""

import io
import zipfile

import numpy as np
import pytest

from privimage.data.npy_rows import Rows, header
from privimage.data.record import BadImage
from privimage.errors import UserError


def saved(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def crafted(text, version=1, length=None):
    field = (len(text) if length is None else length).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + field + text.encode()


def rows(content, **changes):
    return Rows(lambda: io.BytesIO(content), "images", **changes)


class Stream(io.RawIOBase):
    """A file that can only be read onwards."""

    def __init__(self, content):
        self.file = io.BytesIO(content)

    def readinto(self, buffer):
        return self.file.readinto(buffer)

    def readable(self):
        return True

    def tell(self):
        return self.file.tell()


ARRAYS = [
    np.arange(60, dtype=np.uint8).reshape(5, 3, 4),
    np.linspace(0, 1, 30, dtype=np.float32).reshape(5, 6),
    np.arange(5),
    np.arange(5, dtype=">i2"),
    np.array(["cat", "dog", "eel", "fox", "gnu"]),
    np.array([b"cat", b"dog", b"eel", b"f", b""]),
    np.eye(5, dtype=bool),
    np.zeros((5, 0), np.uint8),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.dtype))
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_rows_come_in_any_order_as_numpy_wrote_them(array, version):
    content = saved(array, version)
    found = rows(content, size=len(content))
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    for index in (0, 2, 4, 3, 3, 0):
        np.testing.assert_array_equal(found.row(index), array[index])
    np.testing.assert_array_equal(found.whole(), array)


def test_after_the_header_the_file_stands_at_the_first_element():
    file = io.BytesIO(saved(ARRAYS[0]))
    assert header(file, "x") == ((5, 3, 4), np.uint8)
    assert file.read() == ARRAYS[0].tobytes()


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_rows_come_out_of_an_archive(tmp_path, packed):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", packed) as archive:
        archive.writestr("data.npy", saved(ARRAYS[0]))

    def opened():
        with zipfile.ZipFile(tmp_path / "x.npz") as archive:
            return archive.open("data.npy")

    found = Rows(opened, "data")
    for index in (1, 4, 0):
        np.testing.assert_array_equal(found.row(index), ARRAYS[0][index])


def test_a_file_that_cannot_seek_is_read_onwards():
    opened = []
    content = saved(ARRAYS[0])
    found = Rows(lambda: opened.append(1) or io.BufferedReader(Stream(content)), "images")
    for index in (1, 2, 4):
        np.testing.assert_array_equal(found.row(index), ARRAYS[0][index])
    assert len(opened) == 2  # once for the header, once for all rows
    np.testing.assert_array_equal(found.row(0), ARRAYS[0][0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (saved(np.array([1, None], object)), "type object; expected plain numbers"),
        (saved(np.zeros(2, [("a", "u1")])), "expected plain numbers"),
        (saved(np.zeros(2, "V3")), "expected plain numbers"),
        (saved(np.zeros(2, "M8[s]")), "expected plain numbers"),
        (saved(np.asfortranarray(np.ones((3, 4)))), "column by column"),
        (saved(np.array(3)), "is a single number"),
        (b"", "is no array that can be read"),
        (b"PK\x03\x04", "is no array that can be read"),
        (saved(ARRAYS[0])[:50], "is no array that can be read"),
        (crafted("{'descr': '|u1'}"), "is no array that can be read"),
        (crafted("__import__('os').system('true')"), "is no array that can be read"),
        (crafted("(" * 9000), "is no array that can be read"),
        (crafted("", 2, 2**32 - 1), "a header of 4294967295 bytes"),
        (crafted("", 9), "version"),
        (crafted("{'descr': '|u1', 'fortran_order': False, 'shape': (-3, 4), }"), "no negative lengths"),
        (
            crafted("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 99999999999), }"),
            "expected at most 268435456",
        ),
        (crafted("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }"), "never Python objects"),
        (crafted("{'descr': '<U999999999', 'fortran_order': False, 'shape': (3,), }"), "rows of|can be read"),
    ],
)
def test_what_is_no_array_of_rows_is_refused(content, message):
    with pytest.raises(UserError, match=f"^images .*{message}"):
        rows(content)


@pytest.mark.parametrize("change", [-1, 1, 12])
def test_another_length_than_the_shapes_is_refused(change):
    content = saved(ARRAYS[0])
    with pytest.raises(UserError, match=rf"expected {len(content)}, as its shape \[5, 3, 4\] says"):
        rows(content, size=len(content) + change)


def test_a_file_that_ends_early_gives_bad_images():
    found = rows(saved(ARRAYS[0])[:-20])
    np.testing.assert_array_equal(found.row(2), ARRAYS[0][2])
    with pytest.raises(BadImage, match="ends 8 bytes too early"):
        found.row(3)
    np.testing.assert_array_equal(found.row(0), ARRAYS[0][0])
    with pytest.raises(BadImage, match="too early"):
        found.whole()


def test_a_huge_array_is_not_read_whole():
    found = rows(crafted("{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999,), }"))
    with pytest.raises(UserError, match="expected at most 268435456"):
        found.whole()


def test_a_file_that_is_gone_is_refused(tmp_path):
    with pytest.raises(UserError, match="images cannot be opened"):
        Rows(lambda: (tmp_path / "absent").open("rb"), "images")
