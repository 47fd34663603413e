"""The Gaussian mechanism on an array.

Formal guarantee: let ``value`` change by at most ``sensitivity`` in L2 norm when one image is added to or removed from
the data. Then the result is what ``Event("gaussian", noise_multiplier)`` describes: under add/remove-one its privacy
loss is that of N(0, noise_multiplier^2) against N(1, noise_multiplier^2), whatever the array's size.

Source: Dwork & Roth 2014, appendix A; Balle & Wang 2018, theorem 8, for the exact epsilon and delta.
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
    for name, number in (("sensitivity", sensitivity), ("noise_multiplier", noise_multiplier)):
        if not (math.isfinite(number) and number > 0):
            raise UserError(f"the Gaussian mechanism got {name} {number}; expected a positive number.")
    value = np.asarray(value, dtype=np.float64)
    return value + noise_multiplier * sensitivity * key.normal(purpose, *indices, shape=value.shape)
