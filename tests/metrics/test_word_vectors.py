"""Word vectors: closed forms, both forms of file, names of several words, what is unknown."""

import numpy as np
import pytest

from privimage.errors import UserError
from privimage.metrics.word_vectors import agreement_of, mean_cosine, read_vectors, words

GLOVE = "cat 1 0\ndog 1 1\negyptian 0 2\n. . 5 5\nship 0 -1\n"


@pytest.fixture
def path(tmp_path):
    def write(text, encoding="utf-8"):
        (tmp_path / "vectors.txt").write_bytes(text.encode(encoding))
        return tmp_path / "vectors.txt"

    return write


@pytest.mark.parametrize("head", ["", "5 2\n"])  # GloVe's form, word2vec's
def test_a_name_is_the_mean_of_its_known_words(path, head):
    found = read_vectors(path(head + GLOVE), ["cat", "Egyptian_cat", "guard dog", "ptarmigan"])
    assert {name: vector.tolist() for name, vector in found.items()} == {
        "cat": [1, 0],
        "Egyptian_cat": [0.5, 1],
        "guard dog": [1, 1],
    }


def test_words_of_names():
    assert words("Egyptian_cat") == ["egyptian", "cat"]
    assert words("capital A") == ["capital", "a"] and words("black-and-tan coonhound")[0] == "black"
    assert words("Übermensch 3") == ["übermensch", "3"]


def test_the_mean_cosine_in_closed_form():
    assert mean_cosine(np.array([3.0, 0]), [np.array([1.0, 1]), np.array([0, -2.0])]) == pytest.approx(0.5**0.5 / 2)
    assert mean_cosine(np.zeros(2), [np.ones(2)]) == 0


def test_classes_agree_as_far_as_they_are_known(path):
    classes = {"cat": ["dog", "ptarmigan"], "ship": ["ptarmigan"], "emu": ["cat"], "dog": []}
    vectors = read_vectors(path(GLOVE), {*classes, "ptarmigan"})
    assert agreement_of(classes, vectors) == {"cat": pytest.approx(0.5**0.5)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat 1 0\ndog 1\n", "line 2; expected 2"),
        ("cat 1 0\ndog 1 x\n", "no number in line 2"),
        ("cat 1 nan\n", "no number in line 1"),
        ("cat\n", "line 1; expected 0"),
    ],
)
def test_what_is_no_table_of_vectors_is_one_sentence(path, text, message):
    with pytest.raises(UserError, match=message):
        read_vectors(path(text), ["cat", "dog"])


def test_a_file_that_is_absent_or_binary_is_one_sentence(path, tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_vectors(tmp_path / "absent.txt", ["cat"])
    with pytest.raises(UserError, match="not text"):
        read_vectors(path("c\xe4t 1 0\n", "latin-1"), ["cat"])
