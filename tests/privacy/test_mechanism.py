"""The Gaussian mechanism adds what its event says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from privimage.errors import UserError
from privimage.privacy.mechanism import gaussian
from privimage.privacy.randomness import SecretKey

KEY = SecretKey.from_seed(3)


def test_the_noise_is_gaussian_with_the_stated_standard_deviation() -> None:
    value = np.arange(200_000, dtype=np.float64).reshape(400, 500)
    noise = gaussian(value, math.sqrt(5), 20.0, KEY, "query") - value
    assert stats.kstest(noise.ravel(), "norm", args=(0, 20 * math.sqrt(5))).pvalue > 1e-6
    half = stats.kstest(noise.ravel(), "norm", args=(0, 10 * math.sqrt(5))).pvalue
    assert half < 1e-12  # the test could tell


def test_integers_get_float_noise() -> None:
    assert gaussian(np.zeros(3, np.int64), 1.0, 1.0, KEY, "query").dtype == np.float64


def test_the_noise_does_not_depend_on_the_value() -> None:
    zero, one = np.zeros(100), np.ones(100)
    np.testing.assert_allclose(
        gaussian(one, 1.0, 2.0, KEY, "query", 4) - one, gaussian(zero, 1.0, 2.0, KEY, "query", 4), atol=1e-12
    )


@pytest.mark.parametrize("sensitivity, multiplier", [(0, 1), (1, 0), (1, -1), (1, math.nan), (math.inf, 1)])
def test_no_noise_is_refused(sensitivity, multiplier) -> None:
    with pytest.raises(UserError, match="expected a positive number"):
        gaussian(np.zeros(3), sensitivity, multiplier, KEY, "query")
