"""Exact draws of the discrete Gaussian: the whole number n with probability proportional to exp(-n^2 / (2 variance)).

``variance`` is the distribution's parameter, a rational number; the draws' own variance is never larger, and from 1 on
smaller by less than 1e-6 of it. Every decision is a comparison of whole numbers drawn from secret bytes: no
floating-point number takes part, no tail is cut off, and no low-order bit can tell what the noise was added to.

A library's sampler cannot stand here: those that are maintained take their bits from the operating system, and a draw
that is repeated after a crash must be the draw that was charged.

Not claimed: the number of bytes read, and so the time, depends on the noise that is drawn. Whoever can time one draw
is outside the guarantee.

Source: Canonne, Kamath & Steinke 2020, arXiv 2004.00010, algorithms 1 (``happens``), 2 (``draw_laplace``, of a
scale that is a whole number) and 3 (``draw_gaussian``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

BLOCK = 4096  # bytes taken from the stream at a time


class Uniform:
    """Independent uniform whole numbers, made of a stream's bytes in their order."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read, self._block, self._next = read, b"", 0

    def below(self, limit: int) -> int:
        """One of 0 … limit - 1, each equally likely: as many bits as the largest has, again if they say more."""
        bits = (limit - 1).bit_length()
        size = (bits + 7) // 8
        while True:
            found = int.from_bytes(self._take(size), "little") >> (8 * size - bits)
            if found < limit:
                return found

    def _take(self, size: int) -> bytes:
        if self._next + size > len(self._block):
            self._block = self._block[self._next :] + self._read(max(size, BLOCK))
            self._next = 0
        self._next += size
        return self._block[self._next - size : self._next]


def happens(a: int, b: int, uniform: Uniform) -> bool:
    """True with probability exp(-a / b), for whole numbers a >= 0 and b > 0."""
    whole, rest = divmod(a, b)
    return all(_happens(1, 1, uniform) for _ in range(whole)) and _happens(rest, b, uniform)


def _happens(a: int, b: int, uniform: Uniform) -> bool:
    """The same for a <= b: in a row of trials of chances a/b, a/2b, a/3b, …, the first failure is at an odd place."""
    place = 1
    while uniform.below(b * place) < a:
        place += 1
    return place % 2 == 1


def draw_laplace(scale: int, uniform: Uniform) -> int:
    """The whole number n with probability proportional to exp(-|n| / scale)."""
    while True:
        low = uniform.below(scale)
        if not happens(low, scale, uniform):
            continue
        high = 0
        while happens(1, 1, uniform):
            high += 1
        size, negative = low + scale * high, uniform.below(2) == 1
        if size or not negative:  # zero has one sign
            return -size if negative else size


def draw_gaussian(variance: Fraction, uniform: Uniform) -> int:
    """The whole number n with probability proportional to exp(-n^2 / (2 variance)): a Laplace draw, thinned."""
    above, below = variance.numerator, variance.denominator
    scale = math.isqrt(above // below) + 1
    while True:
        found = draw_laplace(scale, uniform)
        # exp(-(|n| - variance / scale)^2 / (2 variance)), over one denominator
        if happens((abs(found) * below * scale - above) ** 2, 2 * above * below * scale**2, uniform):
            return found
