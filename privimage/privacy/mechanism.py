"""Discrete Gaussian noise on whole counts, and the place of the largest of several counts.

Formal guarantee of ``discrete_gaussian``: let one image more change each of at most k counts by at most 1, and the
others not at all. Then the result is what ``Event("discrete_gaussian", noise_multiplier, num_steps=k)`` describes,
however many counts there are: under add/remove-one its privacy loss is that of k independent draws of N_Z(0, s^2)
against as many of N_Z(1, s^2), where s is ``noise_multiplier`` and N_Z(m, s^2) is the distribution on the whole numbers
n with probabilities proportional to exp(-(n - m)^2 / (2 s^2)). Proof: the noise of each count is independent, the
distribution is symmetric, and the counts that do not change tell nothing. Under replace-one at most 2k counts change
by 1: the same with 2k for k. The noise is exact: see privacy/discrete_gaussian.py.

Formal guarantee of ``report_noisy_max``: let one image more raise each count by at least 0 and at most ``sensitivity``,
as it does with counts of right answers. Then the result is what ``Event("report_noisy_max", noise_multiplier)``
describes: epsilon-DP under add/remove-one with epsilon = 1 / noise_multiplier, and 2 epsilon-DP under replace-one.
Proof: fix the noise of all counts but the i-th. Place i is told if its own noise exceeds t, the largest of the others
less the i-th count. One image more raises both by something in [0, sensitivity], so it moves t by at most sensitivity.
Noise of scale sensitivity / epsilon exceeds t with probability exp(-epsilon max(t, 0) / sensitivity), which changes by
a factor in [exp(-epsilon), exp(epsilon)]; so it does on average over the noise of the others. Were counts to move in
different ways, t could move by twice that: here the factor 2 is saved.

Not claimed: the exponential noise ends at 36.7 of its scales, beyond which real noise lies with probability 1e-16.

Source: Canonne, Kamath & Steinke 2020, arXiv 2004.00010 (the discrete Gaussian); Dwork & Roth 2014, section 3.3 (report
noisy max; claim 3.9 for counts); Ding et al. 2021 and McKenna & Sheldon 2020 for exponential noise, with which the
choice is on average at least as good as the exponential mechanism's at the same epsilon.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from privimage.errors import UserError
from privimage.privacy.discrete_gaussian import Uniform, draw_gaussian
from privimage.privacy.randomness import SecretKey

LARGEST = 2.0**40  # noise, so that noisy counts are whole numbers in float64 too


def discrete_gaussian(
    counts: np.ndarray, noise_multiplier: float, key: SecretKey, purpose: str, *indices: int
) -> np.ndarray:
    """The whole ``counts`` plus independent discrete Gaussian noise of parameter ``noise_multiplier``, in int64.

    The parameter is exactly the floating-point number that is given, a fraction of whole numbers, and so is its square.

    Raises:
        UserError: if the counts are no whole numbers, or the noise multiplier is not positive or above 2^40.
    """
    _check("the discrete Gaussian mechanism", 1, noise_multiplier)
    if counts.dtype.kind != "i" or noise_multiplier > LARGEST:
        raise UserError(
            f"the discrete Gaussian mechanism got {counts.dtype} counts and noise_multiplier {noise_multiplier:g}; "
            "expected whole numbers and at most 2^40; lower the query's noise_multiplier."
        )
    uniform = Uniform(key.stream(purpose, *indices, shape=counts.shape))
    variance = Fraction(noise_multiplier) ** 2
    noise = [draw_gaussian(variance, uniform) for _ in range(counts.size)]
    return counts.astype(np.int64) + np.array(noise, np.int64).reshape(counts.shape)


def report_noisy_max(
    counts: np.ndarray, sensitivity: float, noise_multiplier: float, key: SecretKey, purpose: str, *indices: int
) -> int:
    """The place of the largest of ``counts`` [n] plus exponential noise of scale ``noise_multiplier * sensitivity``.

    Raises:
        UserError: if the sensitivity or the noise multiplier is not a positive number.
    """
    _check("report noisy max", sensitivity, noise_multiplier)
    counts = np.asarray(counts, dtype=np.float64)
    noise = -np.log(key.uniform(purpose, *indices, shape=counts.shape))  # standard exponential
    return int(np.argmax(counts + noise_multiplier * sensitivity * noise))


def _check(mechanism: str, sensitivity: float, noise_multiplier: float) -> None:
    for name, number in (("sensitivity", sensitivity), ("noise_multiplier", noise_multiplier)):
        if not (math.isfinite(number) and number > 0):
            raise UserError(f"{mechanism} got {name} {number}; expected a positive number.")
