"""Vectors of the words in class names, from a file of text, and how near two names are in meaning.

A file has a word and its numbers a line, apart by spaces: GloVe's form; word2vec's has a first line that says how many
words and how many numbers. A name of several words is the mean of those of its words that are known.

Source: Pennington et al. 2014 (GloVe); Mikolov et al. 2013 (word2vec).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from privimage.errors import UserError


def words(name: str) -> list[str]:
    """The words of a class name, in lower case: ``Egyptian_cat`` -> ``egyptian``, ``cat``."""
    return re.findall(r"[^\W_]+", name.lower())


def read_vectors(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The vector of each name of which a word is known: float64 [D]. Other words of the file are passed over.

    Raises:
        UserError: if the file is absent, or not vectors of one length as text.
    """
    names = list(names)
    found = _read(Path(path), {word for name in names for word in words(name)})
    known = {name: [found[word] for word in words(name) if word in found] for name in names}
    return {name: np.mean(vectors, axis=0) for name, vectors in known.items() if vectors}


def mean_cosine(vector: np.ndarray, others: Iterable[np.ndarray]) -> float:
    """The mean over the others of their cosine with the vector; that of a zero vector is 0."""
    return float(np.mean([_unit(vector) @ _unit(other) for other in others]))


def agreement_of(classes: Mapping[str, list[str]], vectors: Mapping[str, np.ndarray]) -> dict[str, float]:
    """For each class the mean cosine with its selected ones, as far as both are known."""
    known = {name: [vectors[other] for other in chosen if other in vectors] for name, chosen in classes.items()}
    return {name: mean_cosine(vectors[name], row) for name, row in known.items() if name in vectors and row}


def _read(path: Path, wanted: set[str]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    try:
        with open(path, encoding="utf-8") as file:
            width = 0
            for number, line in enumerate(file, 1):
                if number == 1 and re.fullmatch(r"\d+ \d+\s*", line):
                    width = int(line.split()[1])
                    continue
                width = width or len(line.split()) - 1
                word, *numbers = line.rstrip().rsplit(" ", width)  # the word itself may hold a space
                if len(numbers) != width or width < 1:
                    raise UserError(f"{path} has {len(numbers)} numbers in line {number}; expected {width}.")
                if word in wanted and word not in found:
                    found[word] = _numbers(path, number, numbers)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
        raise UserError(
            f"semantics.word_vectors is {path}, which cannot be read ({why}); give a file of word vectors as text."
        ) from None
    return found


def _numbers(path: Path, line: int, texts: list[str]) -> np.ndarray:
    try:
        vector = np.array(texts, np.float64)
    except ValueError:
        vector = np.array([np.nan])
    if not np.isfinite(vector).all():
        raise UserError(f"{path} has what is no number in line {line}; expected a word and its numbers.")
    return vector


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / (np.linalg.norm(vector) or 1.0)
