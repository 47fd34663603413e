"""What private mechanisms cost together, and how much noise a given cost needs.

>>> from privimage.privacy.event import Event, noisy_votes
>>> query = noisy_votes(5, query_multiplier=484.48)  # each image votes for 5 classes
>>> round(epsilon([query], delta=1e-5), 4)  # a query with this much noise is nearly free
0.0046
>>> dp_sgd = Event("poisson_gaussian", 2.331, sampling_probability=1 / 3, num_steps=150)
>>> round(epsilon([query, dp_sgd], delta=1e-5), 2)
9.2
>>> round(epsilon([dp_sgd], delta=1e-5, relation="replace_one"), 1)  # the same noise, the other relation
19.9

Formal guarantee: if the releases described by ``events`` are made in any order, each chosen in view of those before,
then for neighbouring sets of images D, D' and every set S of outcomes,
P[M(D) in S] <= exp(epsilon) * P[M(D') in S] + delta. Neighbours differ in one image, which one of them lacks
(``add_or_remove_one``, the package's relation) or which differs (``replace_one``, printed beside it).

Each mechanism is replaced by the pair of distributions that dominates it, the pairs' privacy-loss distributions are
composed by FFT, and every rounding goes up. With noise multiplier s, sampling probability q:

    discrete_gaussian k steps of N_Z(0, s^2) and N_Z(1, s^2) (mechanism.py); under replace-one 2k steps; persons: below
    gaussian          N(0, s^2) and N(m, s^2); m = 1, under replace-one the root of 2 (below), for a person m images
    poisson_gaussian  add/remove: N(0, s^2) and (1 - q) N(0, s^2) + q N(1, s^2), both ways
                      replace:    (1 - q) N(0, s^2) + q N(1, s^2) and (1 - q) N(0, s^2) + q N(-1, s^2)
                      a person with m images, added or removed: the mixture of N(i, s^2), i from Binomial(m, q)
    report_noisy_max  two outcomes, with odds e to 1 and 1 to e, where e = exp(1 / s): what dominates all that is
                      (1 / s)-DP; under replace-one 2 / s, since counts then move either way; for a person m / s

A query is one of the first two: each image adds 1 to k cells, so replacing an image changes at most 2k cells by 1, a
norm of root(2k) against root(k). That holds because no vote is negative; a general sum of bounded vectors, such as
DP-SGD's, doubles instead. The steps of ``discrete_gaussian`` are exactly what happens to the cells that one image
changes.

The m images of a person change up to m k cells by up to m each, by up to m root(k) in L2 norm. Continuous noise hides
k cells changed by m worst of all; so does discrete noise wherever the tests enumerate, but of that there is no proof,
and it is not relied on. Proven is this: draw a real Z from N(c, s^2 - 2) for a whole number c, then a whole number n
with probability proportional to exp(-(n - Z)^2 / 4). By Poisson summation these weights add up, over n, to the same for
every Z up to a factor 1 +- 2 exp(-4 pi^2); so n follows N_Z(c, s^2) up to a factor 1 +- 3e-17. The query is thus what
can be made of continuous noise: the pair is N(0, s^2 - 2) and N(m root(k), s^2 - 2). What the factors add, at most
6e-17 m k to epsilon, is left out. Where noise is small, s <= 2, it is m k steps of N_Z(0, s^2) and N_Z(m, s^2) instead:
a smaller change of a cell shows less.

Source: Canonne, Kamath & Steinke 2020 (the discrete Gaussian, whose Renyi divergence is at most the continuous one's);
Peikert 2010 (a discrete Gaussian about a Gaussian is one of both variances); Kairouz et al. 2015 (the pair that
dominates a pure guarantee); Koskela et al. 2020 and Doroshenko et al. 2022 (privacy-loss distributions; package
dp-accounting); Gopi et al. 2021 (Opacus' PRV accountant); Ganesh 2024, arXiv 2401.10294 (mixtures of Gaussians for
persons).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial, reduce
from importlib.metadata import version
from itertools import cycle
from typing import Literal

import numpy as np
from dp_accounting import NeighboringRelation
from dp_accounting.pld import common
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy.stats import binom

from privimage.artifacts import Accountant, PrivacyStatement, Provenance
from privimage.errors import UserError
from privimage.privacy.event import QUERY_MECHANISMS, Event, Mechanism
from privimage.privacy.limits import not_covered
from privimage.privacy.purposes import together_by_purpose
from privimage.settings import Declared

Relation = Literal["add_or_remove_one", "replace_one"]
RELATIONS = {
    "add_or_remove_one": NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace_one": NeighboringRelation.REPLACE_ONE,
}
PLD, PRV, RDP = "PLD (dp-accounting)", "PRV (Opacus)", "RDP (Opacus)"
TOLERANCE = 1e-3  # calibration stays below the wanted epsilon by at most this
INTERVAL = 1e-4  # grid of privacy losses; at most 1e-5 too high in epsilon for the published settings
COARSE_INTERVAL = 1e-3  # for searching, and for persons, where each point of the grid costs a root search
TAIL = 1e-15  # probability that composition may move to an infinite loss
TRUNCATION = 11.6  # of discrete noise, in units of its parameter: more has a probability below 1e-29
SMALLEST_DELTA = 1e-12  # well above what TAIL may add
PRV_ERROR = 0.02  # PRV's declared error is 0.01
GROWTH = 1.5  # of the bracket in calibration
SMALLEST_MULTIPLIER = 0.1  # noise below this is none, and its losses would not fit in memory


def epsilon(
    events: Sequence[Event], delta: float, *, relation: Relation = "add_or_remove_one", images_per_unit: int = 1
) -> float:
    """The smallest epsilon that the events together are proven to meet at ``delta``; 0 for none.

    ``images_per_unit``: protect a person with up to so many images instead of one image (add/remove only).

    Raises:
        UserError: if an event or argument is out of range, or no finite epsilon exists at this delta.
    """
    _check(events, delta)
    if relation not in RELATIONS or images_per_unit < 1 or (relation == "replace_one" and images_per_unit > 1):
        raise UserError(
            f"epsilon was asked under {relation!r} for {images_per_unit} images; expected add_or_remove_one for 1 or "
            "more images, or replace_one for 1."
        )
    value = _epsilon_of(tuple(events), delta, relation, images_per_unit)
    if not math.isfinite(value):
        raise UserError(f"no finite epsilon exists at delta {delta:g} for {list(events)}; raise delta or the noise.")
    return value


@lru_cache(maxsize=1024)  # a page asks for the same costs again and again
def _epsilon_of(events: tuple[Event, ...], delta: float, relation: Relation, images: int) -> float:
    interval = INTERVAL if images == 1 else COARSE_INTERVAL
    return _epsilon([_loss(event, relation, images, interval) for event in events], delta)


def calibrate(
    others: Sequence[Event],
    *,
    sampling_probability: float,
    num_steps: int,
    epsilon: float,
    delta: float,
    mechanism: Mechanism = "poisson_gaussian",
) -> float:
    """The noise multiplier with which DP-SGD and ``others`` cost ``epsilon`` in all: at most 0.001 less, never more.

    ``others`` are the releases made before it, and those that will be made after it. With another ``mechanism``, so
    many steps of that one instead of DP-SGD's, such as votes with discrete noise (``sampling_probability`` 1).

    Raises:
        UserError: if the others leave nothing of ``epsilon``, or no noise is needed at all.
    """
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise UserError(f"epsilon is {epsilon}; expected a finite number above 0.")
    once = Event(mechanism, 1.0, sampling_probability, num_steps)
    _check([*others, once], delta)
    return _calibrated(tuple(others), once, epsilon, delta)


@lru_cache(maxsize=1024)
def _calibrated(others: tuple[Event, ...], once: Event, epsilon: float, delta: float) -> float:
    spent = _epsilon([_loss(event) for event in others], delta)
    if spent > epsilon - TOLERANCE:
        raise UserError(
            f"epsilon {epsilon:g} at delta {delta:g} leaves nothing for fine-tuning: what is released beside it costs "
            f"{spent:.4g}. Raise epsilon, or the noise of what is beside it: {_listed(others) or 'nothing'}."
        )

    def cost(noise_multiplier: float, interval: float) -> float:
        steps = replace(once, noise_multiplier=noise_multiplier)
        return _epsilon([_loss(event, interval=interval) for event in (*others, steps)], delta)

    found = max(1.0, once.sampling_probability * math.sqrt(2 * once.num_steps * math.log(1 / delta)) / epsilon)
    for interval in (COARSE_INTERVAL, INTERVAL):  # the coarse search is ten times faster and mostly good enough
        if _epsilon([_loss(event, interval=interval) for event in others], delta) <= epsilon - TOLERANCE:
            found = _solve(partial(cost, interval=interval), epsilon - TOLERANCE / 4, found)
            if epsilon - TOLERANCE <= cost(_six_digits(found), INTERVAL) <= epsilon:
                break
    return _six_digits(found)


def accountants(events: Sequence[Event], delta: float) -> list[Accountant]:
    """Epsilon by independent accountants under add/remove-one; one that cannot process the events is left out.

    The first is the package's own. PRV is an upper bound 0.01 above its estimate, RDP a looser one. PRV knows Gaussian
    noise alone, and takes discrete for continuous noise, where that is nearly so; for RDP, it is an upper bound.
    """
    found = [Accountant(PLD, version("dp-accounting"), epsilon(events, delta))]
    beyond_prv = any(event.mechanism == "report_noisy_max" or _coarse(event) for event in events)
    events = [_continuous(event) for event in events]
    for name, measure in ((RDP, _rdp),) if beyond_prv else ((PRV, _prv), (RDP, _rdp)):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # log of 1 - q at q = 1, and a hint to widen RDP's orders
            try:
                value = measure(events, delta)
            except (RuntimeError, ValueError, OverflowError):
                value = math.nan
        if math.isfinite(value):
            found.append(Accountant(name, version("opacus"), value))
    return found


def _coarse(event: Event) -> bool:
    """Whether its noise is so small that whole numbers make a difference."""
    return event.mechanism == "discrete_gaussian" and event.noise_multiplier < 2


def _continuous(event: Event) -> Event:
    """The Gaussian mechanism that discrete noise is nearly, in one step; other events as they are."""
    return Event("gaussian", event.query_multiplier) if event.mechanism == "discrete_gaussian" else event


def _prv(events: Sequence[Event], delta: float) -> float:
    from opacus.accountants import PRVAccountant  # here, since it imports torch: seconds

    accountant = PRVAccountant()
    accountant.history = [(e.noise_multiplier, e.sampling_probability, e.num_steps) for e in events]
    return float(accountant.get_epsilon(delta))


def _rdp(events: Sequence[Event], delta: float) -> float:
    """By Opacus; what is pure adds the Renyi divergence of its dominating pair (Mironov 2017, table II)."""
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

    orders = np.array(RDPAccountant.DEFAULT_ALPHAS)
    total = np.zeros(len(orders))
    for event in events:
        multiplier, q, steps = event.noise_multiplier, event.sampling_probability, event.num_steps
        if event.mechanism == "report_noisy_max":
            likely, rare = -np.logaddexp(0, -1 / multiplier), -np.logaddexp(0, 1 / multiplier)  # ln p, ln (1 - p)
            terms = orders * likely + (1 - orders) * rare, orders * rare + (1 - orders) * likely
            total += np.logaddexp(*terms) / (orders - 1)
        else:
            total += compute_rdp(q=q, noise_multiplier=multiplier, steps=steps, orders=orders)
    return float(get_privacy_spent(orders=orders, rdp=total, delta=delta)[0])


def statement(
    events: Sequence[Event], declared: Declared, target_epsilon: float, provenance: Provenance
) -> PrivacyStatement:
    """What a release made of ``events`` costs if released alone, and what that does not cover.

    Raises:
        UserError: if another accountant contradicts the package's own.
    """
    delta, unit = declared.delta, declared.images_per_unit
    checked = accountants(events, delta)
    _check_agreement(checked)
    names = [accountant.name for accountant in checked]
    return PrivacyStatement(
        epsilon=checked[0].value,
        delta=delta,
        target_epsilon=target_epsilon,
        neighboring_relation="add_or_remove_one",
        events=list(events),
        epsilon_replace_one=epsilon(events, delta, relation="replace_one"),
        images_per_unit=unit,
        epsilon_per_unit=epsilon(events, delta, images_per_unit=unit) if unit > 1 else checked[0].value,
        num_images=declared.num_images,
        accountants=checked,
        private=not declared.reproducible_noise,
        not_covered=not_covered(declared, [name for name in (PLD, PRV, RDP) if name not in names]),
        provenance=provenance,
    )


def _check_agreement(checked: Sequence[Accountant]) -> None:
    """PRV may differ by its declared error and a little more; RDP is an upper bound, so it may not be lower."""
    values = {accountant.name: accountant.value for accountant in checked}
    own = values[PLD]
    far = abs(values.get(PRV, own) - own) > PRV_ERROR * (1 + own / 10)
    if far or values.get(RDP, own) < own - TOLERANCE:
        listed = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        raise UserError(f"the accountants contradict each other on epsilon ({listed}); nothing may be claimed.")


def together(statements: Sequence[PrivacyStatement]) -> list[Event]:
    """The events of several releases of one set of images; a draw that several share is counted once."""
    return [event for _, event in together_by_purpose(statements)]


def _loss(
    event: Event, relation: Relation = "add_or_remove_one", images: int = 1, interval: float = INTERVAL
) -> pld.PrivacyLossDistribution:
    """The privacy-loss distribution of all steps of one event."""
    multiplier, q = event.noise_multiplier, event.sampling_probability
    if event.mechanism == "report_noisy_max":
        parameters = common.DifferentialPrivacyParameters((2 if relation == "replace_one" else images) / multiplier, 0)
        return pld.from_privacy_parameters(parameters, value_discretization_interval=interval)
    if event.mechanism == "discrete_gaussian":
        return _loss_of_counts(multiplier, event.num_steps, relation, images, interval)
    if event.mechanism == "gaussian":
        distance = math.sqrt(2) if relation == "replace_one" else images
        return pld.from_gaussian_mechanism(multiplier, sensitivity=distance, value_discretization_interval=interval)
    if images == 1:
        step = pld.from_gaussian_mechanism(
            multiplier,
            sampling_prob=q,
            neighboring_relation=RELATIONS[relation],
            value_discretization_interval=interval,
        )
    else:
        drawn = np.arange(images + 1)
        step = pld.from_mixture_gaussian_mechanism(
            multiplier, drawn.astype(float), binom.pmf(drawn, images, q), value_discretization_interval=interval
        )
    return step.self_compose(event.num_steps, tail_mass_truncation=TAIL)


@lru_cache(maxsize=32)  # a calibration asks again and again
def _loss_of_counts(
    multiplier: float, votes: int, relation: Relation, images: int, interval: float
) -> pld.PrivacyLossDistribution:
    """The privacy-loss distribution of discrete Gaussian noise on counts to which each image adds ``votes`` ones."""
    if images > 1 and multiplier > 2:
        distance = images * math.sqrt(votes)
        smaller = math.sqrt(multiplier**2 - 2)
        return pld.from_gaussian_mechanism(smaller, sensitivity=distance, value_discretization_interval=interval)
    step = pld.from_discrete_gaussian_mechanism(
        multiplier,
        sensitivity=images,
        truncation_bound=math.ceil(TRUNCATION * multiplier) + images,
        value_discretization_interval=interval,
        use_connect_dots=True,
    )
    cells = 2 * votes if relation == "replace_one" else images * votes
    return step if cells == 1 else step.self_compose(cells, tail_mass_truncation=TAIL)


def _epsilon(losses: Sequence[pld.PrivacyLossDistribution], delta: float) -> float:
    if not losses:
        return 0.0
    composed = reduce(lambda a, b: a.compose(b, tail_mass_truncation=TAIL), losses)
    return float(composed.get_epsilon_for_delta(delta))


def _solve(cost: Callable[[float], float], target: float, guess: float) -> float:
    """A noise multiplier whose cost is within a fifth of the tolerance of ``target``.

    The bracket is found from the quiet side: losses grow without bound as the noise shrinks, and memory with them.
    """
    high = guess
    while (cost_high := cost(high)) > target:
        high *= GROWTH
    low = high / GROWTH
    while (cost_low := cost(low)) <= target:
        low, high, cost_high = low / GROWTH, low, cost_low
        if low < SMALLEST_MULTIPLIER:
            raise UserError(
                f"fine-tuning meets epsilon {target:.4g} with almost no noise (multiplier below "
                f"{SMALLEST_MULTIPLIER}); lower epsilon, or raise sampling_probability or the number of steps."
            )
    for middle in cycle(("secant", "secant", "half")):  # the curve is nearly straight in ln(multiplier)
        share = 0.5 if middle == "half" else (cost_low - target) / (cost_low - cost_high)
        multiplier = low * (high / low) ** share
        value = cost(multiplier)
        if abs(value - target) < TOLERANCE / 5:
            break
        if value > target:
            low, cost_low = multiplier, value
        else:
            high, cost_high = multiplier, value
    return multiplier


def _listed(events: Sequence[Event]) -> str:
    """The events in words, to a user who must spend less on them."""
    names = dict.fromkeys(QUERY_MECHANISMS, "the query's noise_multiplier")
    names["report_noisy_max"] = "1 / validation_epsilon"
    return ", ".join(f"{names.get(e.mechanism, e.mechanism)} (now {e.query_multiplier:g})" for e in events)


def _six_digits(value: float) -> float:
    """``value`` rounded up to six digits, so that rounding errors do not make another number of it."""
    digits = 5 - math.floor(math.log10(value))
    return math.ceil(value * 10**digits) / 10**digits


def _check(events: Sequence[Event], delta: float) -> None:
    if not SMALLEST_DELTA <= delta < 1:
        raise UserError(f"delta is {delta}; expected at least {SMALLEST_DELTA:g} and less than 1.")
    for event in events:
        good = math.isfinite(event.noise_multiplier) and event.noise_multiplier > 0
        good = good and 0 < event.sampling_probability <= 1 and event.num_steps >= 1
        whole, once = event.sampling_probability == 1, event.num_steps == 1
        known = {
            "gaussian": whole and once,
            "discrete_gaussian": whole,
            "poisson_gaussian": True,
            "report_noisy_max": whole and once,
        }
        if not (good and known.get(event.mechanism, False)):
            raise UserError(
                f"{event} is no mechanism that can be accounted for; expected `gaussian` or `report_noisy_max` once, "
                "or `discrete_gaussian`, over all images, or `poisson_gaussian`, noise_multiplier above 0, "
                "sampling_probability in (0, 1], num_steps 1 or more."
            )
