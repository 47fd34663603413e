"""The Gaussian mechanism on an array, and the place of the largest of several counts.

Formal guarantee of ``gaussian``: let ``value`` change by at most ``sensitivity`` in L2 norm when one image is added to
or removed from the data. Then the result is what ``Event("gaussian", noise_multiplier)`` describes: under
add/remove-one its privacy loss is that of N(0, noise_multiplier^2) against N(1, noise_multiplier^2), whatever the
array's size.

Formal guarantee of ``report_noisy_max``: let one image more raise each count by at least 0 and at most ``sensitivity``,
as it does with counts of right answers. Then the result is what ``Event("report_noisy_max", noise_multiplier)``
describes: epsilon-DP under add/remove-one with epsilon = 1 / noise_multiplier, and 2 epsilon-DP under replace-one.
Proof: fix the noise of all counts but the i-th. Place i is told if its own noise exceeds t, the largest of the others
less the i-th count. One image more raises both by something in [0, sensitivity], so it moves t by at most sensitivity.
Noise of scale sensitivity / epsilon exceeds t with probability exp(-epsilon max(t, 0) / sensitivity), which changes by
a factor in [exp(-epsilon), exp(epsilon)]; so it does on average over the noise of the others. Were counts to move in
different ways, t could move by twice that: here the factor 2 is saved.

Not claimed: exponential noise ends at 36.7 of its scales, beyond which real noise lies with probability 1e-16.

Source: Dwork & Roth 2014, appendix A, and section 3.3 (report noisy max; claim 3.9 for counts); Balle & Wang 2018,
theorem 8, for the exact epsilon and delta; Ding et al. 2021 and McKenna & Sheldon 2020 for exponential noise, with
which the choice is on average at least as good as the exponential mechanism's at the same epsilon.
"""

from __future__ import annotations

import math

import numpy as np

from privimage.errors import UserError
from privimage.privacy.randomness import SecretKey


def gaussian(
    value: np.ndarray, sensitivity: float, noise_multiplier: float, key: SecretKey, purpose: str, *indices: int
) -> np.ndarray:
    """``value`` plus independent Gaussian noise of standard deviation ``noise_multiplier * sensitivity``, in float64.

    Raises:
        UserError: if the sensitivity or the noise multiplier is not a positive number.
    """
    _check("the Gaussian mechanism", sensitivity, noise_multiplier)
    value = np.asarray(value, dtype=np.float64)
    return value + noise_multiplier * sensitivity * key.normal(purpose, *indices, shape=value.shape)


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
