"""What errors say is one line without control characters, whatever a path or a library says."""

import pytest

from privimage.data import MODULES, reader
from privimage.data.messages import reason, shown
from privimage.errors import UserError
from privimage.settings import DRAWN, Source

EVIL = "pets\n\x1b[31m\udc80"


def test_a_path_is_shown_on_one_line():
    assert shown(EVIL) == r"pets\n\x1b[31m\udc80"
    assert shown("Hündchen/犬.png") == "Hündchen/犬.png"


def test_an_error_is_a_line_of_at_most_200_characters_or_its_type():
    assert reason(ValueError("a\nb")) == r"a\nb"
    assert reason(EOFError()) == "EOFError"
    assert len(reason(ValueError("x" * 10_000))) == 200


@pytest.mark.parametrize("there", ["a folder", "a file", "nothing"])
@pytest.mark.parametrize("name", sorted(set(MODULES) - set(DRAWN)))
def test_every_reader_shows_its_path_so(tmp_path, name, there):
    path = tmp_path / EVIL
    if there == "a folder":
        path.mkdir()
    elif there == "a file":
        path.write_bytes(b"text")
    with pytest.raises(UserError) as error:
        reader(name)(Source(source=name, path=str(path), resolution=4, channels=3), None)
    assert str(error.value).isprintable() and r"pets\n" in str(error.value)
