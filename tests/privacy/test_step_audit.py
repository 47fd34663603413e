"""An adversary who sees every step looks for single images: it learns nearly what the stated noise allows, and no more.

A trial is one step and one image, whose presence is to be guessed from what the step lets out; every image has an entry
of its own in the model, and there are as many entries without an image. The threshold is fixed beforehand, half way
between the two. Both error rates are bounded by Clopper-Pearson at 99.95 %, so that together they hold at 99.9 %. From
the bounds follows the largest noise multiplier that a mechanism with such errors can have; its inverse mu is a lower
bound, to be compared with what was stated.

With false alarms at rate a, at most (1 - q) a + q Phi(Phi^-1(a) + mu) of the images that are there, each with
probability q, can be found if the noise multiplier is 1 / mu. For q = 1 that is the trade-off of Gaussian privacy.

Source: Nasr et al. 2023 (step-level audits); Dong et al. 2022 (Gaussian differential privacy).
"""

from __future__ import annotations

import secrets

import pytest
from mutants import MUTANTS
from scipy import stats
from watched import WHITE, Table, plain, sums

from privimage.privacy import accounting
from privimage.privacy.event import Event
from privimage.privacy.randomness import SecretKey

ENTRIES, STEPS = 500, 40
TRIALS = ENTRIES * STEPS  # a side
MISTAKEN = 0.0005  # of each bound
CASES = [(0.5, 1.0), (0.5, 0.8)]  # noise multiplier, sampling probability
DELTA = 0.01


def found_and_false(noise: float, q: float) -> tuple[int, int]:
    """How many of the trials with an image, and of those without, exceed the threshold of one half."""
    images = plain([WHITE] * ENTRIES, list(range(ENTRIES)), 2 * ENTRIES)
    key = SecretKey(secrets.token_bytes(32))
    how = dict(num_steps=STEPS, sampling_probability=q, noise_levels_per_image=1, microbatch=100)
    seen = -sums(Table(2 * ENTRIES), images, key, noise, **how) > 0.5
    return int(seen[:, :ENTRIES].sum()), int(seen[:, ENTRIES : 2 * ENTRIES].sum())


def lower_bound(found: int, false: int, q: float) -> float:
    """The least mu with which so many are found at so many false alarms, at 99.9 % confidence."""
    rate = stats.beta.ppf(MISTAKEN, found, TRIALS - found + 1)
    alarms = stats.beta.isf(MISTAKEN, false + 1, TRIALS - false)
    return stats.norm.ppf((rate - (1 - q) * alarms) / q) - stats.norm.ppf(alarms)


def epsilon(mu: float, q: float) -> float:
    return accounting.epsilon([Event("poisson_gaussian", 1 / mu, q, 1)], DELTA)


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "q"), CASES)
def test_the_audit_comes_near_what_is_stated_and_never_above(noise, q):
    """A sound step fails here once in 10,000 runs at most: the nearest limit is 4.5 deviations away."""
    assert TRIALS == 20_000
    mu = lower_bound(*found_and_false(noise, q), q)
    print(f"q {q:g}: mu {mu:.3f} of {1 / noise:g}, epsilon {epsilon(mu, q):.2f} of {epsilon(1 / noise, q):.2f}")
    assert 0.85 <= mu * noise <= 1
    assert epsilon(mu, q) <= epsilon(1 / noise, q)


@pytest.mark.parametrize(("name", "noise", "q"), [("noise halved", *CASES[0]), ("the bound doubled", *CASES[1])])
def test_the_audit_tells_that_the_noise_is_too_small(name, noise, q, monkeypatch):
    MUTANTS[name].apply(monkeypatch)
    assert lower_bound(*found_and_false(noise, q), q) > 1 / noise
