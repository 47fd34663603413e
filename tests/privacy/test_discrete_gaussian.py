"""The sampler draws the discrete Gaussian: against exact probabilities, by exact arithmetic, from the key alone."""

from __future__ import annotations

import ast
import math
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from privimage.privacy import discrete_gaussian as module
from privimage.privacy.discrete_gaussian import Uniform, draw_gaussian, draw_laplace, happens
from privimage.privacy.randomness import SecretKey

KEY = SecretKey.from_seed(11)
N = 20_000
FALSE_ALARM = 1e-6  # of each statistical test; seeds are fixed, so a test that passes once passes always
ROOTS = (0.5, 1.0, 3.0, 70.0)  # of variances


def uniform(*indices: int) -> Uniform:
    return Uniform(KEY.stream("test", *indices, shape=()))


@cache
def draws(root: float, count: int = N) -> np.ndarray:
    source = uniform(round(root * 1000))
    return np.array([draw_gaussian(Fraction(root) ** 2, source) for _ in range(count)])


def pmf(variance: float) -> tuple[np.ndarray, np.ndarray]:
    """The whole numbers within 12 standard deviations and their exact probabilities."""
    far = math.ceil(12 * math.sqrt(variance)) + 1
    numbers = np.arange(-far, far + 1)
    weights = np.exp(-(numbers**2) / (2 * variance))
    return numbers, weights / weights.sum()


def fits(seen: np.ndarray, variance: float) -> float:
    """The p-value of Pearson's test of ``seen`` against the exact probabilities in bins that expect at least 8."""
    numbers, chances = pmf(variance)
    expected, places = chances * len(seen), np.zeros(len(numbers), int)
    held, place = 0.0, 0
    for i, value in enumerate(expected):  # neighbouring numbers share a bin until it is full
        places[i], held = place, held + value
        if held >= max(8, len(seen) / 60) and expected[i + 1 :].sum() >= 8:
            held, place = 0.0, place + 1
    bins = places[np.clip(seen - numbers[0], 0, len(numbers) - 1)]
    return stats.chisquare(np.bincount(bins, minlength=place + 1), np.bincount(places, expected)).pvalue


@pytest.mark.slow
@pytest.mark.parametrize("root", ROOTS)
def test_many_draws_have_the_exact_probabilities(root) -> None:
    assert fits(draws(root, 200_000), root**2) > FALSE_ALARM
    assert fits(draws(root, 200_000), (root * 1.02) ** 2) < FALSE_ALARM  # the test could tell


@pytest.mark.parametrize("root", ROOTS)
def test_draws_have_the_exact_probabilities(root) -> None:
    assert fits(draws(root), root**2) > FALSE_ALARM
    assert fits(draws(root), (root * 1.06) ** 2) < FALSE_ALARM  # the test could tell


def test_a_variance_that_is_no_square_and_the_fraction_of_a_float_are_drawn_too() -> None:
    for index, variance in enumerate((Fraction(22, 7), Fraction(0.4) ** 2, Fraction(10**30, 3))):
        source = uniform(100 + index)
        seen = np.array([float(draw_gaussian(variance, source)) for _ in range(2000)])
        if variance > 10**6:
            assert stats.kstest(seen / math.sqrt(variance), "norm").pvalue > FALSE_ALARM
        else:
            assert fits(seen.astype(int), float(variance)) > FALSE_ALARM


def test_a_continuous_gaussian_that_is_rounded_would_not_pass() -> None:
    rounded = np.rint(0.5 * KEY.normal("rounded", shape=N)).astype(int)
    assert fits(rounded, 0.25) < FALSE_ALARM


def test_signs_are_even_and_nothing_is_cut_off() -> None:
    for root in ROOTS:
        seen = draws(root)
        plus, minus = int((seen > 0).sum()), int((seen < 0).sum())
        assert stats.binomtest(plus, plus + minus).pvalue > FALSE_ALARM
        numbers, chances = pmf(root**2)
        expected = N * chances[np.abs(numbers) > 2.5 * root].sum()
        beyond = int((np.abs(seen) > 2.5 * root).sum())
        assert beyond > 0 and stats.poisson.ppf(FALSE_ALARM, expected) <= beyond
        assert beyond <= stats.poisson.isf(FALSE_ALARM, expected)


def test_moments_of_many_draws_are_those_of_the_distribution() -> None:
    for root in ROOTS:
        numbers, chances = pmf(root**2)
        for power in (1, 2, 4):
            mean = float(chances @ numbers.astype(float) ** power)
            spread = math.sqrt(float(chances @ numbers.astype(float) ** (2 * power)) - mean**2)
            assert abs(np.mean(draws(root).astype(float) ** power) - mean) < 5 * spread / math.sqrt(N)


@pytest.mark.parametrize("variance", [0.25, 0.5, 1.0, 2.0])
def test_the_probabilities_and_the_variance_are_those_of_poisson_summation(variance) -> None:
    """What the draws are held against is right; and the variance is below the parameter, by 2e-7 of it at 1."""
    numbers, chances = pmf(variance)
    waves = [(n, math.exp(-2 * math.pi**2 * variance * n**2)) for n in range(1, 20)]
    total = 1 + 2 * sum(wave for _, wave in waves)
    assert chances[numbers == 0][0] == pytest.approx(1 / (math.sqrt(2 * math.pi * variance) * total), rel=1e-12)
    less = 8 * math.pi**2 * variance * sum(n**2 * wave for n, wave in waves) / total
    assert chances @ numbers**2 == pytest.approx(variance * (1 - less), rel=1e-12)
    assert less > 0 and (less < 1e-6 or variance < 1)


def test_draws_are_independent_of_those_before() -> None:
    seen = draws(3.0)
    for lag in (1, 2, 7):
        for a, b in ((seen[:-lag], seen[lag:]), (np.abs(seen[:-lag]), np.abs(seen[lag:]))):
            assert abs(np.corrcoef(a, b)[0, 1]) < stats.norm.isf(FALSE_ALARM / 2) / math.sqrt(N - lag)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 255, 256, 257, 1000])
def test_uniform_numbers_are_uniform(limit) -> None:
    source = uniform(limit)
    seen = np.bincount([source.below(limit) for _ in range(max(3000, 10 * limit))], minlength=limit)
    assert len(seen) == limit and (limit == 1 or stats.chisquare(seen).pvalue > FALSE_ALARM)


def test_uniform_numbers_take_every_byte_once_and_in_order() -> None:
    """Of a stream 1, 2, 3, … each draw of a byte gives the next, over the edges of its blocks."""
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        position += size
        return bytes(i % 251 for i in range(position - size, position))

    source = Uniform(read)
    assert [source.below(256) for _ in range(9000)] == [i % 251 for i in range(9000)]
    assert source.below(1) == 0 and source.below(256) == 9000 % 251  # no choice costs no byte
    wide = [source.below(2**24) for _ in range(3000)]
    assert wide == [int.from_bytes(bytes(j % 251 for j in range(i, i + 3)), "little") for i in range(9001, 18001, 3)]


@pytest.mark.parametrize("a, b", [(0, 1), (1, 3), (1, 1), (7, 5), (10**30 + 1, 10**30), (3, 1)])
def test_what_happens_with_an_exponential_chance_happens_so_often(a, b) -> None:
    source = uniform(a % 97, b % 97)
    assert stats.binomtest(sum(happens(a, b, source) for _ in range(8000)), 8000, math.exp(-a / b)).pvalue > 1e-5


@pytest.mark.parametrize("scale", [1, 2, 9])
def test_the_laplace_draws_have_the_exact_probabilities(scale) -> None:
    source, numbers = uniform(scale, 1), np.arange(-4 * scale, 4 * scale + 1)
    seen = np.array([draw_laplace(scale, source) for _ in range(8000)])
    expected = 8000 * np.exp(-np.abs(numbers) / scale) * math.tanh(0.5 / scale)
    inside = np.bincount(seen[np.abs(seen) <= 4 * scale] + 4 * scale, minlength=len(numbers))
    rest = 8000 - inside.sum()
    assert stats.chisquare([*inside, rest], [*expected, 8000 - expected.sum()]).pvalue > FALSE_ALARM


def test_the_same_bits_give_the_same_draws_and_other_bits_others() -> None:
    drawn = [[draw_gaussian(Fraction(100), source) for _ in range(40)] for source in map(uniform, (0, 0, 1))]
    assert drawn[0] == drawn[1] != drawn[2]


def test_no_floating_point_number_takes_part() -> None:
    tree = ast.parse(Path(module.__file__).read_text())
    constants = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    assert not any(isinstance(value, float) for value in constants)
    assert not any(isinstance(n, ast.BinOp | ast.AugAssign) and isinstance(n.op, ast.Div) for n in ast.walk(tree))
    called = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "math"}
    assert called == {"isqrt"}


def test_no_draw_of_the_replay_moves() -> None:
    """Known values: a query that is replayed after a crash, by a later version too, must draw the same."""
    source = Uniform(KEY.stream("query", shape=(8,)))
    assert [draw_gaussian(Fraction(22.36) ** 2, source) for _ in range(8)] == [-15, -24, 32, 52, -43, -32, -23, -53]
